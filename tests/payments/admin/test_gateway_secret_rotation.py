"""A webhook secret is rotated on the account's page: the old one gets its end, neither is ever shown."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from payments.controls.roles import ROLES
from payments.errors import ConflictError
from payments.models import GatewayAccount
from tests.factories.payments import GatewayAccountFactory, GatewaySecretFactory
from tests.payments.admin.conftest import Login
from tests.payments.admin.test_house_pages import TestGatewayAccounts

pytestmark = pytest.mark.django_db

DAY = timedelta(hours=24)
OLD, NEW = "whsec_topsecret_old", "whsec_topsecret_new"


@pytest.fixture
def account(db: None) -> GatewayAccount:
    account: GatewayAccount = GatewayAccountFactory(name="rotating")
    GatewaySecretFactory(account=account, value=OLD)
    return account


def url_of(account: GatewayAccount, action: str = "change") -> str:
    return reverse(f"admin:payments_gatewayaccount_{action}", args=[account.pk])


def rotate(client: Client, account: GatewayAccount, **changes: str) -> Any:
    found = re.search(
        r'name="token" value="([^"]+)"[^>]*id="id_rotate_token"', client.get(url_of(account)).content.decode()
    )
    data = {"token": found[1] if found else "t" * 20, "value": NEW, "starts_at": "", "overlap_hours": "24"}
    return client.post(url_of(account, "rotate"), data | changes, follow=True)


def told(response: Any) -> str:
    return " ".join(str(message) for message in response.context["messages"])


def ends(account: GatewayAccount) -> dict[str, Any]:
    return {secret.value: secret.not_after for secret in account.secrets.all()}


class TestTheButton:
    def test_makes_both_valid_for_a_day(self, log_in: Login, account: GatewayAccount) -> None:
        before = timezone.now()
        response = rotate(log_in("Admin"), account)
        assert "is valid now; the old one until" in told(response)
        assert sorted(account.webhook_secrets()) == [NEW, OLD]
        assert ends(account)[NEW] is None
        assert before + DAY <= ends(account)[OLD] <= timezone.now() + DAY

    def test_shows_neither_secret_anywhere(self, log_in: Login, account: GatewayAccount) -> None:
        client = log_in("Admin")
        pages = [rotate(client, account), rotate(client, account), rotate(client, account, overlap_hours="x")]
        pages += [client.get(url_of(account)), client.get(url_of(account, "history"))]
        for page in pages:
            assert "topsecret" not in page.content.decode()

    def test_its_history_says_who_and_until_when(self, log_in: Login, account: GatewayAccount) -> None:
        client = log_in("Admin")
        rotate(client, account)
        html = client.get(url_of(account, "history")).content.decode()
        assert "Rotate webhook secret: Webhook secret" in html
        assert f"until {ends(account)[OLD]:%F %R} UTC" in html

    def test_ends_a_leaked_one_at_once(self, log_in: Login, account: GatewayAccount) -> None:
        rotate(log_in("Admin"), account, overlap_hours="0")
        assert account.webhook_secrets() == [NEW]

    def test_takes_a_moment_to_come(self, log_in: Login, account: GatewayAccount) -> None:
        starts = (timezone.now() + DAY).replace(second=0, microsecond=0)
        response = rotate(log_in("Admin"), account, starts_at=f"{starts:%Y-%m-%dT%H:%M}", overlap_hours="2")
        assert f"valid from {starts:%F %R} UTC" in told(response)
        assert f"valid from {starts:%F %R} UTC" in response.content.decode()
        assert account.webhook_secrets() == [OLD]
        assert ends(account)[OLD] == starts + timedelta(hours=2)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"value": ""}, "value: This field is required."),
            ({"overlap_hours": "-1"}, "greater than or equal to 0"),
            ({"overlap_hours": "9999"}, "less than or equal to 720"),
            ({"starts_at": "2020-01-01T00:00"}, "That moment is over"),
            ({"starts_at": "soon"}, "Enter a valid date/time."),
            ({"value": OLD}, "has this very secret already; nothing was changed."),
        ],
    )
    def test_refuses_what_makes_no_sense(
        self, log_in: Login, account: GatewayAccount, changes: dict[str, str], reason: str
    ) -> None:
        assert reason in told(rotate(log_in("Admin"), account, **changes))
        assert ends(account) == {OLD: None}

    def test_is_for_admins_alone(self, log_in: Login, account: GatewayAccount) -> None:
        for role in set(ROLES) - {"Admin"}:
            response = log_in(role).post(url_of(account, "rotate"), {"token": "t" * 20, "value": NEW})
            assert response.status_code == 403, role
        assert "Rotate webhook secret" not in log_in("On-call").get(url_of(account)).content.decode()
        assert ends(account) == {OLD: None}

    def test_needs_post_and_the_csrf_token(self, log_in: Login, account: GatewayAccount) -> None:
        client = log_in("Admin", check_csrf=True)
        assert client.get(url_of(account, "rotate")).status_code == 405
        data = {"token": "t" * 20, "value": NEW, "overlap_hours": "24"}
        assert client.post(url_of(account, "rotate"), data).status_code == 403
        assert ends(account) == {OLD: None}

    def test_says_what_an_account_without_a_secret_means(self, log_in: Login) -> None:
        html = log_in("Auditor").get(url_of(GatewayAccountFactory(name="bare"))).content.decode()
        assert "turned away until it has a secret" in html


def test_an_earlier_end_stays(account: GatewayAccount) -> None:
    soon = timezone.now() + timedelta(hours=1)
    account.secrets.update(not_after=soon)
    account.rotate_webhook_secret(NEW, overlap=DAY)
    assert ends(account)[OLD] == soon


def test_a_second_rotation_waits_for_the_first_to_begin(account: GatewayAccount) -> None:
    account.rotate_webhook_secret(NEW, overlap=DAY, starts_at=timezone.now() + DAY)
    with pytest.raises(ConflictError, match="yet to begin; nothing was changed"):
        account.rotate_webhook_secret("whsec_third", overlap=DAY)
    assert len(ends(account)) == 2


class TestTheNetworks:
    def save(self, client: Client, account: GatewayAccount, text: str) -> Any:
        form = {**TestGatewayAccounts.FORM, "name": account.name, "webhook_networks": text}
        return client.post(url_of(account), form)

    @pytest.mark.parametrize(
        ("typed", "kept"),
        [
            ("203.0.113.0/24 2001:db8::/32", "203.0.113.0/24, 2001:db8::/32"),
            ("198.51.100.7,  2001:DB8::1", "198.51.100.7/32, 2001:db8::1/128"),
            ("env:STRIPE_NETWORKS", "env:STRIPE_NETWORKS"),
        ],
    )
    def test_are_kept_in_one_way_of_writing(
        self, log_in: Login, account: GatewayAccount, typed: str, kept: str
    ) -> None:
        client = log_in("Admin")
        assert self.save(client, account, typed).status_code == 302
        account.refresh_from_db()
        assert account.options == {"webhook_networks": kept}
        assert self.save(client, account, "").status_code == 302
        account.refresh_from_db()
        assert account.options == {}

    @pytest.mark.parametrize("typed", ["203.0.113.0/33", "203.0.113.7/24", "stripe.com", "1.2.3"])
    def test_that_are_none_are_refused(self, log_in: Login, account: GatewayAccount, typed: str) -> None:
        answer = self.save(log_in("Admin"), account, typed)
        assert f"“{typed}” is no IP network: write it like" in answer.content.decode()
        assert GatewayAccount.objects.get(pk=account.pk).options == {}
