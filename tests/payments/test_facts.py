"""Facts from the gateway: whatever the order in which they come, one state; what does not fit, a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from threading import Barrier
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from payments import facts, services
from payments.gateways.base import (
    CardDetails,
    ChargeResult,
    ChargeStatus,
    Decline,
    DisputeFact,
    Fact,
    GatewayFact,
    RefundResult,
    RefundStatus,
)
from payments.kinds import DisputeStage, DisputeState, OperationKind
from payments.models import LedgerEntry, Operation, Order, Payment, Posting
from payments.money import Money
from payments.proof import prove_ledger
from payments.screening import Decision, Stage
from payments.services import FactOutcome, apply_gateway_fact
from tests.factories.payments import GatewayAccountFactory
from tests.fakes import FakeGateway, ScriptedScreener, fact
from tests.payments.gateway_faults import sweep, times_out
from tests.payments.threads import run_in_threads

pytestmark = pytest.mark.django_db

Place = Callable[..., Order]
EUR = Money(12950, "EUR")
AUTHORIZE, CAPTURE, REFUND, VOID = (
    OperationKind(kind) for kind in ("authorize", "capture", "refund", "void")
)


def charge(status: ChargeStatus, money: Money = EUR, reference: str = "pi_1") -> ChargeResult:
    next_action = {"type": "redirect"} if status == ChargeStatus.REQUIRES_ACTION else None
    decline = Decline("do_not_honor") if status == ChargeStatus.DECLINED else None
    return ChargeResult(status, reference, money, next_action=next_action, decline=decline)


def refund(status: RefundStatus, minor: int = 2000, reference: str = "re_1") -> RefundResult:
    return RefundResult(status, reference, Money(minor, "EUR"))


def chargeback(payment: Payment) -> DisputeFact:
    """Of all that was paid."""
    return DisputeFact(
        reference="dp_1",
        payment_reference=payment.gateway_reference,
        stage=DisputeStage.CHARGEBACK,
        state=DisputeState.NEEDS_RESPONSE,
        amount=EUR,
        is_withdrawn=True,
    )


def tell(payment: Payment, *told: Fact) -> list[FactOutcome]:
    return [apply_gateway_fact(payment.account, each) for each in told]


def look(payment: Payment) -> dict[str, Any]:
    """All that money depends on."""
    payment.refresh_from_db()
    return {
        "state": payment.state,
        "totals": (payment.authorized, payment.captured, payment.refunded, payment.refund_pending),
        "operations": sorted(payment.operations.values_list("kind", "state", "amount")),
        "entries": sorted(payment.ledger_entries.values_list("event", flat=True)),
        "proof": prove_ledger(),
    }


def look_after_each_order(payment: Payment, told: Sequence[Fact]) -> Iterator[dict[str, Any]]:
    """What is left by every distinct order of arrival, each tried on its own."""
    orders = {tuple(order) for order in permutations(range(len(told)))}
    for order in sorted(orders):
        with transaction.atomic():
            tell(payment, *(told[index] for index in order))
            yield look(payment)
            transaction.set_rollback(True)


@pytest.fixture
def in_doubt(place: Place, gateway: FakeGateway) -> Payment:
    """Its authorization was sent, and no answer came."""
    gateway.faults["authorize"] = [times_out]
    return place().payment


@pytest.fixture
def refunding(place: Place, gateway: FakeGateway) -> Payment:
    """Paid; a refund of 20.00 was sent, and no answer came."""
    order = place()
    gateway.faults["refund"] = [times_out]
    services.refund_order(order, amount=2000, reason="requested", actor="api:shop")
    return Payment.objects.get(order=order)


def own_fact(payment: Payment, kind: OperationKind, result: ChargeResult | RefundResult) -> GatewayFact:
    """About the operation of ours whose id the gateway has in its metadata."""
    return fact(kind, result, payment, payment.operations.get(kind=kind).id)


class TestOrderOfArrival:
    def test_an_authorization_told_in_any_order_is_authorized_once(self, in_doubt: Payment) -> None:
        told = [
            own_fact(in_doubt, AUTHORIZE, charge(status))
            for status in (
                ChargeStatus.PENDING,
                ChargeStatus.REQUIRES_ACTION,
                ChargeStatus.AUTHORIZED,
                ChargeStatus.AUTHORIZED,
            )
        ]
        for seen in look_after_each_order(in_doubt, told):
            assert seen == {
                "state": "requires_capture",
                "totals": (12950, 0, 0, 0),
                "operations": [("authorize", "succeeded", 12950)],
                "entries": ["authorization"],
                "proof": [],
            }

    def test_all_that_may_be_said_of_a_refunded_payment_ends_in_one_state(self, refunding: Payment) -> None:
        reference = refunding.gateway_reference
        told = [
            own_fact(refunding, AUTHORIZE, charge(ChargeStatus.AUTHORIZED, reference=reference)),
            own_fact(refunding, CAPTURE, charge(ChargeStatus.CAPTURED, reference=reference)),
            own_fact(refunding, REFUND, refund(RefundStatus.PENDING)),
            own_fact(refunding, REFUND, refund(RefundStatus.SUCCEEDED)),
            own_fact(refunding, REFUND, refund(RefundStatus.SUCCEEDED)),
        ]
        for seen in look_after_each_order(refunding, told):
            assert (seen["state"], seen["totals"]) == ("succeeded", (12950, 12950, 2000, 0))
            assert seen["entries"] == ["authorization", "capture", "refund_asked", "refund_settled"]
            assert seen["proof"] == []

    def test_a_refund_that_failed_in_the_end_is_never_counted_whatever_came_first(
        self, refunding: Payment
    ) -> None:
        told = [own_fact(refunding, REFUND, refund(status)) for status in RefundStatus]
        for seen in look_after_each_order(refunding, told):
            assert (seen["state"], seen["totals"]) == ("succeeded", (12950, 12950, 0, 0))
            assert ("refund", "reversed", 2000) in seen["operations"]
            assert seen["proof"] == []

    def test_a_card_that_only_one_of_two_names_is_kept(self, in_doubt: Payment) -> None:
        """A webhook may name none, and come before the answer; what follows is screened by it."""
        bare = own_fact(in_doubt, AUTHORIZE, charge(ChargeStatus.AUTHORIZED))
        card = CardDetails(brand="visa", last4="4242", fingerprint="fp_1", avs="fail")
        ends = timezone.now() + timedelta(days=7)
        full = replace(bare, result=replace(charge(ChargeStatus.AUTHORIZED), card=card, expires_at=ends))
        for _ in look_after_each_order(in_doubt, [bare, full]):
            assert in_doubt.card == {"brand": "visa", "last4": "4242", "avs": "fail"}
            assert in_doubt.card_fingerprint
            assert in_doubt.authorization_expires_at == ends

    def test_a_refund_made_at_the_gateway_is_booked_whatever_is_disputed(self, place: Place) -> None:
        """The bank may dispute all that was paid although a part was given back."""
        payment = place().payment
        dispute = chargeback(payment)
        theirs = fact(REFUND, refund(RefundStatus.SUCCEEDED, 3000, "re_dashboard"), payment)
        for seen in look_after_each_order(payment, [dispute, theirs]):
            assert (seen["totals"], payment.disputed) == ((12950, 12950, 3000, 0), 12950)
            assert seen["proof"] == []

    def test_a_refund_given_up_and_done_after_all_is_booked_whatever_is_disputed(
        self, refunding: Payment
    ) -> None:
        given_up = refunding.operations.get(kind=REFUND)
        facts.close_operation(refunding, given_up, {"code": "absent"})
        dispute = chargeback(refunding)
        done = own_fact(refunding, REFUND, refund(RefundStatus.SUCCEEDED))
        for seen in look_after_each_order(refunding, [dispute, done]):
            assert (seen["state"], seen["totals"]) == ("succeeded", (12950, 12950, 2000, 0))
            assert seen["proof"] == []

    def test_a_refund_given_up_done_after_all_and_taken_back_leaves_nothing(self, refunding: Payment) -> None:
        facts.close_operation(refunding, refunding.operations.get(kind=REFUND), {"code": "absent"})
        told = [
            own_fact(refunding, REFUND, refund(status))
            for status in (RefundStatus.SUCCEEDED, RefundStatus.FAILED)
        ]
        assert tell(refunding, *told, *told) == [
            FactOutcome.APPLIED,
            FactOutcome.APPLIED,
            FactOutcome.NOOP,
            FactOutcome.NOOP,
        ]
        seen = look(refunding)
        assert (seen["totals"], seen["proof"]) == ((12950, 12950, 0, 0), [])

    def test_facts_about_somebody_elses_refund_end_in_one_state(self, refunding: Payment) -> None:
        theirs = [
            fact(REFUND, refund(status, 3000, "re_dashboard"), refunding)
            for status in (RefundStatus.PENDING, RefundStatus.SUCCEEDED, RefundStatus.SUCCEEDED)
        ]
        ours = own_fact(refunding, REFUND, refund(RefundStatus.SUCCEEDED, 2000, "re_ours"))
        for seen in look_after_each_order(refunding, [*theirs, ours]):
            assert seen["totals"] == (12950, 12950, 5000, 0)
            assert seen["proof"] == []


class TestConflicts:
    def test_a_success_told_after_the_void_is_old_news(self, place: Place, gateway: FakeGateway) -> None:
        payment = place(payment_method="pm_3ds").payment
        sweep(3, overdue=True)
        before = look(payment)
        assert before["state"] == "canceled"

        late = own_fact(
            payment, AUTHORIZE, charge(ChargeStatus.AUTHORIZED, reference=payment.gateway_reference)
        )
        assert tell(payment, late) == [FactOutcome.NOOP]

        assert look(payment) == before

    def test_an_authorization_that_is_told_of_after_its_end_at_the_gateway_is_old_news(
        self, in_doubt: Payment
    ) -> None:
        ended = own_fact(in_doubt, AUTHORIZE, charge(ChargeStatus.VOIDED))
        late = own_fact(in_doubt, AUTHORIZE, charge(ChargeStatus.AUTHORIZED))
        assert tell(in_doubt, ended, late) == [FactOutcome.APPLIED, FactOutcome.NOOP]
        seen = look(in_doubt)
        assert (seen["state"], seen["totals"], seen["proof"]) == ("requires_payment_method", (0, 0, 0, 0), [])

    def test_a_refusal_after_the_success_is_for_a_person(self, place: Place) -> None:
        payment = place().payment
        before = look(payment)
        late = own_fact(payment, CAPTURE, charge(ChargeStatus.DECLINED))
        assert tell(payment, late) == [FactOutcome.CONFLICT]
        assert look(payment) == {**before, "state": "requires_review"}

    @pytest.mark.parametrize("wrong", [Money(12949, "EUR"), Money(129500, "EUR"), Money(12950, "USD")])
    def test_another_amount_than_asked_for_is_not_booked(self, in_doubt: Payment, wrong: Money) -> None:
        answer = own_fact(in_doubt, AUTHORIZE, charge(ChargeStatus.AUTHORIZED, wrong))
        assert tell(in_doubt, answer) == [FactOutcome.CONFLICT]
        seen = look(in_doubt)
        assert (seen["state"], seen["totals"], seen["entries"]) == ("requires_review", (0, 0, 0, 0), [])
        assert seen["operations"] == [("authorize", "requires_review", 12950)]

    def test_another_amount_of_a_capture_is_not_booked(self, place: Place, gateway: FakeGateway) -> None:
        gateway.faults["capture"] = [times_out]
        payment = place().payment
        wrong = own_fact(payment, CAPTURE, charge(ChargeStatus.CAPTURED, Money(1, "EUR")))
        assert tell(payment, wrong) == [FactOutcome.CONFLICT]
        assert look(payment)["totals"] == (12950, 0, 0, 0)
        assert prove_ledger() == []

    def test_another_amount_of_a_refund_stays_reserved_and_unsettled(self, refunding: Payment) -> None:
        wrong = own_fact(refunding, REFUND, refund(RefundStatus.SUCCEEDED, 1999))
        assert tell(refunding, wrong) == [FactOutcome.CONFLICT]
        assert look(refunding)["totals"] == (12950, 12950, 0, 2000)
        assert prove_ledger() == []

    def test_the_right_amount_told_later_settles_it(self, refunding: Payment) -> None:
        wrong, right = (
            own_fact(refunding, REFUND, refund(RefundStatus.SUCCEEDED, minor)) for minor in (1999, 2000)
        )
        assert tell(refunding, wrong, right) == [FactOutcome.CONFLICT, FactOutcome.APPLIED]
        assert look(refunding)["totals"] == (12950, 12950, 2000, 0)
        assert prove_ledger() == []


class TestWhoIsMeant:
    def test_another_accounts_word_counts_for_nothing(self, in_doubt: Payment) -> None:
        before = look(in_doubt)
        answer = own_fact(in_doubt, AUTHORIZE, charge(ChargeStatus.AUTHORIZED))
        assert apply_gateway_fact(GatewayAccountFactory(), answer) == FactOutcome.UNKNOWN_PAYMENT
        assert look(in_doubt) == before

    @pytest.mark.parametrize("named_by", ["payment_id", "operation_id", "reference"])
    def test_one_name_is_enough(self, place: Place, gateway: FakeGateway, named_by: str) -> None:
        gateway.faults["capture"] = [times_out]
        payment = place().payment
        full = own_fact(payment, CAPTURE, charge(ChargeStatus.CAPTURED, reference=payment.gateway_reference))
        others = {"payment_id", "operation_id", "reference"} - {named_by}
        named = replace(full, **dict.fromkeys(others, ""))  # type: ignore[arg-type]
        assert tell(payment, named) == [FactOutcome.APPLIED]
        assert look(payment)["totals"] == (12950, 12950, 0, 0)

    def test_nobody_is_meant(self, in_doubt: Payment) -> None:
        stray = GatewayFact(kind=AUTHORIZE, result=charge(ChargeStatus.AUTHORIZED), reference="pi_stray")
        assert tell(in_doubt, stray) == [FactOutcome.UNKNOWN_PAYMENT]

    def test_what_is_said_of_the_first_card_does_not_touch_the_second(
        self, place: Place, gateway: FakeGateway
    ) -> None:
        order = place(payment_method="pm_card_chargeDeclined")
        first = order.payment.gateway_reference
        gateway.faults["authorize"] = [times_out]
        payment = services.confirm_order(order, payment_method="pm_card_visa").payment
        second = payment.operations.get(kind="authorize", state="unknown")

        late = fact(AUTHORIZE, charge(ChargeStatus.DECLINED, reference=first), payment)
        tell(payment, replace(late, reference=first))

        second.refresh_from_db()
        assert second.state == "unknown"

    def test_a_known_card_without_an_answer_is_never_taken_for_another(
        self, place: Place, gateway: FakeGateway
    ) -> None:
        order = place(payment_method="pm_card_chargeDeclined")
        first = order.payment.gateway_reference
        gateway.faults["authorize"] = [times_out]
        payment = services.confirm_order(order, payment_method="pm_card_visa").payment
        captured = fact(CAPTURE, charge(ChargeStatus.CAPTURED, reference=first), payment)
        assert facts.find_operation(payment, replace(captured, reference=first)) is None


class TestAdoption:
    def test_a_refund_made_at_the_gateway_becomes_one_of_ours(self, place: Place) -> None:
        payment = place().payment
        theirs = fact(REFUND, refund(RefundStatus.SUCCEEDED, 3000, "re_dashboard"), payment)
        assert tell(payment, theirs, theirs) == [FactOutcome.APPLIED, FactOutcome.NOOP]
        assert look(payment)["totals"] == (12950, 12950, 3000, 0)
        assert Operation.objects.refunds().get().source == "external"
        assert prove_ledger() == []

    def test_a_capture_made_at_the_gateway_is_booked(self, place: Place) -> None:
        payment = place(capture="manual").payment
        theirs = fact(
            CAPTURE, charge(ChargeStatus.CAPTURED, Money(5000, "EUR"), payment.gateway_reference), payment
        )
        assert tell(payment, theirs, theirs) == [FactOutcome.APPLIED, FactOutcome.NOOP]
        assert look(payment)["totals"] == (12950, 5000, 0, 0)
        assert prove_ledger() == []

    def test_a_void_made_at_the_gateway_is_booked(self, place: Place) -> None:
        payment = place(capture="manual").payment
        theirs = fact(VOID, charge(ChargeStatus.VOIDED, reference=payment.gateway_reference), payment)
        assert tell(payment, theirs, theirs) == [FactOutcome.APPLIED, FactOutcome.NOOP]
        assert look(payment)["totals"] == (0, 0, 0, 0)
        assert prove_ledger() == []

    def test_after_a_void_at_the_gateway_an_approval_captures_nothing_and_ends(
        self, place: Place, gateway: FakeGateway, screener: ScriptedScreener
    ) -> None:
        screener.decisions[Stage.AFTER_AUTHORIZATION] = Decision.REVIEW
        order = place()
        tell(
            order.payment,
            fact(VOID, charge(ChargeStatus.VOIDED, reference=order.payment.gateway_reference), order.payment),
        )
        services.release_review(order.id, actor="user:analyst")
        sweep(2)
        order.refresh_from_db()
        assert (order.state, order.sagas.get().state) == ("canceled", "COMPENSATED")
        assert gateway.captured == {}
        assert prove_ledger() == []

    @pytest.mark.parametrize(
        "result",
        [
            refund(RefundStatus.SUCCEEDED, 12951, "re_too_much"),
            RefundResult(RefundStatus.SUCCEEDED, "re_usd", Money(100, "USD")),
            refund(RefundStatus.SUCCEEDED, 0, "re_nothing"),
            refund(RefundStatus.FAILED, 100, "re_failed"),
        ],
    )
    def test_what_does_not_fit_the_payment_is_not_booked(self, place: Place, result: RefundResult) -> None:
        payment = place().payment
        before = look(payment)
        assert tell(payment, fact(REFUND, result, payment)) == [FactOutcome.NOT_YET]
        assert look(payment) == before


@pytest.mark.concurrency
@pytest.mark.django_db(transaction=True)
def test_ten_deliveries_of_one_refund_at_the_same_time_refund_once(place: Place) -> None:
    payment = place().payment
    theirs = fact(REFUND, refund(RefundStatus.SUCCEEDED, 3000, "re_dashboard"), payment)
    barrier = Barrier(10)

    def deliver(_: int) -> FactOutcome:
        barrier.wait()
        return apply_gateway_fact(payment.account, theirs)

    outcomes = run_in_threads(deliver, 10)

    assert sorted(outcomes) == ["applied"] + ["noop"] * 9
    payment.refresh_from_db()
    assert (payment.refunded, Operation.objects.refunds().count()) == (3000, 1)
    assert LedgerEntry.objects.filter(event="refund_settled").count() == 1
    assert sum(Posting.objects.values_list("amount", flat=True)) == 0
    assert prove_ledger() == []


class TestDoneAtTheGatewaysOwnPages:
    def told(self, payment: Payment, kind: OperationKind, status: ChargeStatus) -> None:
        result = charge(status, reference=payment.gateway_reference)
        assert tell(payment, fact(kind, result, payment)) == [FactOutcome.APPLIED]

    def test_a_capture_there_ships_and_pays_the_order(self, place: Place) -> None:
        order = place(capture="manual")
        self.told(order.payment, CAPTURE, ChargeStatus.CAPTURED)
        sweep(1)
        order.refresh_from_db()
        assert order.state == "paid"
        assert order.shipments.count() == 1
        assert "order.paid" in order.events.values_list("type", flat=True)
        assert prove_ledger() == []

    def test_a_void_there_cancels_the_order(self, place: Place, gateway: FakeGateway) -> None:
        order = place(capture="manual")
        self.told(order.payment, VOID, ChargeStatus.VOIDED)
        sweep(1)
        order.refresh_from_db()
        assert (order.state, order.cancel_reason) == ("canceled", "at_the_gateway")
        assert gateway.voided == set(), "nothing was left to void"
