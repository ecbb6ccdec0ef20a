"""The checkout saga against a scripted gateway: forward, backward, in doubt, waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from payments import services
from payments.errors import ConflictError, GatewayTimeoutError, NetworkError
from payments.models import Operation, Order, SagaEffect, SagaRun, Shipment, StockItem
from payments.proof import prove_ledger
from payments.screening import Decision, Stage
from tests.fakes import FakeGateway, ScriptedScreener

pytestmark = pytest.mark.django_db

Place = Callable[..., Order]


def make_due(*, overdue: bool = False) -> None:
    """Move the clock instead of waiting for it."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE payments_sagarun SET wake_at = now() WHERE wake_at IS NOT NULL")
        if overdue:
            cursor.execute("UPDATE payments_sagarun SET deadline_at = now() WHERE deadline_at IS NOT NULL")


def sweep(times: int = 1, *, overdue: bool = False) -> None:
    for _ in range(times):
        make_due(overdue=overdue)
        services.sweep_sagas()


def acts_then_times_out(act: Callable[[], Any]) -> Any:
    act()
    raise GatewayTimeoutError("no answer")


def times_out(act: Callable[[], Any]) -> Any:
    raise GatewayTimeoutError("no answer")


def is_unreachable(act: Callable[[], Any]) -> Any:
    raise NetworkError("connection refused")


class TestForward:
    def test_an_order_is_reserved_authorized_captured_and_shipped(
        self, place: Place, gateway: FakeGateway
    ) -> None:
        StockItem.objects.create(sku="MUG-1", on_hand=5)
        order = place(lines=[{"sku": "MUG-1", "quantity": 2, "unit_amount": 6475}])

        payment = order.payment
        assert (order.state, payment.state) == ("paid", "succeeded")
        assert (payment.authorized, payment.captured, payment.refunded) == (12950, 12950, 0)
        stock = StockItem.objects.get()
        assert (stock.on_hand, stock.reserved) == (3, 0), "the goods have left the shelf"
        assert Shipment.objects.get().state == "created"
        assert [kind for kind, _ in gateway.calls] == ["authorize", "capture"]
        assert prove_ledger() == []

    def test_its_events_tell_the_story_without_gaps(self, place: Place) -> None:
        order = place()
        told = list(order.events.order_by("sequence").values_list("sequence", "type"))
        assert told == [
            (1, "order.placed"),
            (2, "payment.authorized"),
            (3, "payment.captured"),
            (4, "order.paid"),
        ]

    def test_each_event_tells_the_totals_as_they_are_then(self, place: Place) -> None:
        told = {event.type: event.data["payment"] for event in place().events.all()}
        assert told["payment.authorized"]["authorized"] == 12950
        assert (told["payment.captured"]["captured"], told["order.placed"]["authorized"]) == (12950, 0)

    def test_each_effect_has_its_intent_and_outcome(self, place: Place) -> None:
        order = place()
        effects = SagaEffect.objects.filter(run__order=order).order_by("id")
        assert [(e.step, e.outcome) for e in effects] == [
            ("reserve", "ok"),
            ("authorize", "ok"),
            ("capture", "ok"),
            ("ship", "ok"),
        ]
        assert SagaRun.objects.get().state == "COMPLETED"

    def test_manual_capture_stops_at_the_authorization(self, place: Place, gateway: FakeGateway) -> None:
        order = place(capture="manual")
        assert (order.state, order.payment.state, gateway.captured) == ("processing", "requires_capture", {})

        order = services.capture_order(order, amount=5000, actor="api:shop")

        assert (order.state, order.payment.captured) == ("paid", 5000)
        assert prove_ledger() == []

    def test_a_second_living_order_with_the_reference_is_refused(
        self, place: Place, gateway: FakeGateway
    ) -> None:
        place(reference="same")
        with pytest.raises(ConflictError, match="living order"):
            place(reference="same")
        assert len(gateway.authorized) == 1


class TestBackward:
    def test_a_decline_releases_the_stock_and_charges_nothing(
        self, place: Place, gateway: FakeGateway
    ) -> None:
        StockItem.objects.create(sku="MUG-1", on_hand=5)
        order = place(payment_method="pm_card_chargeDeclined", lines=[{"sku": "MUG-1", "quantity": 2}])

        assert (order.state, order.payment.state) == ("declined", "requires_payment_method")
        assert order.payment.last_error["decline_code"] == "card_declined"
        assert StockItem.objects.get().reserved == 0
        assert gateway.orphans() == set()

    def test_another_method_after_a_decline_pays(self, place: Place, gateway: FakeGateway) -> None:
        order = place(payment_method="pm_card_chargeDeclined")
        order = services.confirm_order(order, payment_method="pm_card_visa")

        assert (order.state, order.payment.attempts.count()) == ("paid", 2)
        assert gateway.money_kept() == 12950

    def test_a_refused_shipment_refunds_and_releases_in_reverse_order(
        self, place: Place, gateway: FakeGateway
    ) -> None:
        StockItem.objects.create(sku="MUG-1", on_hand=5)
        order = place(shipping={"country": "AQ"}, lines=[{"sku": "MUG-1", "quantity": 2}])

        assert (order.state, order.payment.refunded) == ("canceled", 12950)
        undone = SagaEffect.objects.filter(run__order=order, direction="undo").order_by("id")
        assert [e.step for e in undone if e.step != "authorize"] == ["capture", "reserve"]
        assert gateway.money_kept() == 0
        assert StockItem.objects.get().reserved == 0
        assert prove_ledger() == []

    def test_a_block_never_reaches_the_gateway(
        self, place: Place, gateway: FakeGateway, screener: ScriptedScreener
    ) -> None:
        screener.decisions[Stage.BEFORE_AUTHORIZATION] = Decision.BLOCK
        order = place()
        assert (order.state, order.payment.state, gateway.calls) == ("blocked", "canceled", [])

    def test_a_block_after_the_authorization_voids_it(
        self, place: Place, gateway: FakeGateway, screener: ScriptedScreener
    ) -> None:
        screener.decisions[Stage.AFTER_AUTHORIZATION] = Decision.BLOCK
        order = place()
        assert (order.state, order.payment.authorized) == ("blocked", 0)
        assert gateway.orphans() == set()
        assert prove_ledger() == []

    def test_a_compensation_that_fails_for_good_waits_for_an_operator_who_finishes_it(
        self, place: Place, gateway: FakeGateway
    ) -> None:
        gateway.faults["refund"] = [times_out] * 30
        order = place(shipping={"country": "AQ"})
        sweep(12)
        run = SagaRun.objects.get()
        assert run.state == "FAILED_COMPENSATION"

        gateway.faults["refund"] = []
        services.retry_saga(run.pk, actor="user:oncall", reason="the gateway is back")

        order.refresh_from_db()
        assert SagaRun.objects.get().state == "COMPENSATED"
        assert (order.state, gateway.money_kept()) == ("canceled", 0)
        assert prove_ledger() == []


class TestDoubt:
    @pytest.mark.parametrize("kind", ["authorize", "capture"])
    @pytest.mark.parametrize("fault", [acts_then_times_out, times_out, is_unreachable])
    def test_a_fault_on_the_way_forward_ends_paid_once(
        self, place: Place, gateway: FakeGateway, kind: str, fault: Any
    ) -> None:
        gateway.faults[kind] = [fault]
        order = place()
        assert order.state in ("placed", "processing")

        sweep(3)

        order.refresh_from_db()
        assert order.state == "paid"
        assert (gateway.money_kept(), len(gateway.authorized)) == (12950, 1)
        assert prove_ledger() == []

    @pytest.mark.parametrize("fault", [acts_then_times_out, times_out])
    def test_a_timeout_is_unknown_not_failed(self, place: Place, gateway: FakeGateway, fault: Any) -> None:
        gateway.faults["authorize"] = [fault]
        place()
        assert Operation.objects.get().state == "unknown"

    @pytest.mark.parametrize("fault", [acts_then_times_out, times_out])
    @pytest.mark.parametrize("kind", ["refund", "void"])
    def test_a_fault_on_the_way_back_is_resolved_by_asking(
        self, place: Place, gateway: FakeGateway, screener: ScriptedScreener, kind: str, fault: Any
    ) -> None:
        gateway.faults[kind] = [fault]
        if kind == "void":
            screener.decisions[Stage.AFTER_AUTHORIZATION] = Decision.BLOCK
        order = place(shipping={"country": "AQ"})
        sweep(3)
        order.refresh_from_db()
        assert order.state in ("canceled", "blocked")
        assert (gateway.money_kept(), gateway.orphans()) == (0, set())
        assert len(gateway.refunds) == (kind == "refund")
        assert prove_ledger() == []

    def test_a_gateway_that_stays_away_ends_canceled(self, place: Place, gateway: FakeGateway) -> None:
        gateway.faults["authorize"] = [is_unreachable] * 50
        gateway.fetch = lambda request: is_unreachable(lambda: None)  # type: ignore[method-assign]
        order = place()
        sweep(8)
        order.refresh_from_db()
        run = SagaRun.objects.get()
        assert run.state in ("COMPENSATING", "FAILED_COMPENSATION", "COMPENSATED")
        assert gateway.authorized == {}


class TestWaiting:
    def test_a_challenge_waits_and_goes_on_when_the_customer_returns(
        self, place: Place, gateway: FakeGateway
    ) -> None:
        order = place(payment_method="pm_3ds")
        assert order.state == "awaiting_customer"
        assert order.payment.next_action["type"] == "redirect_to_url"
        [reference] = gateway.needs_action

        gateway.authenticate(reference, 12950)
        order = services.confirm_order(order)

        assert (order.state, gateway.money_kept()) == ("paid", 12950)

    def test_a_customer_who_confirms_too_early_still_waits(self, place: Place, gateway: FakeGateway) -> None:
        order = services.confirm_order(place(payment_method="pm_3ds"))
        assert order.state == "awaiting_customer"
        assert SagaRun.objects.get().state == "WAITING"

    def test_an_abandoned_challenge_is_voided_at_its_deadline(
        self, place: Place, gateway: FakeGateway
    ) -> None:
        order = place(payment_method="pm_3ds")
        sweep(3, overdue=True)
        order.refresh_from_db()
        assert (order.state, order.payment.state) == ("expired", "canceled")
        assert len(gateway.voided) == 1
        assert prove_ledger() == []

    def test_a_review_holds_the_capture_until_it_is_approved(
        self,
        place: Place,
        gateway: FakeGateway,
        screener: ScriptedScreener,
        django_capture_on_commit_callbacks: Any,
    ) -> None:
        screener.decisions[Stage.AFTER_AUTHORIZATION] = Decision.REVIEW
        order = place()
        assert (order.state, gateway.captured, screener.opened) == ("review", {}, [order.id])

        with django_capture_on_commit_callbacks(execute=True):
            services.release_review(order.id, actor="user:analyst")

        order.refresh_from_db()
        assert (order.state, gateway.money_kept()) == ("paid", 12950)

    def test_a_rejected_review_voids(
        self,
        place: Place,
        gateway: FakeGateway,
        screener: ScriptedScreener,
        django_capture_on_commit_callbacks: Any,
    ) -> None:
        screener.decisions[Stage.BEFORE_AUTHORIZATION] = Decision.REVIEW
        order = place()
        with django_capture_on_commit_callbacks(execute=True):
            services.reject_review(order.id, actor="user:analyst", reason="fraudulent")
        order.refresh_from_db()
        assert (order.state, order.payment.state) == ("blocked", "canceled")
        assert gateway.orphans() == set()

    def test_a_review_is_decided_once(self, place: Place, screener: ScriptedScreener) -> None:
        screener.decisions[Stage.AFTER_AUTHORIZATION] = Decision.REVIEW
        order = place()
        services.release_review(order.id, actor="user:a")
        with pytest.raises(ConflictError):
            services.reject_review(order.id, actor="user:b", reason="fraudulent")

    def test_a_screener_that_fails_holds_the_order(
        self, place: Place, gateway: FakeGateway, screener: ScriptedScreener
    ) -> None:
        screener.decisions[Stage.BEFORE_AUTHORIZATION] = RuntimeError("down")
        assert place().state == "review"

    def test_a_canceled_review_voids_and_leaves_the_queue(
        self, place: Place, gateway: FakeGateway, screener: ScriptedScreener
    ) -> None:
        screener.decisions[Stage.AFTER_AUTHORIZATION] = Decision.REVIEW
        order = services.cancel_order(place(), reason="customer", actor="api:shop")
        assert (order.state, gateway.orphans()) == ("canceled", set())
        assert screener.closed
