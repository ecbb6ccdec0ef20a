"""What a storefront does later with an authorized order: capture and ship it, or cancel it."""

from __future__ import annotations

from typing import Any

from payments import facts
from payments.models.order import OrderState
from payments.sagas.checkout import say_paid
from payments.sagas.effects import Capture, VoidAuthorization
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


CAPTURE = Recipe(
    kind="capture",
    version=1,
    steps=[
        step("capture", do=Capture()),  # from here only forward: a refund is a decision of its own
        step("ship", do=CreateShipment(), undo=CancelShipment()),
    ],
    completed=say_paid,
    compensated=say_not_done,
)

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
