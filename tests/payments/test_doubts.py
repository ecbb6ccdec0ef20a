"""Doubt: asked for by schedule, kept as evidence, a person's task in the end; what comes late is undone by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from django.utils import timezone

from payments import services
from payments.errors import ConflictError, GatewayTimeoutError, InvalidRequestError
from payments.gateways.base import ChargeResult, ChargeStatus, RefundResult, RefundStatus
from payments.kinds import OperationKind
from payments.models import Inquiry, OnCallPage, Operation, Order, Payment, SagaRun
from payments.money import Money
from payments.proof import prove_ledger
from tests.fakes import FakeGateway, fact
from tests.payments.gateway_faults import sweep, times_out

pytestmark = pytest.mark.django_db
Place = Callable[..., Order]
EUR = Money(12950, "EUR")


def make_due(**changes: object) -> None:
    """As if the time for the next question had come."""
    Operation.objects.filter(next_ask_at__isnull=False).update(next_ask_at=timezone.now(), **changes)


@pytest.fixture
def doubtful(place: Place, gateway: FakeGateway) -> Operation:
    """A refund of 20.00 that was sent and not answered; its saga sleeps for an hour."""
    order = place()
    gateway.faults["refund"] = [times_out]
    refund = services.refund_order(order, amount=2000, reason="requested", actor="api:shop")
    SagaRun.objects.filter(subject=refund.pk).update(wake_at=timezone.now() + timedelta(hours=1))
    return Operation.objects.get(pk=refund.pk)


class TestBySchedule:
    def test_the_schedule_asks_and_settles(self, doubtful: Operation, gateway: FakeGateway) -> None:
        assert (doubtful.state, doubtful.next_ask_at is not None) == ("unknown", True)
        result = RefundResult(RefundStatus.SUCCEEDED, "re_theirs", Money(2000, "EUR"))
        gateway.operations[doubtful.pk] = result
        make_due()
        assert services.ask_due_operations() == 1
        doubtful.refresh_from_db()
        assert (doubtful.state, doubtful.next_ask_at, doubtful.resolved_at is not None) == (
            "succeeded",
            None,
            True,
        )
        assert doubtful.inquiries.get().answer == "succeeded"
        assert services.ask_due_operations() == 0

    def test_two_negatives_are_absent_and_one_is_not(self, doubtful: Operation) -> None:
        make_due()
        services.ask_due_operations()
        doubtful.refresh_from_db()
        assert (doubtful.state, doubtful.negatives) == ("unknown", 1)
        make_due()
        services.ask_due_operations()
        doubtful.refresh_from_db()
        assert (doubtful.state, doubtful.error["code"]) == ("failed", "absent")
        assert Payment.objects.get(pk=doubtful.payment_id).refund_pending == 0
        assert [each.answer for each in doubtful.inquiries.all()] == ["absent", "absent"]
        assert prove_ledger() == []

    def test_what_stays_unknown_becomes_a_persons_task_with_its_evidence(
        self, doubtful: Operation, monkeypatch: pytest.MonkeyPatch, gateway: FakeGateway
    ) -> None:
        def dead(request: object) -> None:
            raise GatewayTimeoutError("nobody answers")

        monkeypatch.setattr(gateway, "fetch", dead)
        for _ in range(4):
            make_due()
            services.ask_due_operations()
        doubtful.refresh_from_db()
        assert doubtful.state == "unknown"
        assert list(Operation.objects.escalated()) == [doubtful]
        assert [each.answer for each in doubtful.inquiries.all()] == ["gateway_timeout"] * 4
        assert OnCallPage.objects.get().cause == "operation:refund:unknown"
        assert doubtful.next_ask_at is not None, "the questions go on"

    def test_no_worker_asks_what_another_one_asks(self, doubtful: Operation) -> None:
        make_due()
        assert services.ask_due_operations() == 1
        assert services.ask_due_operations() == 0


class TestBeforeAnotherOperation:
    def test_a_refund_in_doubt_is_asked_for_and_does_not_block(
        self, doubtful: Operation, gateway: FakeGateway
    ) -> None:
        order = Order.objects.get(payment=doubtful.payment_id)
        services.refund_order(order, amount=1000, reason="requested", actor="api:shop")
        assert Inquiry.objects.filter(operation=doubtful).count() == 1
        assert gateway.calls[-2][0] == "fetch"

    def test_a_capture_in_doubt_blocks_until_the_gateway_says(
        self, place: Place, gateway: FakeGateway
    ) -> None:
        order = place(capture="manual")
        gateway.faults["capture"] = [times_out]
        services.capture_order(order, amount=5000, final=True, actor="api:shop")
        with pytest.raises(ConflictError, match="in doubt"):
            services.cancel_order(order, reason="requested", actor="api:shop")
        assert gateway.voided == set()


class TestByAPersonsWord:
    def test_only_what_waits_for_a_person_can_be_decided(self, doubtful: Operation) -> None:
        with pytest.raises(ConflictError, match="waits for nobody"):
            services.decide_operation(doubtful, outcome="failed", reference="", note="seen", actor="user:ann")

    def test_a_success_needs_a_reference_and_every_word_a_note(self, doubtful: Operation) -> None:
        Operation.objects.update(escalated_at=timezone.now())
        with pytest.raises(InvalidRequestError, match="reference"):
            services.decide_operation(
                doubtful, outcome="succeeded", reference=" ", note="seen", actor="user:ann"
            )
        with pytest.raises(InvalidRequestError, match="saw"):
            services.decide_operation(doubtful, outcome="failed", reference="", note=" ", actor="user:ann")

    @pytest.mark.parametrize(("outcome", "refunded"), [("succeeded", 2000), ("failed", 0)])
    def test_the_decision_is_booked_and_the_saga_ends(
        self, doubtful: Operation, outcome: str, refunded: int
    ) -> None:
        Operation.objects.filter(pk=doubtful.pk).update(escalated_at=timezone.now())
        services.decide_operation(
            doubtful, outcome=outcome, reference="re_seen", note="as the dashboard shows", actor="user:ann"
        )
        sweep(2)
        payment = Payment.objects.get(pk=doubtful.payment_id)
        assert (payment.refunded, payment.refund_pending) == (refunded, 0)
        assert SagaRun.objects.live().count() == 0
        assert prove_ledger() == []


class TestLateSuccess:
    def test_money_that_comes_after_it_was_given_up_goes_back(
        self, place: Place, gateway: FakeGateway
    ) -> None:
        order = place(payment_method="pm_3ds")
        sweep(3, overdue=True)
        payment = Payment.objects.get(order=order)
        operation = payment.operations.get(kind="authorize")
        Operation.objects.filter(kind="void").delete()  # as if the gateway had denied all knowledge of it
        Operation.objects.filter(pk=operation.pk).update(error={"code": "absent"})
        reference = payment.gateway_reference
        gateway.authorized[reference] = 12950
        gateway.voided.clear()
        late = ChargeResult(ChargeStatus.AUTHORIZED, reference, EUR)
        told = fact(OperationKind.AUTHORIZE, late, payment, operation.id)

        assert services.apply_gateway_fact(payment.account, told) == "applied"
        sweep(2)

        payment.refresh_from_db()
        assert gateway.orphans() == set()
        assert (payment.state, payment.authorized, payment.capturable) == ("canceled", 0, 0)
        assert "payment.late_success_undone" in order.events.values_list("type", flat=True)
        assert services.apply_gateway_fact(payment.account, told) == "noop"
        assert prove_ledger() == []


class TestGatewaysThatCannotBeAsked:
    def test_the_same_key_is_sent_again(self, place: Place, gateway: FakeGateway) -> None:
        gateway.capabilities = replace(gateway.capabilities, answers_questions=False)
        gateway.faults["authorize"] = [times_out]
        order = place()
        gateway.operations.clear()
        sweep(2)
        order.refresh_from_db()
        assert order.state == "paid"
        assert gateway.money_kept() == 12950
        assert len(gateway.authorized) == 1

    def test_without_keys_nothing_is_sent_again_before_it_was_denied(
        self, place: Place, gateway: FakeGateway
    ) -> None:
        gateway.capabilities = replace(gateway.capabilities, idempotency_key_hours=0)
        gateway.faults["authorize"] = [times_out]
        order = place()
        sweep(1)
        assert [kind for kind, _ in gateway.calls].count("authorize") == 1
        sweep(2)
        order.refresh_from_db()
        assert order.state == "paid"
        assert [kind for kind, _ in gateway.calls].count("authorize") == 2
        assert [kind for kind, _ in gateway.calls[:4]] == ["authorize", "fetch", "fetch", "authorize"]


class TestGatewaysThatAnswerLater:
    """A capture is received first, and a webhook says how it ended."""

    @pytest.fixture
    def slow(self, gateway: FakeGateway) -> FakeGateway:
        gateway.capabilities = replace(
            gateway.capabilities, answers_questions=False, asynchronous_captures=True
        )

        def received(act: Callable[[], object]) -> ChargeResult:
            done = act()
            assert isinstance(done, ChargeResult)
            return replace(done, status=ChargeStatus.PENDING, own_reference="cap_1")

        gateway.faults["capture"] = [received]
        return gateway

    def tell(self, order: Order, status: ChargeStatus) -> services.FactOutcome:
        payment = Payment.objects.get(order=order)
        result = ChargeResult(status, payment.gateway_reference, EUR, own_reference="cap_1")
        return services.apply_gateway_fact(payment.account, fact(OperationKind.CAPTURE, result, payment))

    def test_the_order_waits_for_the_word_and_is_paid_then(self, place: Place, slow: FakeGateway) -> None:
        order = place()
        assert (order.state, SagaRun.objects.get().waiting_for) == ("placed", "gateway")
        services.sweep_sagas()
        assert SagaRun.objects.get().state == "WAITING", "nobody asks who does not answer"

        assert self.tell(order, ChargeStatus.CAPTURED) == "applied"
        services.sweep_sagas()
        order.refresh_from_db()
        assert order.state == "paid"
        assert prove_ledger() == []

    def test_a_capture_that_fails_undoes_the_order(self, place: Place, slow: FakeGateway) -> None:
        order = place()
        slow.captured.clear()
        slow.closed.clear()
        assert self.tell(order, ChargeStatus.FAILED) == "applied"
        sweep(3)
        order.refresh_from_db()
        assert order.state == "canceled"
        assert slow.orphans() == set()
        assert prove_ledger() == []

    def test_without_a_word_a_person_is_called(self, place: Place, slow: FakeGateway) -> None:
        place()
        sweep(1, overdue=True)
        run = SagaRun.objects.get()
        assert run.state == "QUARANTINED"
        assert OnCallPage.objects.filter(cause__contains="capture").exists()

    def test_silence_is_never_counted_as_a_negative(self, doubtful: Operation, gateway: FakeGateway) -> None:
        gateway.capabilities = replace(gateway.capabilities, answers_questions=False)
        for _ in range(5):
            make_due()
            services.ask_due_operations()
        doubtful.refresh_from_db()
        assert (doubtful.state, doubtful.negatives) == ("unknown", 0)
        assert doubtful.escalated_at is not None
