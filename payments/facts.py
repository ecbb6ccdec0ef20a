"""The one function through which every answer about money enters: it moves forward, or it records why not."""

from __future__ import annotations

from enum import StrEnum

import structlog
from django.db.models import QuerySet
from django.utils import timezone

from payments import ids, ledger, sql
from payments.encryption import keyed_hash
from payments.gateways.base import (
    ChargeResult,
    ChargeStatus,
    Decline,
    GatewayFact,
    RefundResult,
    RefundStatus,
)
from payments.kinds import OperationKind
from payments.models import (
    Attempt,
    AttemptState,
    Event,
    Operation,
    OperationSource,
    OperationState,
    Payment,
    PaymentState,
)
from payments.models.payment import FINAL_OPERATION_STATES
from payments.money import Money

log = structlog.get_logger(__name__)


class FactOutcome(StrEnum):
    APPLIED = "applied"
    NOOP = "noop"
    CONFLICT = "conflict"
    NOT_YET = "not_yet"  # it fits nothing that we know of the payment: perhaps it came before what it follows
    UNKNOWN_PAYMENT = "unknown_payment"


_RANK = {
    OperationState.CREATED: 0,
    OperationState.SENT: 1,
    OperationState.UNKNOWN: 2,
    OperationState.PENDING: 3,
    OperationState.REQUIRES_REVIEW: 3,
    OperationState.SUCCEEDED: 4,
    OperationState.DECLINED: 4,
    OperationState.FAILED: 4,
    OperationState.REVERSED: 5,
}

_TARGET: dict[tuple[str, str], OperationState] = {
    ("authorize", ChargeStatus.AUTHORIZED): OperationState.SUCCEEDED,
    ("authorize", ChargeStatus.CAPTURED): OperationState.SUCCEEDED,
    ("authorize", ChargeStatus.REQUIRES_ACTION): OperationState.PENDING,
    ("authorize", ChargeStatus.VOIDED): OperationState.FAILED,
    ("capture", ChargeStatus.CAPTURED): OperationState.SUCCEEDED,
    ("capture", ChargeStatus.VOIDED): OperationState.FAILED,
    ("void", ChargeStatus.VOIDED): OperationState.SUCCEEDED,
    ("void", ChargeStatus.CAPTURED): OperationState.FAILED,
    ("refund", RefundStatus.SUCCEEDED): OperationState.SUCCEEDED,
    ("refund", RefundStatus.PENDING): OperationState.PENDING,
    ("refund", RefundStatus.FAILED): OperationState.FAILED,
}
_ANY_KIND: dict[str, OperationState] = {
    ChargeStatus.PENDING: OperationState.PENDING,
    ChargeStatus.DECLINED: OperationState.DECLINED,
    ChargeStatus.FAILED: OperationState.FAILED,
}


def settle_operation(
    payment: Payment, operation: Operation, result: ChargeResult | RefundResult
) -> FactOutcome:
    """Apply what the gateway says of one operation; the order and the payment must be locked.

    Ranks decide, not the order of arrival: an older fact is a no-op, an impossible one a conflict for a person.
    """
    target = _TARGET.get((operation.kind, result.status)) or _ANY_KIND.get(result.status)
    if target is None:
        return FactOutcome.NOOP  # e.g. "still authorized", said of a capture that is on its way
    if (
        operation.kind == OperationKind.REFUND
        and operation.state == OperationState.SUCCEEDED
        and target == OperationState.FAILED
    ):
        target = OperationState.REVERSED
    if operation.state == target or _RANK[OperationState(operation.state)] > _RANK[target]:
        return FactOutcome.NOOP
    if operation.state in FINAL_OPERATION_STATES and target != OperationState.REVERSED:
        return _flag_conflict(
            payment, operation, f"is {operation.state}, and the gateway now says {result.status}"
        )
    must_match = target == OperationState.SUCCEEDED and operation.kind != OperationKind.VOID
    if must_match and result.amount != operation.money:
        return _flag_mismatch(payment, operation, result)
    _move(operation, target, result)
    _EFFECTS[OperationKind(operation.kind)](payment, operation, result)
    return FactOutcome.APPLIED


def _move(operation: Operation, target: OperationState, result: ChargeResult | RefundResult) -> None:
    decline = result.decline if isinstance(result, ChargeResult) else result.failure
    operation.state = target
    operation.gateway_reference = result.reference or operation.gateway_reference
    operation.error = _error_of(decline)
    operation.resolved_at = timezone.now() if operation.is_final else None
    operation.save(update_fields=["state", "gateway_reference", "error", "resolved_at"])


def _error_of(decline: Decline | None) -> dict[str, object] | None:
    if decline is None:
        return None
    code = (
        decline.code if decline.code in ("insufficient_funds", "authentication_required") else "card_declined"
    )
    return {"code": code, **decline.to_dict()}


def close_operation(payment: Payment, operation: Operation, error: dict[str, object]) -> None:
    """Surely not done at the gateway: the operation failed, and a refund's reservation is released."""
    operation.state = OperationState.FAILED
    operation.error = error
    operation.resolved_at = timezone.now()
    operation.save(update_fields=["state", "error", "resolved_at"])
    if operation.kind == OperationKind.REFUND:
        _withdraw_refund(payment, operation, was_settled=False)
    else:
        save_totals(payment)


# --- what follows from it, by kind --------------------------------------------------------------------------


def _after_authorize(payment: Payment, operation: Operation, result: ChargeResult | RefundResult) -> None:
    assert isinstance(result, ChargeResult)
    attempt = operation.attempt
    attempt.gateway_reference = result.reference or attempt.gateway_reference
    payment.gateway_reference = attempt.gateway_reference
    payment.next_action = dict(result.next_action) if result.next_action else None
    _keep_card(payment, result)
    if operation.state == OperationState.SUCCEEDED:
        payment.state = PaymentState.REQUIRES_CAPTURE
        payment.authorization_expires_at = result.expires_at
        payment.last_error = None
        ledger.post_authorization(payment, operation.id, operation.money)
    elif operation.state == OperationState.PENDING:
        payment.state = PaymentState.REQUIRES_ACTION if result.next_action else PaymentState.PROCESSING
    else:
        attempt.state = AttemptState.DECLINED
        payment.state = PaymentState.REQUIRES_PAYMENT_METHOD
        payment.last_error = operation.error
    attempt.save(update_fields=["gateway_reference", "state"])
    save_totals(payment)
    if operation.is_final:
        is_authorized = operation.state == OperationState.SUCCEEDED
        record_event(payment, "payment.authorized" if is_authorized else "payment.declined")


def _after_capture(payment: Payment, operation: Operation, result: ChargeResult | RefundResult) -> None:
    if operation.state == OperationState.SUCCEEDED:
        capturable = payment.authorized - payment.captured
        released = Money(capturable, payment.currency)  # a final capture releases the rest
        ledger.post_capture(payment, operation.id, operation.money, released=released)
        Attempt.objects.filter(pk=operation.attempt_id).update(state=AttemptState.DONE)
        payment.state = PaymentState.SUCCEEDED
        payment.last_error = None
        save_totals(payment)
        record_event(payment, "payment.captured", operation=operation.describe())
    elif operation.is_final:
        payment.last_error = operation.error
        save_totals(payment)
        record_event(payment, "payment.capture_failed", operation=operation.describe())


def _after_void(payment: Payment, operation: Operation, result: ChargeResult | RefundResult) -> None:
    if operation.state != OperationState.SUCCEEDED:
        return
    if payment.authorized:
        ledger.post_release(
            payment, operation.id, Money(payment.authorized - payment.captured, payment.currency)
        )
    unfinished = payment.operations.filter(attempt=operation.attempt_id, kind="authorize").exclude(
        state__in=FINAL_OPERATION_STATES
    )
    unfinished.update(state=OperationState.FAILED, resolved_at=timezone.now())
    Attempt.objects.filter(pk=operation.attempt_id).update(state=AttemptState.VOIDED)
    payment.state = PaymentState.CANCELED
    payment.cancel_reason = payment.cancel_reason or operation.reason or "requested"
    payment.next_action = None
    payment.authorization_expires_at = None
    save_totals(payment)
    record_event(payment, "payment.voided", operation=operation.describe())


def _after_refund(payment: Payment, operation: Operation, result: ChargeResult | RefundResult) -> None:
    if operation.state in (OperationState.FAILED, OperationState.DECLINED, OperationState.REVERSED):
        _withdraw_refund(payment, operation, was_settled=operation.state == OperationState.REVERSED)
        return
    if operation.state == OperationState.SUCCEEDED:
        ledger.post_refund_settled(payment, operation.id, operation.money)
    save_totals(payment)
    is_settled = operation.state == OperationState.SUCCEEDED
    record_event(payment, "refund.succeeded" if is_settled else "refund.pending", refund=operation.describe())


def _withdraw_refund(payment: Payment, operation: Operation, *, was_settled: bool) -> None:
    ledger.post_refund_withdrawn(payment, operation.id, operation.money, was_settled=was_settled)
    if operation.source == OperationSource.COMPENSATION:  # the order is undone, and we keep its money
        payment.state = PaymentState.REQUIRES_REVIEW
        payment.last_error = operation.error or {"code": "refund_failed", "message": "The refund failed."}
    save_totals(payment)
    record_event(payment, "refund.failed", refund=operation.describe())
    if payment.state == PaymentState.REQUIRES_REVIEW:
        record_event(payment, "payment.requires_review", operation=operation.describe())


def book_refund(payment: Payment, operation: Operation) -> None:
    """A refund was asked for: reserved in the totals and owed in the books, before anything is sent."""
    ledger.post_refund_asked(payment, operation.id, operation.money)
    save_totals(payment)
    record_event(payment, "refund.created", refund=operation.describe(), actor=operation.requested_by)


_EFFECTS = {
    OperationKind.AUTHORIZE: _after_authorize,
    OperationKind.CAPTURE: _after_capture,
    OperationKind.VOID: _after_void,
    OperationKind.REFUND: _after_refund,
}


def _keep_card(payment: Payment, result: ChargeResult) -> None:
    if result.card is None:
        return
    payment.card = {name: value for name, value in result.card.to_dict().items() if name != "fingerprint"}
    if result.card.fingerprint:
        payment.card_fingerprint = keyed_hash(result.card.fingerprint, purpose="card")


# --- totals and events --------------------------------------------------------------------------------------

# Written by hand because every fact runs it: the ORM would compile the same five sums anew each time.
_SUMS = """
SELECT coalesce(sum(amount) FILTER (WHERE kind = 'authorize' AND state = 'succeeded'), 0)::bigint
        - coalesce(sum(amount) FILTER (WHERE kind = 'void' AND state = 'succeeded'), 0)::bigint,
    coalesce(sum(amount) FILTER (WHERE kind = 'capture' AND state = 'succeeded'), 0)::bigint,
    coalesce(sum(amount) FILTER (WHERE kind = 'refund' AND state = 'succeeded'), 0)::bigint,
    coalesce(sum(amount) FILTER (WHERE kind = 'refund'
        AND state IN ('created', 'sent', 'unknown', 'pending', 'requires_review')), 0)::bigint
FROM payments_operation WHERE payment_id = %s
"""


def save_totals(payment: Payment) -> None:
    """Compute the payment's totals from its operations, the only function that does, and save the payment."""
    sums = sql.fetch_one(_SUMS, [payment.pk])
    assert sums is not None, "an aggregate has one row"
    held, payment.captured, payment.refunded, payment.refund_pending = sums
    payment.authorized = max(held, 0)
    payment.updated_at = timezone.now()
    payment.save()


def record_event(
    payment: Payment, event_type: str, *, actor: str = "system", is_public: bool = True, **extra: object
) -> Event:
    """One outbox row with the order and its money as they are now."""
    data = {**describe_order(payment), **extra}
    return Event.objects.record(payment.order, event_type, data=data, actor=actor, is_public=is_public)


def describe_order(payment: Payment) -> dict[str, object]:
    """The part of every public event that says which order, and how its money stands (minor units)."""
    order = payment.order
    return {
        "order": {
            "id": order.id,
            "reference": order.reference,
            "state": order.state,
            "amount": order.amount,
            "currency": order.currency,
        },
        "payment": {
            "id": payment.id,
            "state": payment.state,
            "authorized": payment.authorized,
            "captured": payment.captured,
            "refunded": payment.refunded,
            "last_error": payment.last_error,
        },
    }


# --- what does not fit --------------------------------------------------------------------------------------


def _flag_mismatch(
    payment: Payment, operation: Operation, result: ChargeResult | RefundResult
) -> FactOutcome:
    """Another amount or currency than asked for (rule 4): nothing is booked, a person looks."""
    operation.state = OperationState.REQUIRES_REVIEW
    operation.gateway_reference = result.reference or operation.gateway_reference
    operation.error = {
        "code": "gateway_mismatch",
        "message": f"asked for {operation.money}, the gateway answered {result.amount}",
    }
    operation.save(update_fields=["state", "gateway_reference", "error"])
    if operation.kind == OperationKind.AUTHORIZE and result.reference:
        operation.attempt.gateway_reference = result.reference
        operation.attempt.save(update_fields=["gateway_reference"])
        payment.gateway_reference = result.reference
    return _hold(payment, operation)


def _flag_conflict(payment: Payment, operation: Operation, why: str) -> FactOutcome:
    log.error("gateway_fact_conflict", operation_id=operation.id, payment_id=payment.id, why=why)
    payment.last_error = {"code": "gateway_conflict", "message": f"{operation.kind} {operation.id} {why}"}
    return _hold(payment, operation)


def _hold(payment: Payment, operation: Operation) -> FactOutcome:
    if operation.error:
        payment.last_error = operation.error
    payment.state = PaymentState.REQUIRES_REVIEW
    save_totals(payment)
    record_event(payment, "payment.requires_review", operation=operation.describe())
    return FactOutcome.CONFLICT


# --- facts that come on their own ---------------------------------------------------------------------------


def find_operation(payment: Payment, fact: GatewayFact) -> Operation | None:
    """Ours by its id in the gateway's metadata, by the refund's reference, or the last one of its kind."""
    same_kind = payment.operations.select_related("attempt").filter(kind=fact.kind)
    by_id = same_kind.filter(pk=fact.operation_id).first() if fact.operation_id else None
    if by_id is not None:
        return by_id
    if fact.kind == OperationKind.REFUND:
        return same_kind.filter(gateway_reference=fact.result.reference).first()
    # A reference that we know names its attempt; only one that we never saw may be of the attempt under way.
    known = same_kind.filter(attempt__gateway_reference=fact.reference).order_by("id").last()
    return known or _find_unanswered(payment, same_kind, fact)


def _find_unanswered(payment: Payment, same_kind: QuerySet[Operation], fact: GatewayFact) -> Operation | None:
    if fact.reference and payment.attempts.filter(gateway_reference=fact.reference).exists():
        return None
    return same_kind.filter(attempt__gateway_reference="").order_by("id").last()


def adopt_operation(payment: Payment, fact: GatewayFact) -> Operation | None:
    """Something done at the gateway without us becomes an operation of ours; None when it cannot fit the payment."""
    attempt = payment.attempts.filter(gateway_reference=fact.reference or payment.gateway_reference).first()
    amount = fact.result.amount
    if attempt is None or amount.minor <= 0 or amount.currency != payment.currency:
        return None
    if not _fits(payment, fact):
        return None
    operation = Operation.objects.create(
        id=ids.new_id("re" if fact.kind == OperationKind.REFUND else "op"),
        payment=payment,
        attempt=attempt,
        account=payment.account,
        kind=fact.kind,
        state=OperationState.SENT,
        amount=amount.minor,
        currency=amount.currency,
        gateway_key=f"external:{fact.kind}:{fact.result.reference}",
        gateway_reference=fact.result.reference if fact.kind == OperationKind.REFUND else "",
        source=OperationSource.EXTERNAL,
        requested_by="gateway",
        created_at=timezone.now(),
    )
    if fact.kind == OperationKind.REFUND:
        book_refund(payment, operation)
    return operation


def _fits(payment: Payment, fact: GatewayFact) -> bool:
    amount = fact.result.amount.minor
    if fact.kind == OperationKind.REFUND:
        return fact.result.status != RefundStatus.FAILED and amount <= payment.refundable
    if fact.kind == OperationKind.CAPTURE:
        return fact.result.status == ChargeStatus.CAPTURED and amount <= payment.authorized - payment.captured
    if fact.kind == OperationKind.VOID:
        return fact.result.status == ChargeStatus.VOIDED and not payment.captured
    return False
