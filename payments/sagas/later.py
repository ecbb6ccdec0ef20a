"""What is done later with an authorized order: capture and ship it, cancel it, release a rest, undo what came late."""

from __future__ import annotations

from typing import Any

from payments import facts
from payments.models import Operation, PaymentState
from payments.models.order import OrderState
from payments.money import Money
from payments.sagas.checkout import say_paid
from payments.sagas.effects import Capture, Refund, ReleaseRest, VoidAuthorization
from payments.sagas.operations import reserve_refund
from payments.sagas.ports import CancelShipment, CreateShipment, ReleaseInventory
from payments.sagas.recipe import Context, Recipe, step


def say_canceled(context: Context) -> None:
    context.order.move_to(OrderState.CANCELED, cancel_reason=str(context.data.get("reason", ""))[:40])
    facts.record_event(context.payment, "order.canceled")


def say_not_done(context: Context, cause: dict[str, Any]) -> None:
    """The payment says why. What was captured stays captured, and a refund is somebody's decision."""
    context.payment.last_error = {name: cause.get(name) for name in ("code", "message")}
    context.payment.save(update_fields=["last_error"])
    facts.record_event(context.payment, "payment.operation_failed", is_public=False)
    if context.payment.captured:
        say_paid(context)


class RefundAll(Refund):
    """Gives back whatever was captured of an order that is dead."""

    def begin(self, context: Context) -> Operation | None:
        payment = context.payment
        if payment.refundable <= 0:
            return None
        money = Money(payment.refundable, payment.currency)
        return reserve_refund(payment, money, reason="late_success", source="compensation")


def say_late_undone(context: Context) -> None:
    """The storefront was told that the order is dead, and it is: whatever came late is on its way back."""
    payment = context.payment
    if not payment.captured and payment.state == PaymentState.REQUIRES_REVIEW:
        payment.state = PaymentState.CANCELED
        payment.save(update_fields=["state"])
    facts.record_event(payment, "payment.late_success_undone")


_CAPTURE = step("capture", do=Capture())  # from here only forward: a refund is a decision of its own
_SHIP = step("ship", do=CreateShipment(), undo=CancelShipment())

CAPTURE = Recipe(
    kind="capture",
    version=2,
    steps=[_CAPTURE, step("release_rest", do=ReleaseRest()), _SHIP],
    completed=say_paid,
    compensated=say_not_done,
)
# Runs that began before gateways kept the rest of a hold.
CAPTURE_1 = Recipe("capture", 1, [_CAPTURE, _SHIP], completed=say_paid, compensated=say_not_done)

CANCEL = Recipe(
    kind="cancel",
    version=1,
    steps=[
        step("void", do=VoidAuthorization()),
        step("release", do=ReleaseInventory()),
    ],
    completed=say_canceled,
    compensated=say_not_done,
)

RELEASE = Recipe(
    kind="release",
    version=1,
    steps=[step("void", do=VoidAuthorization())],
    completed=say_paid,  # what was captured stays
    compensated=say_not_done,
)

UNDO_LATE = Recipe(
    kind="undo_late",
    version=1,
    steps=[
        step("void", do=VoidAuthorization()),
        step("refund", do=RefundAll()),
    ],
    completed=say_late_undone,
    compensated=say_not_done,
)
