"""The ports to whoever keeps the stock and sends the parcels."""

from __future__ import annotations

from typing import Protocol

from payments.models import Order


class Inventory(Protocol):
    """Holds stock for an order. Both calls are idempotent by `key`.

    `joins_transaction` says that the backend lives in our own database and takes part in the saga's transaction;
    otherwise the engine treats each call as a call over the wire.
    """

    joins_transaction: bool

    def reserve(self, order: Order, *, key: str) -> str:
        """Hold what the order needs; returns a reference. Raises `OutOfStockError`, having held nothing."""

    def release(self, order: Order, *, key: str) -> None:
        """Give back what `reserve` held under the key; nothing to give back is fine."""


class Shipping(Protocol):
    """Sends the goods. Both calls are idempotent by `key`; `joins_transaction` as above."""

    joins_transaction: bool

    def create_shipment(self, order: Order, *, key: str) -> str:
        """Returns the shipment's reference. Raises `ShipmentRefusedError`, having sent nothing."""

    def cancel_shipment(self, order: Order, *, key: str) -> None:
        """Stop the parcel of the key; none to stop is fine."""
