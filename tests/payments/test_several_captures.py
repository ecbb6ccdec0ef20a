"""Captures in parts, the rest released, and refunds that give back a capture of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from payments import services
from payments.errors import AmountTooLargeError, ConflictError, InvalidRequestError
from payments.gateways.base import Capabilities, ChargeResult, ChargeStatus
from payments.kinds import OperationKind
from payments.models import Operation, Order, Payment
from payments.money import Money
from payments.proof import prove_ledger
from tests.fakes import FakeGateway, fact

pytestmark = pytest.mark.django_db
Place = Callable[..., Order]


def capture(order: Order, amount: int | None = None, *, final: bool = False) -> Payment:
    services.capture_order(order, amount=amount, final=final, actor="api:shop")
    return Payment.objects.get(order=order)


def totals(payment: Payment) -> tuple[int, int, int]:
    return payment.authorized, payment.captured, payment.capturable


@pytest.fixture
def held(place: Place) -> Order:
    """129.50 EUR authorized, to be captured by hand."""
    return place(capture="manual")


def test_parts_are_captured_until_the_hold_is_used_up(held: Order, gateway: FakeGateway) -> None:
    first = capture(held, 5000)
    assert (first.state, totals(first)) == ("partially_captured", (12950, 5000, 7950))
    assert Order.objects.get(pk=held.pk).state == "processing"

    second = capture(held, 7950)
    assert (second.state, totals(second)) == ("succeeded", (12950, 12950, 0))
    assert Order.objects.get(pk=held.pk).state == "paid"
    assert gateway.money_kept() == 12950
    assert prove_ledger() == []


def test_a_final_part_releases_the_rest(held: Order, gateway: FakeGateway) -> None:
    capture(held, 5000)
    payment = capture(held, 1000, final=True)
    assert (payment.state, totals(payment)) == ("succeeded", (12950, 6000, 0))
    assert gateway.orphans() == set()
    assert prove_ledger() == []


def test_canceling_after_a_part_releases_the_rest_and_keeps_the_sale(
    held: Order, gateway: FakeGateway
) -> None:
    capture(held, 5000)
    order = services.cancel_order(held, reason="requested", actor="api:shop")
    payment = Payment.objects.get(order=order)
    assert (order.state, payment.state, totals(payment)) == ("paid", "succeeded", (5000, 5000, 0))
    assert gateway.closed == {payment.gateway_reference}
    assert prove_ledger() == []


def test_more_than_is_left_is_refused_and_nothing_changes(held: Order, gateway: FakeGateway) -> None:
    capture(held, 5000)
    with pytest.raises(AmountTooLargeError, match="left to capture"):
        capture(held, 7951)
    assert gateway.money_kept() == 5000


def test_nothing_is_captured_after_the_end(held: Order) -> None:
    capture(held, 5000, final=True)
    with pytest.raises(ConflictError, match="captured already"):
        capture(held, 1)


def test_a_gateway_that_captures_once_refuses_a_part_that_is_not_the_last(
    held: Order, gateway: FakeGateway
) -> None:
    gateway.capabilities = Capabilities(several_captures=False)
    with pytest.raises(InvalidRequestError, match="final=true"):
        capture(held, 5000)
    assert gateway.captured == {}


def test_captures_told_as_growing_sums_are_booked_once_each(held: Order) -> None:
    payment = held.payment
    reference = payment.gateway_reference

    def told(total: int) -> services.FactOutcome:
        result = ChargeResult(
            ChargeStatus.CAPTURED,
            reference,
            Money(total, "EUR"),
            total_captured=Money(total, "EUR"),
        )
        return services.apply_gateway_fact(payment.account, fact(OperationKind.CAPTURE, result, payment))

    capture(held, 3000)
    assert told(3000) == "noop"
    assert told(12950) == "applied"  # the rest was captured in the gateway's dashboard
    assert told(3000) == "noop"
    payment.refresh_from_db()
    assert totals(payment) == (12950, 12950, 0)
    assert sorted(payment.operations.filter(kind="capture").values_list("amount", "source")) == [
        (3000, "api"),
        (9950, "external"),
    ]
    assert prove_ledger() == []


class TestRefundsOfCaptures:
    @pytest.fixture
    def twice(self, held: Order) -> Order:
        capture(held, 5000)
        capture(held, 4000, final=True)
        return held

    def captures(self, order: Order) -> list[Operation]:
        return list(order.payment.operations.filter(kind="capture").order_by("id"))

    def refund(self, order: Order, amount: int, capture: str = "") -> Operation:
        return services.refund_order(
            order, amount=amount, reason="requested", actor="api:shop", capture=capture
        )

    def test_a_refund_gives_back_the_first_capture_with_enough_left(self, twice: Order) -> None:
        first, second = self.captures(twice)
        assert self.refund(twice, 4500).capture == first
        assert self.refund(twice, 3000).capture == second

    def test_a_capture_is_never_refunded_beyond_its_amount(self, twice: Order) -> None:
        _, second = self.captures(twice)
        self.refund(twice, 3000, second.pk)
        with pytest.raises(AmountTooLargeError, match=r"10\.00"):
            self.refund(twice, 1001, second.pk)

    def test_across_captures_only_where_the_gateway_can(self, twice: Order, gateway: FakeGateway) -> None:
        gateway.capabilities = replace(gateway.capabilities, refunds_per_capture=True)
        with pytest.raises(AmountTooLargeError, match="one capture at a time"):
            self.refund(twice, 9000)
        gateway.capabilities = replace(gateway.capabilities, refunds_per_capture=False)
        assert self.refund(twice, 9000).capture is None
        assert prove_ledger() == []

    def test_another_payments_capture_is_not_there(self, twice: Order, place: Place) -> None:
        other = place().payment.operations.get(kind="capture")
        with pytest.raises(InvalidRequestError, match="has no capture"):
            self.refund(twice, 100, other.pk)


def test_a_capture_that_the_gateway_takes_back_is_reversed_and_calls_a_person(place: Place) -> None:
    payment = place().payment
    operation = payment.operations.get(kind="capture")
    failed = ChargeResult(ChargeStatus.FAILED, payment.gateway_reference, Money(12950, "EUR"))
    told = fact(OperationKind.CAPTURE, failed, payment, operation.id)
    assert services.apply_gateway_fact(payment.account, told) == "applied"
    assert services.apply_gateway_fact(payment.account, told) == "noop"
    payment.refresh_from_db()
    assert (payment.state, payment.captured) == ("requires_review", 0)
    assert payment.operations.get(kind="capture").state == "reversed"
