"""What orders share: one row for each thing that one order can have in common with another."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from fraud.facts import DIMENSIONS
from fraud.models.fields import KeyHashField
from payments.models import Order


class EntityLink(models.Model):
    """An order was made with this card, e-mail address, device, IP address, network, address or by this customer.

    A card is the gateway's fingerprint, known after the authorization; of a declined one there is none.
    """

    kind = models.CharField(max_length=10, choices=[(name, name.capitalize()) for name in DIMENSIONS])
    value_hash = KeyHashField()
    order = models.ForeignKey(
        Order, on_delete=models.PROTECT, related_name="links", db_index=False, db_constraint=False
    )
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-id"]
        constraints = [
            # Also what is read: the newest orders of a key, as ids grow with time.
            models.UniqueConstraint(fields=["kind", "value_hash", "order"], name="fraud_link_once"),
        ]
        indexes = [models.Index(fields=["order"], name="fraud_link_order")]

    def __str__(self) -> str:
        return f"{self.kind} of {self.order_id}"
