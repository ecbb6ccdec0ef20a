"""Inventory and shipping as saga actions: local when their backend shares our database, effects when it does not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from payments.errors import PaymentError
from payments.fulfilment import get_inventory, get_shipping
from payments.models import SagaEffect
from payments.sagas.recipe import Again, Context, Done, EffectRow, Fail, Outcome, Result

TRIES = 6


class PortAction:
    """One idempotent call of a port, keyed by the run, so that a repetition is harmless."""

    joins_transaction: bool

    def perform(self, context: Context, key: str) -> Any:
        raise NotImplementedError

    def run(self, context: Context) -> Result:
        self.perform(context, _key(context))
        return Done()

    def intend(self, context: Context) -> EffectRow:
        direction = SagaEffect.Direction.UNDO if context.is_undoing else SagaEffect.Direction.DO
        return EffectRow(context.step, direction, reference=_key(context))

    def call(self, context: Context) -> Any:
        return self.perform(context, _key(context))

    def ask(self, context: Context) -> None:
        """Ports cannot be asked; they are idempotent by key instead."""

    def may_call_again(self, context: Context) -> bool:
        return True

    def record(self, context: Context, answer: Any) -> Result:
        if not isinstance(answer, PaymentError):
            return Done()
        is_wire = answer.retriable or answer.status == 504
        if is_wire and (context.attempts < TRIES or context.is_undoing):
            return Again(timedelta(seconds=5), answer, in_doubt=True)
        return Fail(answer, Outcome.UNKNOWN if is_wire else Outcome.ABSENT)


class ReserveInventory(PortAction):
    @property
    def joins_transaction(self) -> bool:  # type: ignore[override]
        return get_inventory().joins_transaction

    def perform(self, context: Context, key: str) -> str:
        return get_inventory().reserve(context.order, key=key)


class ReleaseInventory(ReserveInventory):
    def perform(self, context: Context, key: str) -> str:
        get_inventory().release(context.order, key=key)
        return key


class CreateShipment(PortAction):
    """Sends the goods, once the money is captured."""

    @property
    def joins_transaction(self) -> bool:  # type: ignore[override]
        return get_shipping().joins_transaction

    def perform(self, context: Context, key: str) -> str:
        return get_shipping().create_shipment(context.order, key=key) if context.payment.captured else ""


class CancelShipment(CreateShipment):
    def perform(self, context: Context, key: str) -> str:
        get_shipping().cancel_shipment(context.order, key=key)
        return key


def _key(context: Context) -> str:
    # A saga that continues another one's work keeps its key, to release what that one reserved.
    return str(context.data.get("port_key") or context.run_id)
