"""System checks: a wrong setting, a missing secret and a saga without its recipe are found before the first order."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError

from payments.models import GatewayAccount, SagaState
from payments.models.saga import TERMINAL_STATES
from tests.factories.payments import GatewayAccountFactory, GatewaySecretFactory, SagaRunFactory


def find(*databases: str) -> list[str]:
    """The ids of what our checks found."""
    return [
        message.id
        for message in run_checks(databases=databases or None)
        if message.id.startswith("payments.")
    ]


class TestBackends:
    def test_the_sites_own_can_be_loaded(self) -> None:
        assert find() == []

    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("PAYMENT_GATEWAYS", {"stripe": "payments.gateways.stripe.NoSuchGateway"}),
            ("PAYMENT_GATEWAYS", {"stripe": "no.such.module"}),
            ("PAYMENT_SCREENER", "fraud.screening.NoSuchScreener"),
            ("INVENTORY_BACKEND", "no.such.Inventory"),
            ("SHIPPING_BACKEND", "not a path"),
        ],
    )
    def test_one_that_cannot_be_loaded_is_an_error(self, settings: Any, setting: str, value: Any) -> None:
        setattr(settings, setting, value)
        assert find() == ["payments.E001"]


@pytest.mark.django_db
class TestWebhookSecrets:
    @pytest.fixture(autouse=True)
    def only_ours(self) -> None:
        GatewayAccount.objects.update(is_active=False)

    def test_an_active_account_without_one_is_a_warning(self) -> None:
        GatewayAccountFactory()
        assert find("default") == ["payments.W001"]

    def test_an_account_with_one_is_fine(self) -> None:
        GatewaySecretFactory()
        assert find("default") == []

    def test_a_reference_to_nothing_is_none(self) -> None:
        GatewaySecretFactory(value="env:NOBODY_SET_THIS")
        assert find("default") == ["payments.W001"]


@pytest.mark.django_db
class TestRecipes:
    @pytest.fixture(autouse=True)
    def no_accounts(self) -> None:
        GatewayAccount.objects.update(is_active=False)

    @pytest.mark.parametrize("state", sorted(set(SagaState.values) - set(TERMINAL_STATES)))
    def test_a_deploy_that_drops_one_still_in_use_is_refused(self, state: str) -> None:
        SagaRunFactory(definition_version=99, state=state)
        assert find("default") == ["payments.E002"]
        with pytest.raises(
            SystemCheckError, match="checkout version 99 is not deployed, and 1 runs still use it"
        ):
            call_command("check", databases=["default"])

    @pytest.mark.parametrize("state", TERMINAL_STATES)
    def test_one_whose_runs_have_ended_may_go(self, state: str) -> None:
        SagaRunFactory(definition_version=99, state=state)
        assert find("default") == []

    def test_those_that_are_deployed_are_fine(self) -> None:
        SagaRunFactory()
        assert find("default") == []


def test_without_a_database_none_is_asked(django_assert_num_queries: Any, db: None) -> None:
    SagaRunFactory(definition_version=99)
    with django_assert_num_queries(0):
        assert find() == []
