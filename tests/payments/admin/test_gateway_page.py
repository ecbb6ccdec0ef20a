"""The gateway account's page: its state, the kill switch, and a form that writes only what was changed."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from payments.controls.roles import ROLES
from payments.gateways import resilience
from payments.gateways.kill_switch import switch_board
from payments.models import GatewayAccount
from tests.factories.payments import GatewayAccountFactory
from tests.payments.admin.conftest import Login
from tests.payments.admin.test_house_pages import TestGatewayAccounts
from tests.payments.gateways.conftest import forget

pytestmark = pytest.mark.django_db


@pytest.fixture
def account(db: None) -> Iterator[GatewayAccount]:
    account = GatewayAccountFactory(name="on-the-page")
    yield account
    forget(f"gateway-breaker:{account}*")
    switch_board().forget()


def url_of(account: GatewayAccount, action: str = "change") -> str:
    return reverse(f"admin:payments_gatewayaccount_{action}", args=[account.pk])


def read(client: Client, account: GatewayAccount) -> str:
    response = client.get(url_of(account))
    assert response.status_code == 200
    return str(response.content.decode())


def press(client: Client, account: GatewayAccount, action: str, **data: str) -> Any:
    found = re.search(rf'name="token" value="([^"]+)"[^>]*id="id_{action}_token"', read(client, account))
    token = found[1] if found else "t" * 20
    return client.post(url_of(account, action), {"token": token, "reason": "Doubled", **data}, follow=True)


def told(response: Any) -> str:
    return " ".join(str(message) for message in response.context["messages"])


class TestTheKillSwitch:
    @pytest.mark.parametrize("role", ["Admin", "On-call"])
    def test_is_thrown_with_a_reason_and_undone(
        self, log_in: Login, account: GatewayAccount, role: str
    ) -> None:
        client = log_in(role)
        assert "takes no new payments from now on" in told(press(client, account, "stop"))
        account.refresh_from_db()
        assert account.switched_off_by == f"user:{role.lower()}"
        html = read(client, account)
        assert "Switched off" in html
        assert "Doubled" in html
        assert "It is switched off already." in html
        assert "takes new payments again" in told(press(client, account, "allow"))
        account.refresh_from_db()
        assert (account.switched_off_at, account.switched_off_reason) == (None, "")

    def test_its_history_keeps_both_reasons(self, log_in: Login, account: GatewayAccount) -> None:
        client = log_in("On-call")
        press(client, account, "stop", reason="Doubled charges")
        press(client, account, "allow", reason="Repaired")
        html = client.get(url_of(account, "history")).content.decode()
        assert "Stop new payments: Doubled charges" in html
        assert "Allow again: Repaired" in html

    def test_needs_a_reason(self, log_in: Login, account: GatewayAccount) -> None:
        response = press(log_in("On-call"), account, "stop", reason="")
        assert "“Stop new payments” was not done." in told(response)
        assert GatewayAccount.objects.get(pk=account.pk).switched_off_at is None

    def test_a_second_press_does_nothing(self, log_in: Login, account: GatewayAccount) -> None:
        client = log_in("On-call")
        data = {"token": "t" * 20, "reason": "Doubled"}
        client.post(url_of(account, "stop"), data)
        before = GatewayAccount.objects.get(pk=account.pk).switched_off_at
        assert before
        assert "was sent already" in told(client.post(url_of(account, "stop"), data, follow=True))
        again = client.post(url_of(account, "stop"), {**data, "token": "u" * 20}, follow=True)
        assert "was switched off before" in told(again)
        assert GatewayAccount.objects.get(pk=account.pk).switched_off_at == before

    def test_is_forbidden_without_the_permission(self, log_in: Login, account: GatewayAccount) -> None:
        for role in set(ROLES) - {"Admin", "On-call"}:
            for action in ("stop", "allow"):
                data = {"token": "t" * 20, "reason": "x"}
                assert log_in(role).post(url_of(account, action), data).status_code == 403, role
        assert GatewayAccount.objects.get(pk=account.pk).switched_off_at is None

    def test_is_not_shown_to_who_may_only_look(self, log_in: Login, account: GatewayAccount) -> None:
        html = read(log_in("Auditor"), account)
        assert "Stop new payments" not in html
        assert "calls failed in the last minute" in html

    def test_needs_the_csrf_token(self, log_in: Login, account: GatewayAccount) -> None:
        client = log_in("On-call", check_csrf=True)
        data = {"token": "t" * 20, "reason": "x"}
        assert client.post(url_of(account, "stop"), data).status_code == 403
        assert GatewayAccount.objects.get(pk=account.pk).switched_off_at is None

    def test_answers_no_get(self, log_in: Login, account: GatewayAccount) -> None:
        for action in ("stop", "allow"):
            assert log_in("On-call").get(url_of(account, action)).status_code == 405


class TestTheState:
    def list_html(self, client: Client) -> str:
        return str(client.get(reverse("admin:payments_gatewayaccount_changelist")).content.decode())

    def test_a_tripped_breaker_shows_and_can_be_closed(self, log_in: Login, account: GatewayAccount) -> None:
        client = log_in("On-call")
        assert "It takes new payments." in read(client, account)
        resilience.breaker_store().trip(str(account), time.time())
        assert "Failing: left alone" in read(client, account)
        assert "Failing: left alone" in self.list_html(client)
        press(client, account, "allow")
        assert "Failing" not in read(client, account)

    def test_a_breaker_that_is_being_tried(self, log_in: Login, account: GatewayAccount) -> None:
        resilience.breaker_store().trip(str(account), 0.0)
        assert "Failing: being tried" in self.list_html(log_in("Finance"))

    def test_the_list_says_what_is_switched_off(self, log_in: Login, account: GatewayAccount) -> None:
        resilience.switch_off(account, by="user:ann", reason="x")
        html = self.list_html(log_in("Finance"))
        assert "Switched off" in html
        assert "popovertarget" not in html.split("result_list")[1]  # may not throw it

    def test_the_switch_is_at_hand_in_the_list(self, log_in: Login, account: GatewayAccount) -> None:
        client = log_in("On-call")
        dialog = self.list_html(client).split(f'id="stop-{account.pk}-dialog"')[1].split("</form>")[0]
        assert f"Stop new payments on {account}" in dialog
        action = re.search(r'action="([^"]+)"', dialog)
        token = re.search(r'name="token" value="([^"]+)"', dialog)
        assert action
        assert token
        client.post(action[1], {"token": token[1], "reason": "Doubled"})
        assert GatewayAccount.objects.get(pk=account.pk).switched_off_reason == "Doubled"
        html = self.list_html(client)
        assert f'popovertarget="allow-{account.pk}-dialog"' in html
        assert f"stop-{account.pk}-dialog" not in html

    def test_the_dashboard_says_so_too(self, log_in: Login, account: GatewayAccount) -> None:
        resilience.switch_off(account, by="user:ann", reason="x")
        html = log_in("On-call").get(reverse("admin:index")).content.decode()
        assert "stripe/on-the-page open by user:ann" in html

    def test_prometheus_is_told(self, client: Client, account: GatewayAccount) -> None:
        line = 'payments_gateway_state{gateway="stripe/on-the-page",state="%s"} %s'
        text = client.get("/metrics").content.decode()
        assert line % ("closed", "1.0") in text
        resilience.switch_off(account, by="user:ann", reason="x")
        text = client.get("/metrics").content.decode()
        assert line % ("switched_off", "1.0") in text
        assert line % ("closed", "0.0") in text


class TestTheForm:
    def save(self, client: Client, account: GatewayAccount, **changes: str) -> Any:
        form = {**TestGatewayAccounts.FORM, "name": account.name, **changes}
        return client.post(url_of(account), form)

    def test_a_form_opened_before_the_switch_does_not_undo_it(
        self, log_in: Login, account: GatewayAccount, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The page's own row is older than the switch: it is thrown between reading and writing."""
        client = log_in("Admin")
        save = GatewayAccount.save

        def switch_then_save(self: GatewayAccount, *args: Any, **kwargs: Any) -> None:
            GatewayAccount.objects.get(pk=self.pk).switch_off(by="user:ann", reason="x")
            save(self, *args, **kwargs)

        monkeypatch.setattr(GatewayAccount, "save", switch_then_save)
        assert self.save(client, account, priority="7").status_code == 302
        account.refresh_from_db()
        assert (account.priority, account.switched_off_by) == (7, "user:ann")

    def test_options_are_kept_beside_what_else_is_there(self, log_in: Login, account: GatewayAccount) -> None:
        GatewayAccount.objects.filter(pk=account.pk).update(options={"merchant_account": "Shop"})
        other = GatewayAccountFactory(name="other")
        client = log_in("Admin")
        answer = self.save(client, account, rate_limit="50/second", shares_tokens_with=str(other))
        assert answer.status_code == 302
        account.refresh_from_db()
        expected = {"merchant_account": "Shop", "rate_limit": "50/second", "shares_tokens_with": str(other)}
        assert account.options == expected
        assert 'value="50/second"' in read(client, account)
        self.save(client, account)
        account.refresh_from_db()
        assert account.options == {"merchant_account": "Shop"}

    def test_what_is_asked_of_the_webhooks_is_kept_a_zero_too(
        self, log_in: Login, account: GatewayAccount
    ) -> None:
        client = log_in("Admin")
        asked = {"webhook_events": "a.b, c.d", "silence_hours": "0", "rejected_per_hour": "50"}
        answer = self.save(client, account, **asked)
        assert answer.status_code == 302, answer.content.decode()
        account.refresh_from_db()
        expected = {"webhook_events": "a.b c.d", "silence_hours": 0, "rejected_per_hour": 50}
        assert account.options == expected
        refused = self.save(client, account, silence_hours="a while")
        assert "Enter a whole number" in refused.content.decode()

    def test_what_cannot_be_read_is_refused(self, log_in: Login, account: GatewayAccount) -> None:
        client = log_in("Admin")
        html = self.save(client, account, rate_limit="plenty").content.decode()
        assert "“plenty” is no rate: write it like 50/second." in html
        html = self.save(client, account, shares_tokens_with="adyen/default").content.decode()
        assert "There is no stripe account adyen/default." in html
        assert GatewayAccount.objects.get(pk=account.pk).options == {}
