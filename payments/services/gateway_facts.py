"""What gateways say: the one door for facts about operations, disputes and fraud, and what follows from them."""

from __future__ import annotations

import structlog
from django.db import transaction

from payments import facts, ids
from payments.facts import FactOutcome
from payments.gateways.base import DisputeFact, Fact, FraudWarning, GatewayFact
from payments.kinds import OperationKind
from payments.models import (
    Attempt,
    AttemptState,
    GatewayAccount,
    Operation,
    OperationState,
    Order,
    Payment,
    PaymentState,
    SagaState,
)
from payments.models.order import DEAD_STATES, OrderState
from payments.models.saga import DRIVEN_STATES
from payments.oncall import open_page
from payments.sagas import engine, store
from payments.sagas.checkout import CHECKOUT
from payments.sagas.later import CANCEL, CAPTURE, UNDO_LATE

log = structlog.get_logger(__name__)


def apply_gateway_fact(account: GatewayAccount, fact: Fact) -> FactOutcome:
    """The one door for what a gateway says: webhook, poll, report or operator. Wakes the saga that waits for it."""
    order_id = find_fact_order(account, fact)
    if order_id is None:
        return FactOutcome.UNKNOWN_PAYMENT
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(order_id)
        if isinstance(fact, DisputeFact):
            return facts.apply_dispute_fact(payment, fact)
        if isinstance(fact, FraudWarning):
            return facts.apply_fraud_warning(payment, fact)
        operation = facts.find_operation(payment, fact)
        if operation is None or _is_news(operation, fact):
            operation = facts.adopt_operation(payment, fact) or operation
        outcome = _settle(payment, operation, fact)
        if outcome == FactOutcome.APPLIED and operation is not None:
            follow_up(payment, operation)
    return outcome


def find_fact_order(account: GatewayAccount, fact: Fact) -> str | None:
    """The order that a fact is about, or None: the search that comes before applying it."""
    if isinstance(fact, DisputeFact | FraudWarning):
        return _find_disputed_order(account, fact)
    return _find_order_id(account, fact)


def _find_disputed_order(account: GatewayAccount, fact: DisputeFact | FraudWarning) -> str | None:
    """By the payment that it names, or by the dispute itself once we know it."""
    by_id = Payment.objects.filter(account=account, pk=fact.payment_id or "-")
    by_attempt = Payment.objects.filter(
        attempts__account=account, attempts__gateway_reference=fact.payment_reference or "-"
    )
    by_part = Payment.objects.filter(  # a gateway may name the captured part instead
        operations__account=account, operations__gateway_reference=fact.payment_reference or "-"
    )
    by_dispute = Payment.objects.filter(disputes__account=account, disputes__gateway_reference=fact.reference)
    for found in (by_id, by_attempt, by_part, by_dispute):
        order_id = found.values_list("order_id", flat=True).first()
        if order_id:
            return order_id
    return None


def _find_order_id(account: GatewayAccount, fact: GatewayFact) -> str | None:
    """Scoped to the account that sent it: another account's word counts for nothing."""
    payments = Payment.objects.filter(
        attempts__account=account
    )  # of any attempt: a payment may have failed over
    if fact.payment_id:
        found = payments.filter(pk=fact.payment_id).values_list("order_id", flat=True).first()
        if found:
            return found
    attempts = Attempt.objects.filter(account=account, gateway_reference=fact.reference or "-")
    by_attempt = attempts.values_list("payment__order_id", flat=True).first()
    if by_attempt or not fact.operation_id:
        return by_attempt
    operations = Operation.objects.filter(account=account, pk=fact.operation_id)
    return operations.values_list("payment__order_id", flat=True).first()


def _is_news(operation: Operation, fact: GatewayFact) -> bool:
    """A refund that is not this one: somebody made it at the gateway."""
    return (
        fact.kind == OperationKind.REFUND
        and operation.id != fact.operation_id
        and operation.gateway_reference != fact.result.reference
    )


def _settle(payment: Payment, operation: Operation | None, fact: GatewayFact) -> FactOutcome:
    if operation is None:
        log.warning("gateway_fact_unfit", payment_id=payment.id, kind=fact.kind, status=fact.result.status)
        return FactOutcome.NOT_YET
    return facts.settle_operation(payment, operation, fact.result)


def _wake_sagas(order: Order) -> None:
    """Whoever waits for the gateway looks again: by its signal, or because it is due now."""
    for run in order.sagas.filter(state__in=DRIVEN_STATES):
        if run.waiting_for in ("customer", "gateway"):
            engine.send_signal(
                run.pk, run.waiting_for, dedupe_id=ids.new_id("evt"), payload={"by": "gateway"}
            )
        elif run.state != SagaState.WAITING:
            store.wake_run(run.pk)


def follow_up(payment: Payment, operation: Operation) -> None:
    """What an operation's news leads to besides its own booking: wake who waits, undo what came late, call a person."""
    _wake_sagas(payment.order)
    undo_late_success(payment, operation)
    _finish_order(payment, operation)
    is_reversed = operation.state == OperationState.REVERSED and operation.kind == OperationKind.CAPTURE
    is_stuck = operation.state == OperationState.FAILED and operation.kind == OperationKind.VOID
    if is_reversed or is_stuck:
        _call_person(payment, operation, "was taken back" if is_reversed else "failed at the gateway")


def _call_person(payment: Payment, operation: Operation, what: str) -> None:
    open_page(
        f"operation:{operation.kind}:{operation.state}",
        text=f"{operation.kind.capitalize()} {operation.id} of order {payment.order.reference} {what}",
        detail={"order": payment.order_id, "operation": operation.id, "amount": str(operation.money)},
    )


def _finish_order(payment: Payment, operation: Operation) -> None:
    """What was captured or voided at the gateway's own pages ends the order too: shipped and paid, or canceled."""
    order = payment.order
    is_over = operation.state == OperationState.SUCCEEDED and not payment.capturable
    if not is_over or order.state != OrderState.PROCESSING or order.sagas.live().exists():
        return
    if operation.kind == OperationKind.CAPTURE:
        recipe = CAPTURE
    elif operation.kind == OperationKind.VOID and payment.state == PaymentState.CANCELED:
        recipe = CANCEL
    else:
        return
    data = {"actor": "gateway", "reason": "at_the_gateway", "port_key": checkout_run(order)}
    engine.start_run(recipe, subject=order.pk, order=order, payment=payment, data=data).release()


def checkout_run(order: Order) -> str:
    """The run whose reservations and shipment a later saga takes over."""
    run = order.sagas.filter(kind=CHECKOUT.kind).order_by("-id").values_list("pk", flat=True).first()
    return str(run or "")


def undo_late_success(payment: Payment, operation: Operation) -> None:
    """Money that came after its order was given up, or after another attempt took its place, goes back by itself."""
    if operation.state != OperationState.SUCCEEDED or operation.kind == OperationKind.VOID:
        return
    is_late = operation.attempt.state == AttemptState.LATE
    is_dead = payment.order.state in DEAD_STATES and (payment.capturable > 0 or payment.refundable > 0)
    if not (is_late or is_dead) or payment.order.sagas.live().exists():
        return
    data = {"reason": "late_success", "late_attempt": operation.attempt_id if is_late else ""}
    subject = operation.attempt_id
    runner = engine.start_run(UNDO_LATE, subject=subject, order=payment.order, payment=payment, data=data)
    runner.release()
