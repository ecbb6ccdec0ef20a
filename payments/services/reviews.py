"""The analyst's word on an order in review: its saga goes on, or walks back."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from payments.errors import ConflictError
from payments.models import Order, OrderState, SagaState
from payments.sagas import engine
from payments.sagas.checkout import CHECKOUT
from payments.sagas.registry import find_recipe
from payments.services.orders import find_order


def release_review(order_id: str, *, actor: str, is_driven: bool = True) -> Order:
    """Approve an order in review: its saga goes on to the capture after the commit. Raises `ConflictError`.

    Not driven, it is left to the workers: for who decides many, and must not wait for a gateway each time.
    """
    return _end_review(order_id, {"decision": "approve", "actor": actor}, is_driven=is_driven)


def reject_review(order_id: str, *, actor: str, reason: str, is_driven: bool = True) -> Order:
    """Reject an order in review: its saga walks back and voids. As `release_review`."""
    payload = {"decision": "reject", "actor": actor, "reason": reason}
    return _end_review(order_id, payload, is_driven=is_driven)


def _end_review(order_id: str, payload: dict[str, Any], *, is_driven: bool) -> Order:
    with transaction.atomic():
        order = Order.objects.locked(order_id)
        run = order.sagas.filter(kind=CHECKOUT.kind, state=SagaState.WAITING, waiting_for="review").first()
        if order.state != OrderState.REVIEW or run is None:
            raise ConflictError(
                f"Order {order.reference} is {order.get_state_display()}, not in review; nothing was changed."
            )
        if not engine.send_signal(run.pk, "review", dedupe_id="decision", payload=payload):
            raise ConflictError(f"Order {order.reference} was decided already; nothing was changed.")
        run_id = run.pk

        def drive() -> None:
            engine.drive_run(run_id, find_recipe)

        if is_driven:
            transaction.on_commit(drive, robust=True)
    return find_order(order_id)
