"""What may be done to an order's money now, and doing it: capture, cancel, refund."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from django.db import transaction

from payments import idempotency
from payments.errors import AmountTooLargeError, BusyError, ConflictError, InvalidRequestError, PaymentError
from payments.kinds import OperationKind
from payments.models import Operation, OperationSource, OperationState, Order, OrderState, Payment, SagaState
from payments.models.order import CaptureMethod
from payments.money import Money
from payments.redaction import redact
from payments.sagas import engine
from payments.sagas.checkout import CHECKOUT
from payments.sagas.effects import find_capabilities
from payments.sagas.later import CANCEL, CAPTURE, RELEASE
from payments.sagas.operations import (
    captures_with_rest,
    find_refundable_capture,
    pick_capture,
    reserve_refund,
)
from payments.sagas.refund import REFUND
from payments.sagas.registry import find_recipe
from payments.services.doubts import resolve_unknown
from payments.services.gateway_facts import checkout_run
from payments.services.orders import attach_key, drive_order, find_order

log = structlog.get_logger(__name__)


def capture_order(
    order: Order,
    *,
    amount: int | None,
    actor: str,
    final: bool = True,
    key: idempotency.Claim | None = None,
    drive: bool = True,
) -> Order:
    """Capture an authorized order (minor units; all that is left by default); `final` releases the rest.

    Raises `ConflictError` when there is nothing to capture, or an earlier operation is in doubt and the gateway
    does not say; `AmountTooLargeError` beyond what is left of the hold; `InvalidRequestError` for a part that is to
    be followed by others at a gateway that captures once.
    """
    settle_doubts(order, actor=actor)
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(order.pk)
        _check(legal_actions(payment.order, payment), "capture")
        wanted = payment.capturable if amount is None else amount
        if not 0 < wanted <= payment.capturable:
            _refuse_amount(wanted, payment.capturable, payment.currency, "capture")
        _check_capabilities(payment, wanted, final)
        attach_key(key, order.pk)
        data = {
            "amount": wanted,
            "final": final,
            "actor": actor,
            "source": _source(actor),
            "port_key": checkout_run(payment.order),
        }
        runner = engine.start_run(CAPTURE, subject=order.pk, order=payment.order, payment=payment, data=data)
    return drive_order(runner, order.pk, drive)


def _check_capabilities(payment: Payment, wanted: int, final: bool) -> None:
    capabilities = find_capabilities(payment.account)
    is_part = wanted < payment.capturable
    if is_part and not final and not capabilities.several_captures:
        raise InvalidRequestError(
            f"{payment.account} captures an authorization once: send final=true; nothing was captured.",
            pointer="/final",
        )
    if is_part and not capabilities.partial_capture:
        raise InvalidRequestError(
            f"{payment.account} captures the whole amount only; nothing was captured.", pointer="/amount"
        )


def cancel_order(
    order: Order, *, reason: str, actor: str, key: idempotency.Claim | None = None, drive: bool = True
) -> Order:
    """Cancel what is not captured: the authorization is voided and the stock released.

    After a part was captured, only the rest of the hold is released and the order stays paid.
    Raises `ConflictError` when there is nothing to cancel, `BusyError` while the order is worked on.
    """
    settle_doubts(order, actor=actor)
    cause = ConflictError("The order was canceled.", reason=reason or "requested", actor=actor)
    waiting = order.sagas.filter(kind=CHECKOUT.kind, state=SagaState.WAITING).first()
    if waiting is not None:
        if not engine.compensate_run(waiting.pk, cause, find_recipe, drive=drive):
            raise BusyError(
                f"Order {order.id} is being worked on at this moment; nothing was canceled. Try again."
            )
        return find_order(order.pk)
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(order.pk)
        _check(legal_actions(payment.order, payment), "cancel")
        attach_key(key, order.pk)
        data = {"reason": reason or "requested", "actor": actor, "source": _source(actor)}
        data["port_key"] = checkout_run(payment.order)
        recipe = RELEASE if payment.captured else CANCEL
        runner = engine.start_run(recipe, subject=order.pk, order=payment.order, payment=payment, data=data)
    return drive_order(runner, order.pk, drive)


def refund_order(
    order: Order,
    *,
    amount: int | None,
    reason: str,
    note: str = "",
    actor: str,
    capture: str = "",
    key: idempotency.Claim | None = None,
    drive: bool = True,
) -> Operation:
    """Refund a part or, by default, all that is left (minor units), reserved under the payment's lock.

    `capture` is the operation that it gives back; by default the first with enough left.
    Raises `ConflictError` when nothing is captured, `AmountTooLargeError` beyond what is left.
    """
    settle_doubts(order, actor=actor)
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(order.pk)
        _check(legal_actions(payment.order, payment), "refund")
        wanted = payment.refundable if amount is None else amount
        if not 0 < wanted <= payment.refundable:
            _refuse_amount(wanted, payment.refundable, payment.currency, "refund")
        operation = reserve_refund(
            payment,
            Money(wanted, payment.currency),
            capture=_choose_capture(payment, capture, wanted),
            reason=reason,
            note=redact(note),
            source=_source(actor),
            requested_by=actor,
        )
        attach_key(key, operation.id)
        runner = engine.start_run(
            REFUND,
            subject=operation.id,
            order=payment.order,
            payment=payment,
            data={"operation": operation.id},
        )
    if drive:
        runner.drive()
    else:
        runner.release()
    return Operation.objects.select_related("payment__order").get(pk=operation.pk)


def refundable_captures(payment: Payment) -> list[tuple[Operation, int]]:
    """Each capture with the minor units of it that may still be refunded; empty where there can be only one."""
    is_single = payment.capture_method == CaptureMethod.AUTOMATIC or not payment.captured
    return [] if is_single else captures_with_rest(payment)


def _choose_capture(payment: Payment, capture_id: str, wanted: int) -> Operation | None:
    """Raises `AmountTooLargeError` when no single capture has so much left and the gateway refunds one at a time."""
    if capture_id:
        return pick_capture(payment, capture_id, wanted)
    found = find_refundable_capture(payment, wanted)
    if found is None and find_capabilities(payment.account).refunds_per_capture:
        rests = [(capture.pk, left) for capture, left in captures_with_rest(payment)]
        largest = max((left for _, left in rests), default=0)
        parts = ", ".join(f"{name}: {Money(left, payment.currency)}" for name, left in rests)
        raise AmountTooLargeError(
            f"{payment.account} refunds one capture at a time, and none has so much left ({parts}); "
            "nothing was changed.",
            left=largest,
            pointer="/amount",
        )
    return found


def settle_doubts(order: Order, *, actor: str) -> None:
    """Ask for every operation of the order that nobody is sure of, before another one is begun.

    Raises `ConflictError` while a capture or a void stays in doubt. A refund in doubt is reserved, and in nobody's
    way. A gateway that does not answer is a doubt that stays.
    """
    for operation in Operation.objects.doubtful().filter(payment__order=order):
        try:
            operation = resolve_unknown(operation, actor=actor)
        except PaymentError as error:
            log.info("doubt_stays", operation_id=operation.id, error=error.code)
        if operation.state == OperationState.UNKNOWN and operation.kind != OperationKind.REFUND:
            raise ConflictError(
                f"{operation.kind.capitalize()} {operation.id} is in doubt: the gateway does not say what became "
                "of it. Nothing was changed.",
                operation=operation.id,
            )


def _source(actor: str) -> str:
    if actor == "system":
        return OperationSource.SAGA
    return OperationSource.OPERATOR if actor.startswith("user:") else OperationSource.API


def _refuse_amount(wanted: int, left: int, currency: str, what: str) -> None:
    if wanted <= 0:
        raise InvalidRequestError(
            f"The amount to {what} must be positive; nothing was changed.", pointer="/amount"
        )
    text = f"{Money(wanted, currency)} is more than the {Money(left, currency)} left to {what}; nothing was changed."
    raise AmountTooLargeError(text, left=left, pointer="/amount")


# --- what may be done now -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LegalAction:
    """One thing that an operator may do to an order now, or the reason why not."""

    name: str
    label: str
    is_allowed: bool
    why_not: str = ""
    amount_left: int = 0


def legal_actions(order: Order, payment: Payment | None = None) -> list[LegalAction]:
    """Capture, cancel and refund with the minor units left, decided by one function for the API and the admin."""
    payment = payment or order.payment
    is_busy = order.sagas.live().exclude(kind=REFUND.kind).exists()
    left = payment.capturable
    cancel = "Release the rest" if payment.captured else "Cancel"
    return [
        _action("capture", "Capture", left, _why_not_capture(payment, is_busy)),
        _action("cancel", cancel, left, _why_not_cancel(order, payment, is_busy)),
        _action("refund", "Refund", payment.refundable, _why_not_refund(payment)),
    ]


def _action(name: str, label: str, left: int, why_not: str) -> LegalAction:
    return LegalAction(name, label, is_allowed=not why_not, why_not=why_not, amount_left=left)


def _why_not_capture(payment: Payment, is_busy: bool) -> str:
    if payment.captured and not payment.capturable:
        return "The payment is captured already."
    if not payment.capturable:
        return "Nothing is authorized."
    if is_busy:
        return "A saga of this order is running or waiting."
    return ""


def _why_not_cancel(order: Order, payment: Payment, is_busy: bool) -> str:
    if payment.captured and not payment.capturable:
        return "The payment is captured: refund it instead."
    if order.state in (OrderState.AWAITING_CUSTOMER, OrderState.REVIEW):
        return ""
    if not payment.capturable:
        return "Nothing is authorized."
    return "A saga of this order is running." if is_busy else ""


def _why_not_refund(payment: Payment) -> str:
    if not payment.captured:
        return "Nothing is captured."
    if payment.refundable > 0:
        return ""
    return (
        "The rest is disputed: the bank has taken it." if payment.disputed else "Nothing is left to refund."
    )


def _check(actions: Sequence[LegalAction], name: str) -> None:
    action = next(action for action in actions if action.name == name)
    if not action.is_allowed:
        raise ConflictError(f"Cannot {name}: {action.why_not} Nothing was changed.", action=name)
