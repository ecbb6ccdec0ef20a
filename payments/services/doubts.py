"""Doubt: gateways are asked about what is not settled, by schedule or by hand; a person decides what stays open."""

from __future__ import annotations

from datetime import timedelta

import structlog
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from payments import facts
from payments.errors import ConflictError, InvalidRequestError, PaymentError
from payments.gateways.base import ChargeResult, ChargeStatus, RefundResult, RefundStatus
from payments.kinds import OperationKind
from payments.models import Operation, OperationState, Order, Payment
from payments.models.payment import OPEN_OPERATION_STATES
from payments.oncall import open_page
from payments.redaction import redact
from payments.sagas.effects import NEGATIVES_NEEDED, complete_at_gateway, fetch_operation, find_capabilities
from payments.services.gateway_facts import follow_up

log = structlog.get_logger(__name__)

LEASE = timedelta(minutes=2)  # longer than one question takes; a worker that dies is followed by another
Answer = ChargeResult | RefundResult | PaymentError | None


def resolve_unknown(operation: Operation, *, actor: str) -> Operation:
    """Ask the gateway now what became of an operation, and settle it.

    The answer, or that there was none, is kept as evidence. Raises the errors of the wire.
    """
    answer = _ask(operation)
    settled = _settle(operation.pk, answer, actor=actor, is_asked_by_hand=True)
    if isinstance(answer, PaymentError):
        raise answer
    return settled


def _ask(operation: Operation) -> Answer:
    try:
        return fetch_operation(Operation.objects.with_account().get(pk=operation.pk))
    except PaymentError as error:
        return error


def _settle(operation_id: str, answer: Answer, *, actor: str, is_asked_by_hand: bool = False) -> Operation:
    operation = Operation.objects.with_account().get(pk=operation_id)
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(_order_id(operation))
        operation.refresh_from_db()
        facts.record_inquiry(operation, answer, actor=actor)
        was = operation.state
        if operation.is_final:
            return operation
        if answer is None:
            _count_negative(payment, operation)
        elif not isinstance(answer, PaymentError):
            facts.settle_operation(payment, operation, answer)
        if is_asked_by_hand:
            found = "unknown to the gateway" if answer is None else operation.state
            facts.record_event(
                payment,
                "operation.asked",
                is_public=False,
                actor=actor,
                operation=operation.describe(),
                found=found,
            )
        if operation.state != was:
            follow_up(payment, operation)
    return operation


def _order_id(operation: Operation) -> str:
    return Payment.objects.values_list("order_id", flat=True).get(pk=operation.payment_id)


def _count_negative(payment: Payment, operation: Operation) -> None:
    """Two answers "I know nothing of it", some time apart, and it never happened."""
    if operation.state != OperationState.UNKNOWN:
        return  # it was received once: a person has to find out
    operation.negatives += 1
    operation.save(update_fields=["negatives"])
    if operation.negatives >= NEGATIVES_NEEDED:
        message = "The gateway said twice that it knows nothing of it."
        facts.close_operation(payment, operation, {"code": "absent", "message": message})


def complete_authentication(order: Order, *, redirect_result: str, actor: str) -> None:
    """Hand in what the customer brought back from 3-D Secure, where the gateway needs it; elsewhere it is ignored.

    A gateway that does not answer leaves the order waiting: its webhook, or another try, goes on.
    """
    waiting = Operation.objects.with_account().filter(
        payment__order=order, kind=OperationKind.AUTHORIZE, state=OperationState.PENDING
    )
    operation = waiting.order_by("id").last()
    if operation is None or not find_capabilities(operation.account).completes_authentication:
        return
    try:
        answer: Answer = complete_at_gateway(operation, redirect_result)
    except PaymentError as error:
        answer = error
    _settle(operation.pk, answer, actor=actor)


# --- by schedule --------------------------------------------------------------------------------------------


def ask_due_operations(*, limit: int = 100) -> int:
    """Ask for every open operation whose time has come; returns how many were asked."""
    asked = 0
    while asked < limit:
        operation = _lease_next()
        if operation is None:
            break
        _ask_by_schedule(operation)
        asked += 1
    return asked


def _lease_next() -> Operation | None:
    now = timezone.now()
    with transaction.atomic():
        due = Operation.objects.filter(next_ask_at__lte=now).order_by("next_ask_at")
        operation = due.select_for_update(skip_locked=True, of=("self",)).first()
        if operation is None:
            return None
        operation.asks += 1
        operation.next_ask_at = now + LEASE
        operation.save(update_fields=["asks", "next_ask_at"])
    return operation


def _ask_by_schedule(operation: Operation) -> None:
    answer = _ask(operation)
    operation = _settle(operation.pk, answer, actor="system")
    if operation.is_final:
        return
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(_order_id(operation))
        operation.refresh_from_db()
        if operation.state not in OPEN_OPERATION_STATES:
            return
        facts.schedule_question(operation)
        if operation.escalated_at is None and _is_too_old(operation):
            _escalate(payment, operation)
        operation.save(update_fields=list(facts.QUESTION_FIELDS))


def _is_too_old(operation: Operation) -> bool:
    """Asked in vain as often as the schedule says; a pending refund only when no bank takes so long."""
    if operation.state == OperationState.UNKNOWN:
        return operation.asks >= len(settings.UNKNOWN_QUERY_SECONDS)
    if operation.kind == OperationKind.REFUND:
        return timezone.now() - operation.created_at > timedelta(days=settings.PENDING_REFUND_DAYS)
    return timezone.now() - operation.created_at > timedelta(seconds=settings.PENDING_SECONDS)


def _escalate(payment: Payment, operation: Operation) -> None:
    """From here on it is a person's task; the questions go on at the schedule's slowest pace."""
    operation.escalated_at = timezone.now()
    open_page(
        f"operation:{operation.kind}:{operation.state}",
        text=f"{operation.kind.capitalize()} {operation.id} of order {payment.order.reference} is {operation.state}, "
        "and the gateway does not say what became of it",
        detail={
            "order": payment.order_id,
            "operation": operation.id,
            "money": {"currency": operation.currency, operation.kind: operation.amount},
        },
    )
    facts.record_event(payment, "operation.escalated", is_public=False, operation=operation.describe())


# --- by a person's word -------------------------------------------------------------------------------------

_DECISIONS: dict[tuple[str, str], ChargeStatus | RefundStatus] = {
    (OperationKind.AUTHORIZE, "succeeded"): ChargeStatus.AUTHORIZED,
    (OperationKind.CAPTURE, "succeeded"): ChargeStatus.CAPTURED,
    (OperationKind.VOID, "succeeded"): ChargeStatus.VOIDED,
    (OperationKind.REFUND, "succeeded"): RefundStatus.SUCCEEDED,
}


def decide_operation(
    operation: Operation, *, outcome: str, reference: str, note: str, actor: str
) -> Operation:
    """Settle an escalated operation by what a person saw at the gateway: `succeeded` or `failed`.

    It goes through the one function for facts, so it may still be contradicted by the gateway later.
    Raises `ConflictError` when it is not escalated, `InvalidRequestError` without a note, or without the gateway's
    reference for a success.
    """
    if not note.strip():
        raise InvalidRequestError("Say what you saw at the gateway; nothing was changed.", pointer="/note")
    if outcome == "succeeded" and not reference.strip():
        raise InvalidRequestError("Give the gateway's reference; nothing was changed.", pointer="/reference")
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(_order_id(operation))
        operation = Operation.objects.with_account().get(pk=operation.pk)
        if operation.escalated_at is None or operation.is_final:
            raise ConflictError(
                f"{operation.kind.capitalize()} {operation.id} is {operation.state} and waits for nobody; "
                "nothing was changed."
            )
        _apply_decision(payment, operation, outcome, reference.strip())
        facts.record_event(
            payment,
            "operation.decided",
            is_public=False,
            actor=actor,
            operation=operation.describe(),
            note=redact(note),
        )
        follow_up(payment, operation)
    return operation


def _apply_decision(payment: Payment, operation: Operation, outcome: str, reference: str) -> None:
    if outcome != "succeeded":
        facts.close_operation(
            payment,
            operation,
            {"code": "absent", "message": "A person saw at the gateway that it never happened."},
        )
        return
    status = _DECISIONS[operation.kind, outcome]
    if isinstance(status, RefundStatus):
        facts.settle_operation(payment, operation, RefundResult(status, reference, operation.money))
        return
    attempt_reference = operation.attempt.gateway_reference or reference
    own = reference if operation.kind != OperationKind.AUTHORIZE else ""
    facts.settle_operation(
        payment, operation, ChargeResult(status, attempt_reference, operation.money, own_reference=own)
    )
