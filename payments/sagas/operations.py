"""Makes the rows of operations: committed before the call, each with its own gateway key for ever."""

from __future__ import annotations

from typing import Any

from django.db.models import Sum
from django.utils import timezone

from payments import facts, ids
from payments.errors import AmountTooLargeError, InvalidRequestError
from payments.kinds import OperationKind
from payments.models import Attempt, Operation, OperationSource, OperationState, Payment
from payments.money import Money
from payments.sagas.recipe import Context

_GIVEN_UP = (OperationState.FAILED, OperationState.DECLINED, OperationState.REVERSED)


def create_operation(
    payment: Payment,
    attempt: Attempt,
    kind: OperationKind,
    amount: Money,
    *,
    state: str = OperationState.SENT,
    source: str = OperationSource.SAGA,
    **details: Any,
) -> Operation:
    """The row that exists before the call; its id is its gateway key, so the key can never change."""
    operation_id = ids.new_id("re" if kind == OperationKind.REFUND else "op")
    return Operation.objects.create(
        id=operation_id,
        payment=payment,
        attempt=attempt,
        account_id=attempt.account_id,
        kind=kind,
        state=state,
        amount=amount.minor,
        currency=amount.currency,
        gateway_key=operation_id,
        source=source,
        created_at=timezone.now(),
        **{"requested_by": "system", **details},
    )


def reserve_refund(
    payment: Payment, amount: Money, *, source: str, capture: Operation | None = None, **details: Any
) -> Operation:
    """The refund's row, reserved against what is left; the payment must be locked. Its money is booked as owed.

    `capture` is the one that it gives back; by default the first that has so much left, or none in particular.
    """
    capture = capture or find_refundable_capture(payment, amount.minor)
    attempt = capture.attempt if capture else payment.attempts.filter(operations__kind="capture").last()
    assert attempt is not None, "nothing was captured"
    operation = create_operation(
        payment,
        attempt,
        OperationKind.REFUND,
        amount,
        source=source,
        capture=capture,
        state=OperationState.CREATED,
        **details,
    )
    facts.book_refund(payment, operation)
    return operation


def captures_with_rest(payment: Payment) -> list[tuple[Operation, int]]:
    """The payment's captures, oldest first, each with the minor units of it that may still be refunded."""
    refunds = payment.operations.filter(kind=OperationKind.REFUND, capture__isnull=False)
    given = dict(refunds.exclude(state__in=_GIVEN_UP).values_list("capture").annotate(Sum("amount")))
    captures = payment.operations.filter(kind=OperationKind.CAPTURE, state=OperationState.SUCCEEDED)
    found = captures.select_related("attempt", "account").order_by("id")
    return [(capture, capture.amount - given.get(capture.pk, 0)) for capture in found]


def find_refundable_capture(payment: Payment, amount: int) -> Operation | None:
    """The first capture with so much left to refund; None when none has, and only their sum may suffice."""
    return next((capture for capture, left in captures_with_rest(payment) if left >= amount), None)


def pick_capture(payment: Payment, capture_id: str, amount: int) -> Operation:
    """The capture that a refund names. Raises `AmountTooLargeError` when less of it is left, `InvalidRequestError`
    when it is none of the payment's.
    """
    for capture, left in captures_with_rest(payment):
        if capture.pk == capture_id and left >= amount:
            return capture
        if capture.pk == capture_id:
            text = f"{Money(left, payment.currency)} of capture {capture_id} is left to refund; nothing was changed."
            raise AmountTooLargeError(text, left=left, pointer="/amount")
    raise InvalidRequestError(
        f"The payment has no capture {capture_id[:40]!r} to refund; nothing was changed.", pointer="/capture"
    )


def requester(context: Context) -> dict[str, str]:
    """Who wanted the operation, as its row keeps it."""
    if context.is_undoing:
        return {"source": OperationSource.COMPENSATION}
    kept = {name: str(context.data[name]) for name in ("reason", "note") if context.data.get(name)}
    return {
        **kept,
        "source": str(context.data.get("source", OperationSource.SAGA)),
        "requested_by": str(context.data.get("actor", "system")),
    }
