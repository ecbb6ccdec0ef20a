"""The one function through which every answer about an operation enters: it moves forward, or says why not."""

from __future__ import annotations

from enum import StrEnum

import structlog
from django.utils import timezone

from payments import ledger
from payments.cards_on_file import save_payment_method
from payments.encryption import keyed_hash
from payments.facts.inquiries import QUESTION_FIELDS, schedule_question
from payments.facts.totals import record_event, save_totals
from payments.gateways.base import ChargeResult, ChargeStatus, Decline, RefundResult, RefundStatus
from payments.kinds import OperationKind
from payments.models import (
    Attempt,
    AttemptState,
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


# Errors of operations that failed by our own judgement, which the gateway may still contradict.
GIVEN_UP_CODES = frozenset({"absent", "not_sent"})
# The error of an authorization that the gateway itself calls voided: that it was authorized before is no news.
VOIDED_CODE = "voided"

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
    target = _find_target(operation, result)
    if target is None:
        return FactOutcome.NOOP  # e.g. "still authorized", said of a capture that is on its way
    if operation.state == target or _RANK[OperationState(operation.state)] > _RANK[target]:
        if operation.kind == OperationKind.AUTHORIZE and operation.state == target:
            _complete_authorization(payment, operation, result)
        return FactOutcome.NOOP
    if _is_old_news(operation, target):
        return FactOutcome.NOOP
    if _had_succeeded(operation, target, result):
        operation.state = OperationState.REVERSED  # both bookings together are none
        operation.save(update_fields=["state"])
        return FactOutcome.APPLIED
    if operation.is_final and not _may_move(payment, operation, target):
        return _flag_conflict(
            payment, operation, f"is {operation.state}, and the gateway now says {result.status}"
        )
    must_match = target == OperationState.SUCCEEDED and operation.kind != OperationKind.VOID
    if must_match and _stated_amount(payment, result) != operation.money:
        return _flag_mismatch(payment, operation, result)
    was_given_up = operation.state == OperationState.FAILED
    _move(operation, target, result)
    if was_given_up and operation.kind == OperationKind.REFUND:
        book_refund(payment, operation, again=True)
    _EFFECTS[OperationKind(operation.kind)](payment, operation, result)
    return FactOutcome.APPLIED


def _find_target(operation: Operation, result: ChargeResult | RefundResult) -> OperationState | None:
    """What the answer makes of the operation; what had succeeded and has failed after all is reversed."""
    target = _TARGET.get((operation.kind, result.status)) or _ANY_KIND.get(result.status)
    is_reversal = operation.state == OperationState.SUCCEEDED and result.status == "failed"
    if is_reversal and operation.kind in (OperationKind.CAPTURE, OperationKind.REFUND):
        return OperationState.REVERSED
    return target


def _is_old_news(operation: Operation, target: OperationState) -> bool:
    """An authorization that is told of after its own void, which closed it: it came late, and holds nothing."""
    is_late = (
        operation.kind == OperationKind.AUTHORIZE
        and operation.state == OperationState.FAILED
        and target == OperationState.SUCCEEDED
    )
    if not is_late or (operation.error or {}).get("code") == VOIDED_CODE:
        return is_late
    voids = operation.attempt.operations.filter(kind=OperationKind.VOID, state="succeeded")
    return operation.attempt.state == AttemptState.VOIDED and voids.exists()


def _had_succeeded(operation: Operation, target: OperationState, result: ChargeResult | RefundResult) -> bool:
    """A refund's success that is told of after its failure: no gateway pays one that has failed, so it is older."""
    was_told = operation.state == OperationState.FAILED and operation.gateway_reference == result.reference
    was_given_up = (operation.error or {}).get("code") in GIVEN_UP_CODES
    is_refund = operation.kind == OperationKind.REFUND and target == OperationState.SUCCEEDED
    return is_refund and was_told and not was_given_up


def _may_move(payment: Payment, operation: Operation, target: OperationState) -> bool:
    """Whether a final operation may still move: reversed by the gateway, or done late after we gave it up."""
    if target == OperationState.REVERSED:
        is_free = operation.kind == OperationKind.REFUND or operation.amount <= payment.refundable
        return operation.state == OperationState.SUCCEEDED and is_free
    was_given_up = (operation.error or {}).get("code") in GIVEN_UP_CODES
    if operation.state != OperationState.FAILED or target != OperationState.SUCCEEDED or not was_given_up:
        return False
    if operation.kind == OperationKind.REFUND:
        return operation.amount <= payment.returnable
    return operation.kind == OperationKind.AUTHORIZE or operation.amount <= payment.capturable


def _stated_amount(payment: Payment, result: ChargeResult | RefundResult) -> Money:
    """What the gateway says of this operation alone, where it states the sum of several captures."""
    total = result.total_captured if isinstance(result, ChargeResult) else None
    if total is None or total != result.amount or not payment.captured or total.currency != payment.currency:
        return result.amount
    return total - Money(payment.captured, payment.currency)


def _move(operation: Operation, target: OperationState, result: ChargeResult | RefundResult) -> None:
    decline = result.decline if isinstance(result, ChargeResult) else result.failure
    operation.state = target
    operation.gateway_reference = _own_reference(result) or operation.gateway_reference
    operation.error = _error_of(decline)
    if result.status == ChargeStatus.VOIDED and target == OperationState.FAILED:
        operation.error = {"code": VOIDED_CODE, "message": "The gateway says that it was voided."}
    schedule_question(operation)
    operation.save(update_fields=["state", "gateway_reference", "error", *QUESTION_FIELDS])


def _own_reference(result: ChargeResult | RefundResult) -> str:
    own = result.own_reference if isinstance(result, ChargeResult) else ""
    return own or result.reference


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
    schedule_question(operation)
    operation.save(update_fields=["state", "error", *QUESTION_FIELDS])
    if operation.kind == OperationKind.REFUND:
        _withdraw_refund(payment, operation, was_settled=False)
    else:
        save_totals(payment)


# --- what follows from it, by kind --------------------------------------------------------------------------


def _after_authorize(payment: Payment, operation: Operation, result: ChargeResult | RefundResult) -> None:
    assert isinstance(result, ChargeResult)
    attempt = operation.attempt
    attempt.gateway_reference = result.reference or attempt.gateway_reference
    if attempt.state != AttemptState.LIVE:
        _keep_late_hold(payment, operation)
        return
    payment.gateway_reference = attempt.gateway_reference
    payment.next_action = dict(result.next_action) if result.next_action else None
    _keep_card(payment, result)
    if operation.state == OperationState.SUCCEEDED:
        payment.state = PaymentState.REQUIRES_CAPTURE
        payment.authorization_expires_at, payment.hold_warned_at = result.expires_at, None
        payment.last_error = None
        if payment.save_method and result.saved:
            payment.saved_method = save_payment_method(payment, result.saved, result.card)
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


def _complete_authorization(
    payment: Payment, operation: Operation, result: ChargeResult | RefundResult
) -> None:
    """What the first word of an authorization left out: a webhook may name no card, and come before the answer."""
    assert isinstance(result, ChargeResult)
    if operation.state != OperationState.SUCCEEDED or result.reference != payment.gateway_reference:
        return
    known = _list_completable(payment)
    if not payment.card:
        _keep_card(payment, result)
    if payment.capturable and payment.authorization_expires_at is None:
        payment.authorization_expires_at = result.expires_at
    if payment.save_method and result.saved and payment.saved_method is None:
        payment.saved_method = save_payment_method(payment, result.saved, result.card)
    if _list_completable(payment) != known:
        payment.save(update_fields=["card", "card_fingerprint", "authorization_expires_at", "saved_method"])


def _list_completable(payment: Payment) -> tuple[object, ...]:
    return payment.card, payment.authorization_expires_at, payment.saved_method


def _keep_late_hold(payment: Payment, operation: Operation) -> None:
    """The attempt had been given up: the hold is booked, and somebody has to release it (`services` does)."""
    attempt = operation.attempt
    if operation.state == OperationState.SUCCEEDED:
        attempt.state = AttemptState.LATE
        ledger.post_authorization(payment, operation.id, operation.money)
    attempt.save(update_fields=["gateway_reference", "state"])
    save_totals(payment)
    if operation.state == OperationState.SUCCEEDED:
        record_event(payment, "payment.authorized_late", is_public=False, operation=operation.describe())


def _after_capture(payment: Payment, operation: Operation, result: ChargeResult | RefundResult) -> None:
    if operation.state == OperationState.SUCCEEDED:
        _book_capture(payment, operation)
    elif operation.state == OperationState.REVERSED:
        ledger.post_capture_reversed(payment, operation.id, operation.money)
        payment.state = PaymentState.REQUIRES_REVIEW  # perhaps the goods are gone
        payment.last_error = operation.error or {"code": "capture_reversed", "message": "The capture failed."}
        save_totals(payment)
        record_event(payment, "payment.capture_failed", operation=operation.describe())
    elif operation.is_final:
        payment.last_error = operation.error
        save_totals(payment)
        record_event(payment, "payment.capture_failed", operation=operation.describe())


def _book_capture(payment: Payment, operation: Operation) -> None:
    """A final capture releases the rest of the hold; any other leaves it for the next one."""
    left = payment.capturable - operation.amount
    is_last = operation.releases_rest or left <= 0
    released = Money(payment.capturable if is_last else operation.amount, payment.currency)
    ledger.post_capture(payment, operation.id, operation.money, released=released)
    if is_last:
        Attempt.objects.filter(pk=operation.attempt_id).update(state=AttemptState.DONE)
    payment.state = PaymentState.SUCCEEDED if is_last else PaymentState.PARTIALLY_CAPTURED
    payment.last_error = None
    save_totals(payment)
    record_event(payment, "payment.captured", operation=operation.describe())


def _after_void(payment: Payment, operation: Operation, result: ChargeResult | RefundResult) -> None:
    if operation.state != OperationState.SUCCEEDED:
        if operation.is_final:
            record_event(payment, "payment.void_failed", is_public=False, operation=operation.describe())
        return
    held, captured = operation.attempt.count_hold()
    if held > captured:
        ledger.post_release(payment, operation.id, Money(held - captured, payment.currency))
    unfinished = payment.operations.filter(attempt=operation.attempt_id, kind="authorize").exclude(
        state__in=FINAL_OPERATION_STATES
    )
    unfinished.update(state=OperationState.FAILED, resolved_at=timezone.now(), next_ask_at=None)
    attempt_state = AttemptState.DONE if captured else AttemptState.VOIDED
    Attempt.objects.filter(pk=operation.attempt_id).update(state=attempt_state)
    if captured:
        payment.state = PaymentState.SUCCEEDED
        payment.authorization_expires_at = None
    elif not payment.captured and not payment.attempts.filter(state=AttemptState.LIVE).exists():
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


def book_refund(payment: Payment, operation: Operation, *, again: bool = False) -> None:
    """A refund was asked for: reserved in the totals and owed in the books, before anything is sent.

    `again`: its reservation was released when it was given up.
    """
    ledger.post_refund_asked(payment, operation.id, operation.money, again=again)
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


# --- what does not fit --------------------------------------------------------------------------------------


def _flag_mismatch(
    payment: Payment, operation: Operation, result: ChargeResult | RefundResult
) -> FactOutcome:
    """Another amount or currency than asked for (rule 4): nothing is booked, a person looks."""
    operation.state = OperationState.REQUIRES_REVIEW
    operation.gateway_reference = _own_reference(result) or operation.gateway_reference
    operation.error = {
        "code": "gateway_mismatch",
        "message": f"asked for {operation.money}, the gateway answered {result.amount}",
    }
    schedule_question(operation)
    operation.save(update_fields=["state", "gateway_reference", "error", *QUESTION_FIELDS])
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
