"""The counted events behind every velocity."""

from __future__ import annotations

from django.db import models

from payments.models import Order
from payments.models.fields import CurrencyField, MinorUnitsField


class VelocityEvent(models.Model):
    """One order counted under one key: the truth behind every velocity count."""

    class Kind(models.TextChoices):
        ATTEMPT = "attempt", "Attempt"
        DECLINE = "decline", "Decline"
        APPROVED = "approved", "Approved"

    dimension = models.CharField(max_length=10)
    key_hash = models.CharField(max_length=32)
    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="velocity_events")
    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.ATTEMPT)
    amount = MinorUnitsField()
    currency = CurrencyField()
    at = models.DateTimeField(help_text="By the database's clock.")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["dimension", "key_hash", "order", "kind"], name="fraud_velocity_event_once"
            )
        ]
        indexes = [models.Index(fields=["dimension", "key_hash", "kind", "at"], name="fraud_velocity_window")]

    def __str__(self) -> str:
        return f"{self.kind} by {self.dimension} of {self.order_id}"
