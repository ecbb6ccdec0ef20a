"""Stock and shipments in our own tables: the default backends, good for a shop without a warehouse system."""

from __future__ import annotations

from collections import Counter

from django.conf import settings
from django.db.models import F
from django.utils import timezone

from payments.errors import OutOfStockError, ShipmentRefusedError
from payments.models import Order, Shipment, StockItem, StockReservation


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
            StockReservation.objects.filter(pk=reservation.pk).update(state=StockReservation.State.RELEASED)


class LocalShipping:
    """A carrier that accepts every country but those in settings.UNSERVED_COUNTRIES."""

    joins_transaction = True

    def create_shipment(self, order: Order, *, key: str) -> str:
        country = str(order.shipping.get("country", ""))
        if country in settings.UNSERVED_COUNTRIES:
            raise ShipmentRefusedError(f"No carrier serves {country}; nothing was sent.", country=country)
        shipment, _ = Shipment.objects.get_or_create(
            key=key, defaults={"order": order, "country": country, "created_at": timezone.now()}
        )
        return shipment.id

    def cancel_shipment(self, order: Order, *, key: str) -> None:
        Shipment.objects.filter(key=key, state=Shipment.State.CREATED).update(state=Shipment.State.CANCELED)


def _quantities(order: Order) -> Counter[str]:
    quantities: Counter[str] = Counter()
    for line in order.lines:
        quantities[str(line["sku"])] += int(line["quantity"])
    return quantities
