"""The counted events behind every velocity."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from fraud.facts import DIMENSIONS, EVENT_KINDS
from fraud.models.fields import KeyHashField
from payments.models import Order
from payments.models.fields import CurrencyField, MinorUnitsField


class VelocityEvent(models.Model):
    """One thing that happened to an order with one card: the truth behind every velocity figure.

    Wide, one row with a key per dimension: it is written before every authorization, and one row costs a fraction
    of seven. Who counts by one dimension finds the others beside it.
    """

    class Kind(models.TextChoices):
        ATTEMPT = "attempt", "Attempt"
        DECLINE = "decline", "Decline"
        APPROVED = "approved", "Approved"
        CHARGEBACK = "chargeback", "Chargeback"

    # No constraint in the database: each insert would lock the order's row. Orders are never deleted.
    order = models.ForeignKey(
        Order, on_delete=models.PROTECT, related_name="velocity_events", db_index=False, db_constraint=False
    )
    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.ATTEMPT)
    amount = MinorUnitsField()
    currency = CurrencyField()
    at = models.DateTimeField(help_text="By the database's clock.")
    card = KeyHashField()
    email = KeyHashField()
    ip = KeyHashField()
    network = KeyHashField()
    device = KeyHashField()
    customer = KeyHashField()
    address = KeyHashField()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["order", "kind", "card"], name="fraud_velocity_event_once"),
            models.CheckConstraint(condition=Q(kind__in=EVENT_KINDS), name="fraud_velocity_kind_known"),
        ]
        indexes = [
            models.Index(
                fields=[name, "kind", "at"], condition=~Q(**{name: ""}), name=f"fraud_velocity_by_{name}"
            )
            for name in DIMENSIONS
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.order_id}"
