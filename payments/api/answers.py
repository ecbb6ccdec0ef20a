"""Which HTTP status says what became of an order, and which outcomes are problems."""

from __future__ import annotations

from django.db.models import Q
from django.db.models.functions import Now

from payments.api.projections import render_order, render_refund, select_public_error
from payments.api.replay import Answer
from payments.errors import (
    CardDeclinedError,
    ConflictError,
    FraudBlockedError,
    OutOfStockError,
    PaymentError,
    ShipmentRefusedError,
)
from payments.models import Operation, OperationState, Order, OrderState, PaymentState, SagaState
from payments.models.saga import DRIVEN_STATES
from payments.sagas.refund import REFUND

_OPEN = (OrderState.PLACED, OrderState.PROCESSING, OrderState.AWAITING_CUSTOMER, OrderState.REVIEW)
_CAPTURED_WHEN_YOU_SAY_SO = (PaymentState.REQUIRES_CAPTURE, PaymentState.PARTIALLY_CAPTURED)
# Working now or due at once; a saga that waits for somebody is neither.
_IN_MOTION = Q(state__in=[state for state in DRIVEN_STATES if state != SagaState.WAITING]) | Q(
    state=SagaState.WAITING, wake_at__lte=Now()
)


class OrderCanceledError(ConflictError):
    """The order was undone before it was paid."""

    code = "order_canceled"
    title = "The order was canceled"


class OrderExpiredError(ConflictError):
    """The customer or the reviewer did not act in time."""

    code = "order_expired"
    title = "The order has expired"


_UNDONE: dict[str, type[PaymentError]] = {
    error.code: error
    for error in (OutOfStockError, ShipmentRefusedError, OrderCanceledError, OrderExpiredError)
}


def answer_new_order(order: Order) -> Answer:
    """201 with the order, 202 while it is not decided. Raises what the order was refused for."""
    _raise_refusal(order)
    if order.state in (OrderState.CANCELED, OrderState.EXPIRED):
        raise _describe_undone(order)
    return Answer(202 if _is_undecided(order) else 201, render_order(order))


def answer_change(order: Order) -> Answer:
    """200 with the order, 202 while it is not decided. Raises the decline, if there was one."""
    _raise_refusal(order)
    is_moving = order.state in _OPEN and order.sagas.exclude(kind=REFUND.kind).filter(_IN_MOTION).exists()
    return Answer(202 if is_moving or _is_undecided(order) else 200, render_order(order))


def answer_refund(refund: Operation) -> Answer:
    """201 with the refund, 202 while nobody knows whether the gateway has it."""
    undecided = refund.state in (OperationState.CREATED, OperationState.SENT, OperationState.UNKNOWN)
    return Answer(202 if undecided else 201, render_refund(refund))


def _is_undecided(order: Order) -> bool:
    if order.state == OrderState.PROCESSING:
        return order.payment.state not in _CAPTURED_WHEN_YOU_SAY_SO
    return order.state in (OrderState.PLACED, OrderState.REVIEW)


def _raise_refusal(order: Order) -> None:
    if order.state == OrderState.BLOCKED:
        raise FraudBlockedError("The order was refused. The card was not charged.", order=order.pk)
    if order.state == OrderState.DECLINED:
        reason = select_public_error(order.payment.last_error) or {}
        message = reason.pop("message", "") or "The card was declined. Ask for another payment method."
        reason.pop("code", None)
        raise CardDeclinedError(message, order=order.pk, **reason)


def _describe_undone(order: Order) -> PaymentError:
    expired = order.state == OrderState.EXPIRED
    kind = OrderExpiredError if expired else _UNDONE.get(order.cancel_reason, OrderCanceledError)
    return kind("The order was undone; nothing stays charged.", order=order.pk)
