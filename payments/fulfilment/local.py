"""Stock and shipments in our own tables: the default backends, good for a shop without a warehouse system."""

from __future__ import annotations

from collections import Counter

from django.conf import settings
from django.db.models import F
from django.utils import timezone

from payments.errors import OutOfStockError, ShipmentRefusedError
from payments.models import Order, Shipment, StockItem, StockReservation

State = StockReservation.State


class LocalInventory:
    """Stock rows in the shop's own database; a SKU without a row is not tracked."""

    joins_transaction = True

    def reserve(self, order: Order, *, key: str) -> str:
        wanted = _quantities(order)
        tracked = (
            list(StockItem.objects.filter(sku__in=wanted).values_list("sku", flat=True)) if wanted else []
        )
        for sku in sorted(tracked):  # one order of locks, whatever the order of the lines
            self._reserve_one(order, sku, wanted[sku], key)
        return key

    def _reserve_one(self, order: Order, sku: str, quantity: int, key: str) -> None:
        _, is_new = StockReservation.objects.get_or_create(
            run_id=key, sku=sku, defaults={"order": order, "quantity": quantity, "created_at": timezone.now()}
        )
        if not is_new:
            return
        enough = StockItem.objects.filter(sku=sku, on_hand__gte=F("reserved") + quantity)
        if not enough.update(reserved=F("reserved") + quantity):
            raise OutOfStockError(f"SKU {sku} has fewer than {quantity} left; nothing was reserved.", sku=sku)

    def release(self, order: Order, *, key: str) -> None:
        held = StockReservation.objects.select_for_update().filter(
            run_id=key, state=StockReservation.State.HELD
        )
        for reservation in held.order_by("sku"):
            StockItem.objects.filter(sku=reservation.sku).update(
                reserved=F("reserved") - reservation.quantity
            )
            StockReservation.objects.filter(pk=reservation.pk).update(state=State.RELEASED)


class LocalShipping:
    """A carrier that accepts every country but those in settings.UNSERVED_COUNTRIES."""

    joins_transaction = True

    def create_shipment(self, order: Order, *, key: str) -> str:
        country = str(order.shipping.get("country", ""))
        if country in settings.UNSERVED_COUNTRIES:
            raise ShipmentRefusedError(f"No carrier serves {country}; nothing was sent.", country=country)
        shipment, is_new = Shipment.objects.get_or_create(
            key=key, defaults={"order": order, "country": country, "created_at": timezone.now()}
        )
        if is_new:
            _turn(key, State.HELD, State.CONSUMED, sign=-1)  # off the shelf
        return shipment.id

    def cancel_shipment(self, order: Order, *, key: str) -> None:
        standing = Shipment.objects.filter(key=key, state=Shipment.State.CREATED)
        if standing.update(state=Shipment.State.CANCELED):
            _turn(key, State.CONSUMED, State.HELD, sign=1)  # back on the shelf, still reserved


def _turn(key: str, old: State, new: State, *, sign: int) -> None:
    """Move a run's reservations from one state to the other, and their goods with them."""
    reservations = StockReservation.objects.select_for_update().filter(run_id=key, state=old).order_by("sku")
    for reservation in reservations:
        moved = sign * reservation.quantity
        goods = StockItem.objects.filter(sku=reservation.sku)
        goods.update(on_hand=F("on_hand") + moved, reserved=F("reserved") + moved)
    reservations.update(state=new)


def _quantities(order: Order) -> Counter[str]:
    quantities: Counter[str] = Counter()
    for line in order.lines:
        quantities[str(line["sku"])] += int(line["quantity"])
    return quantities
