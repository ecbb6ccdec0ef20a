"""System checks: a wrong setting, a missing secret and a saga without its recipe are found before the first order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connection

from payments import checks, runbook
from payments.models import GatewayAccount, SagaRun, SagaState
from payments.models.saga import TERMINAL_STATES
from payments.sagas import registry
from payments.sagas.checkout import CHECKOUT
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


class TestVersions:
    """A new version is expanded first: both are registered until the last old run has ended."""

    @pytest.fixture(autouse=True)
    def old_run(self, db: None) -> None:
        GatewayAccount.objects.update(is_active=False)
        SagaRunFactory(kind="parcel", definition_version=1, state="WAITING")

    @pytest.fixture
    def deploy(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        def deploy_versions(*versions: int) -> None:
            fakes = {
                ("parcel", version): replace(CHECKOUT, kind="parcel", version=version) for version in versions
            }
            monkeypatch.setattr(checks, "RECIPES", {**registry.RECIPES, **fakes})

        return deploy_versions

    def test_both_may_be_deployed_the_new_one_alone_not(self, deploy: Any) -> None:
        deploy(1, 2)
        assert find("default") == []
        deploy(2)
        assert find("default") == ["payments.E002"]
        SagaRun.objects.update(state="COMPLETED")
        assert find("default") == []

    def test_migrate_refuses_it_too(self, deploy: Any) -> None:
        deploy(2)
        with pytest.raises(SystemCheckError, match="parcel version 1 is not deployed"):
            call_command("migrate", verbosity=0, skip_checks=False)

    def test_the_containers_ask_before_they_start(self) -> None:
        root = Path(checks.__file__).resolve().parent.parent
        assert "manage.py check --database default && exec gunicorn" in (root / "Dockerfile").read_text()
        assert "manage.py migrate --noinput &&" in (root / "compose.yaml").read_text()

    def test_only_live_rows_are_read(self) -> None:
        plan = SagaRun.objects.live().order_by().values_list("kind", "definition_version")
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")
        assert "saga_one_live_per_subject" in plan.explain()


class TestOnCall:
    @pytest.mark.parametrize(
        ("changes", "found"),
        [
            ({}, ["payments.W002"]),
            ({"PRODUCTION": False}, []),
            ({"ONCALL_URL": "https://oncall.example"}, []),
            ({"ONCALL_EMAIL": ["a@shop.example"]}, []),
            (
                {
                    "ONCALL_EMAIL": ["a@shop.example"],
                    "EMAIL_BACKEND": "django.core.mail.backends.console.EmailBackend",
                },
                ["payments.W002"],
            ),
        ],
    )
    def test_that_nobody_would_hear_is_a_warning(
        self, settings: Any, changes: dict[str, Any], found: list[str]
    ) -> None:
        settings.PRODUCTION = True
        for name, value in changes.items():
            setattr(settings, name, value)
        assert find() == found

    def test_a_guide_that_is_not_there_is_an_error(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(runbook, "read_sections", dict)
        assert set(find()) == {"payments.E003"}
        monkeypatch.undo()
        runbook.read_sections.cache_clear()
        monkeypatch.setattr(runbook, "GUIDE", tmp_path / "none.md")
        assert find() == ["payments.E003"]
        runbook.read_sections.cache_clear()
