"""The order page tells everything and moves money once, only by POST, only for who may."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.http import HttpRequest
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils.safestring import SafeString

from payments import services
from payments.admin import panels
from payments.models import Event, Operation, Order, Payment, SagaRun
from tests.factories.payments import EventFactory
from tests.fakes import FakeGateway
from tests.payments.admin.conftest import Login

pytestmark = pytest.mark.django_db


def url_of(order: Order, action: str = "change") -> str:
    return reverse(f"admin:payments_order_{action}", args=[order.pk])


def read(client: Client, order: Order) -> str:
    response = client.get(url_of(order))
    assert response.status_code == 200
    return response.content.decode()


def find_token(html: str, action: str) -> str:
    found = re.search(rf'name="token" value="([^"]+)"[^>]*id="id_{action}_token"', html)
    assert found
    return found[1]


def send(client: Client, order: Order, action: str, *, token: str = "", **data: str) -> Any:
    token = token or find_token(read(client, order), action)
    return client.post(url_of(order, action), {"token": token, **data}, follow=True)


def told(response: Any) -> str:
    return " ".join(str(message) for message in response.context["messages"])


REFUND = {"reason": "requested_by_customer", "note": ""}


class TestTheRefund:
    def test_goes_to_the_gateway_once(self, log_in: Login, paid: Order, gateway: FakeGateway) -> None:
        response = send(log_in("Finance"), paid, "refund", amount="29.50", **REFUND)
        assert "€29.50: succeeded" in told(response)
        assert list(gateway.refunds.values()) == [2950]
        operation = Operation.objects.get(kind="refund")
        assert (operation.requested_by, operation.source) == ("user:finance", "operator")

    def test_sent_twice_with_one_token_is_refused_cleanly(
        self, log_in: Login, paid: Order, gateway: FakeGateway
    ) -> None:
        client = log_in("Finance")
        token = find_token(read(client, paid), "refund")
        send(client, paid, "refund", token=token, amount="10", **REFUND)
        again = send(client, paid, "refund", token=token, amount="10", **REFUND)
        assert "not done a second time" in told(again)
        assert list(gateway.refunds.values()) == [1000]

    def test_with_one_token_and_another_amount_is_refused(
        self, log_in: Login, paid: Order, gateway: FakeGateway
    ) -> None:
        client = log_in("Finance")
        token = find_token(read(client, paid), "refund")
        send(client, paid, "refund", token=token, amount="10", **REFUND)
        again = send(client, paid, "refund", token=token, amount="20", **REFUND)
        assert "nothing was changed" in told(again)
        assert list(gateway.refunds.values()) == [1000]

    @pytest.mark.parametrize("amount", ["129.51", "0", "-1", "1.005", "1e400", "ten", "", "1,5"])
    def test_of_a_wrong_amount_comes_back_with_what_was_typed(
        self, log_in: Login, paid: Order, gateway: FakeGateway, amount: str
    ) -> None:
        response = send(
            log_in("Finance"), paid, "refund", amount=amount, reason="duplicate", note="typed before"
        )
        assert response.status_code == 422
        assert "typed before" in response.content.decode()
        assert not gateway.refunds

    def test_of_everything_greys_the_button_with_the_reason(self, log_in: Login, paid: Order) -> None:
        client = log_in("Finance")
        send(client, paid, "refund", amount="129.50", **REFUND)
        html = read(client, paid)
        assert "Nothing is left to refund." in html
        assert 'id="refund-dialog"' not in html
        assert "Refunded in full" in html

    def test_masks_a_card_number_in_its_note(self, log_in: Login, paid: Order) -> None:
        note = "card 4242 4242 4242 4242"
        send(log_in("Finance"), paid, "refund", amount="1", reason="duplicate", note=note)
        assert "4242 4242 4242" not in Operation.objects.get(kind="refund").note

    def test_is_forbidden_without_the_permission(
        self, log_in: Login, paid: Order, gateway: FakeGateway
    ) -> None:
        for role in ("Fraud analyst", "On-call", "Auditor", "Integrator", "Admin"):
            data = {"token": "t" * 20, "amount": "1", **REFUND}
            assert log_in(role).post(url_of(paid, "refund"), data).status_code == 403, role
        assert not gateway.refunds

    def test_needs_the_csrf_token(self, log_in: Login, paid: Order, gateway: FakeGateway) -> None:
        client = log_in("Finance", check_csrf=True)
        data = {"token": "t" * 20, "amount": "1", **REFUND}
        assert client.post(url_of(paid, "refund"), data).status_code == 403
        assert not gateway.refunds


class TestTheOtherActions:
    def test_capture_takes_a_part_and_releases_the_rest(
        self, log_in: Login, authorized: Order, gateway: FakeGateway
    ) -> None:
        response = send(log_in("Finance"), authorized, "capture", amount="100.00")
        assert "The capture of €100.00 is done" in told(response)
        assert list(gateway.captured.values()) == [10000]

    def test_cancel_voids(self, log_in: Login, authorized: Order, gateway: FakeGateway) -> None:
        send(log_in("Finance"), authorized, "cancel", reason="abandoned")
        assert len(gateway.voided) == 1
        assert Order.objects.get(pk=authorized.pk).state == "canceled"

    def test_what_is_not_legal_any_more_is_refused_and_says_why(
        self, log_in: Login, authorized: Order
    ) -> None:
        client = log_in("Finance")
        token = find_token(read(client, authorized), "cancel")
        services.capture_order(authorized, amount=None, actor="api:shop")
        response = send(client, authorized, "cancel", token=token, reason="abandoned")
        assert "Cannot cancel" in told(response)
        assert "Nothing was changed" in told(response)

    def test_a_note_is_kept_with_its_card_number_masked(self, log_in: Login, paid: Order) -> None:
        client = log_in("On-call")
        send(client, paid, "note", note="He read me 4242424242424242 aloud")
        note = Event.objects.get(type="order.note").data["note"]
        assert "4242424242424242" not in note
        assert "He read me" in note
        html = read(client, paid)
        assert "He read me" in html
        assert "4242424242424242" not in html

    def test_no_action_answers_a_get(self, log_in: Login, paid: Order) -> None:
        client = log_in("Finance")
        for action in ("capture", "cancel", "refund", "note"):
            assert client.get(url_of(paid, action)).status_code == 405

    def test_the_page_itself_takes_no_post(self, log_in: Login, paid: Order) -> None:
        assert log_in("Finance").post(url_of(paid), {"state": "paid"}).status_code == 405


class TestThePage:
    def test_never_writes(self, log_in: Login, paid: Order) -> None:
        client = log_in("Finance")
        client.get(url_of(paid))
        with CaptureQueriesContext(connection) as captured:
            read(client, paid)
        assert not [q for q in captured if not re.match(r"\s*(SELECT|SAVEPOINT|RELEASE|BEGIN)", q["sql"])]

    def test_has_a_money_box_that_sums(self, log_in: Login, paid: Order) -> None:
        services.refund_order(paid, amount=2950, reason="duplicate", actor="api:shop")
        html = read(log_in("Finance"), paid)
        assert "€129.50 captured = €29.50 refunded + €0.00 refund pending + €100.00 still refundable" in html
        assert "Refunded in part" in html

    def test_merges_every_source_into_one_timeline(self, log_in: Login, paid: Order) -> None:
        html = read(log_in("Finance"), paid)
        for kind in ("event", "saga", "operation", "ledger"):
            assert f'data-kind="{kind}"' in html
        reference = Payment.objects.get(order=paid).gateway_reference
        lit = [entry for entry in html.split("<li ") if f'data-ref="{reference}"' in entry]
        kinds = {re.search(r'data-kind="(\w+)"', entry)[1] for entry in lit}  # type: ignore[index]
        assert kinds >= {"event", "operation", "ledger"}

    def test_needs_at_most_12_queries_however_much_happened(
        self, log_in: Login, paid: Order, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(panels, "_panels", {})
        for _ in range(60):
            EventFactory(
                order=paid, client=paid.client, sequence=Order.objects.get(pk=paid.pk).event_sequence + 1
            )
            Order.objects.filter(pk=paid.pk).update(event_sequence=Event.objects.filter(order=paid).count())
        services.refund_order(paid, amount=100, reason="duplicate", actor="api:shop")
        client = log_in("Finance")
        with CaptureQueriesContext(connection) as captured:
            read(client, paid)
        assert len(captured) <= 12

    def test_shows_the_panels_of_the_neighbours(
        self, log_in: Login, paid: Order, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(panels, "_panels", {})

        @panels.panel("Weather", order=1)
        def show_weather(order: Order, request: HttpRequest) -> SafeString | None:
            return SafeString(f"<p>Sunny for {order.reference}</p>")

        assert f"Sunny for {paid.reference}" in read(log_in("Finance"), paid)

    def test_escapes_what_a_customer_typed(self, log_in: Login, place: Callable[..., Order]) -> None:
        order = place(reference="<script>alert(1)</script>", customer_id="<b>x</b>", customer_email="")
        html = read(log_in("Finance"), order)
        assert "<script>alert" not in html
        assert "<b>x</b>" not in html


class TestTheList:
    def list_of(self, client: Client, **query: str) -> list[Order]:
        response = client.get(reverse("admin:payments_order_changelist"), query)
        assert response.status_code == 200
        return list(response.context["cl"].result_list)

    def test_opens_on_what_is_not_finished(self, log_in: Login, paid: Order, authorized: Order) -> None:
        Order.objects.filter(pk=paid.pk).update(state="fulfilled")
        assert self.list_of(log_in("Finance")) == [authorized]
        assert set(self.list_of(log_in("Finance"), view="all")) == {paid, authorized}

    def test_finds_an_order_by_anything_in_the_hand_finished_or_not(
        self, log_in: Login, paid: Order, authorized: Order
    ) -> None:
        Order.objects.filter(pk=paid.pk).update(state="fulfilled")
        refund = services.refund_order(paid, amount=100, reason="duplicate", actor="api:shop")
        payment = Payment.objects.get(order=paid)
        client = log_in("Finance")
        for term in (
            paid.pk,
            paid.reference,
            payment.pk,
            payment.gateway_reference,
            refund.pk,
            refund.gateway_reference,
        ):
            assert self.list_of(client, q=term) == [paid], term
        assert set(self.list_of(client, q="buyer@EXAMPLE.com")) == {paid, authorized}
        assert set(self.list_of(client, q="4242")) == {paid, authorized}
        assert self.list_of(client, q="9999") == []


class TestSagas:
    @pytest.fixture
    def stuck(self, paid: Order) -> SagaRun:
        SagaRun.objects.filter(order=paid).update(
            state="QUARANTINED",
            step="ship",
            last_error={"code": "crashed", "message": "It crashed 20 times."},
        )
        return SagaRun.objects.get(order=paid)

    def test_the_list_opens_on_stuck_ones_with_their_money(self, log_in: Login, stuck: SagaRun) -> None:
        html = log_in("On-call").get(reverse("admin:payments_sagarun_changelist")).content.decode()
        assert "Quarantined" in html
        assert "€129.50" in html
        assert "It crashed 20 times." in html

    def test_retry_takes_it_up_with_a_reason(self, log_in: Login, stuck: SagaRun) -> None:
        client = log_in("On-call")
        url = reverse("admin:payments_sagarun_retry", args=[stuck.pk])
        assert client.post(url, {"token": "t" * 20, "reason": ""}).status_code == 422
        response = client.post(url, {"token": "t" * 20, "reason": "The carrier is back"}, follow=True)
        assert "taken up again" in told(response)
        diary = stuck.diary.get(kind="operator_retry")
        assert diary.detail == {
            "actor": "user:on-call",
            "reason": "The carrier is back",
            "before": "QUARANTINED",
            "after": "RUNNING",
        }

    def test_a_refusal_is_told_in_its_own_words(self, log_in: Login, stuck: SagaRun) -> None:
        """Not in those of the saga's last error, which the same page shows."""
        client = log_in("On-call")
        page = client.get(reverse("admin:payments_sagarun_change", args=[stuck.pk])).content.decode()
        SagaRun.objects.filter(pk=stuck.pk).update(state="RUNNING")
        url = reverse("admin:payments_sagarun_retry", args=[stuck.pk])
        data = {"token": find_token(page, "retry"), "reason": "The carrier is back"}
        response = client.post(url, data, follow=True)
        assert told(response)
        assert told(response) in unescape(response.content.decode())

    def test_the_order_says_that_it_waits_for_on_call(
        self, log_in: Login, paid: Order, stuck: SagaRun
    ) -> None:
        url = reverse("admin:payments_sagarun_change", args=[stuck.pk])
        page = read(log_in("Finance"), paid)
        assert "The checkout stopped at “ship”" in page
        assert url in page

    def test_compensate_gives_the_money_back(
        self, log_in: Login, stuck: SagaRun, gateway: FakeGateway
    ) -> None:
        url = reverse("admin:payments_sagarun_compensate", args=[stuck.pk])
        log_in("On-call").post(url, {"token": "t" * 20, "reason": "Customer gave up"})
        assert gateway.money_kept() == 0

    def test_finance_may_look_but_not_operate(self, log_in: Login, stuck: SagaRun) -> None:
        client = log_in("Finance")
        page = client.get(reverse("admin:payments_sagarun_change", args=[stuck.pk]))
        assert page.status_code == 200
        assert "retry-dialog" not in page.content.decode()
        url = reverse("admin:payments_sagarun_retry", args=[stuck.pk])
        assert client.post(url, {"token": "t" * 20, "reason": "x"}).status_code == 403


def test_an_unknown_operation_is_asked_for_at_the_gateway(
    log_in: Login, paid: Order, gateway: FakeGateway
) -> None:
    operation = Operation.objects.get(payment__order=paid, kind="capture")
    Operation.objects.filter(pk=operation.pk).update(state="unknown", resolved_at=None)
    url = reverse("admin:payments_operation_resolve", args=[operation.pk])
    response = log_in("On-call").post(url, {"token": "t" * 20}, follow=True)
    assert "The gateway says" in told(response)
    assert ("fetch", operation.pk) in gateway.calls


def test_the_trial_balance_balances(log_in: Login, paid: Order) -> None:
    services.refund_order(paid, amount=500, reason="duplicate", actor="api:shop")
    html = log_in("Finance").get(reverse("admin:payments_ledgeraccount_trial")).content.decode()
    assert "Balanced" in html
    assert "Does not balance" not in html
