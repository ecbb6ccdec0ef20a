"""Stock, reservations and shipments of the local fulfilment backends."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from payments.models.fields import PrefixedIdField
from payments.models.order import Order


class StockItem(models.Model):
    """How much of one SKU we have. A SKU without a row is not tracked and always available."""

    sku = models.CharField(max_length=64, primary_key=True)
    on_hand = models.PositiveIntegerField(default=0)
    reserved = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["sku"]
        constraints = [
            models.CheckConstraint(
                condition=Q(reserved__lte=F("on_hand")), name="stock_reserved_within_on_hand"
            )
        ]

    def __str__(self) -> str:
        return self.sku


class StockReservation(models.Model):
    """What one saga run holds of a SKU; released once, or consumed once by the shipment."""

    class State(models.TextChoices):
        HELD = "held", "Held"
        RELEASED = "released", "Released"
        CONSUMED = "consumed", "Consumed"

    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="reservations")
    run_id = models.CharField(max_length=32)
    sku = models.CharField(max_length=64)
    quantity = models.PositiveIntegerField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.HELD)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["run_id", "sku"], name="reservation_once")]

    def __str__(self) -> str:
        return f"{self.quantity} x {self.sku} for {self.order_id}"


class Shipment(models.Model):
    """A parcel that the local carrier accepted."""

    class State(models.TextChoices):
        CREATED = "created", "Created"
        CANCELED = "canceled", "Canceled"

    id = PrefixedIdField(prefix="shp")
    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="shipments")
    key = models.CharField(max_length=80, unique=True)
    country = models.CharField(max_length=2, blank=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.CREATED)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.id
