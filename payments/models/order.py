"""Orders: what a storefront asked us to be paid for, and how far that has come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import models
from django.db.models import Q
from django.utils import timezone

from payments.models.client import ApiClient
from payments.models.fields import CurrencyField, MinorUnitsField, PrefixedIdField
from payments.money import Money


class OrderState(models.TextChoices):
    PLACED = "placed", "Placed"
    AWAITING_CUSTOMER = "awaiting_customer", "Awaiting customer"
    REVIEW = "review", "In review"
    PROCESSING = "processing", "Processing"
    PAID = "paid", "Paid"
    FULFILLED = "fulfilled", "Fulfilled"
    DECLINED = "declined", "Declined"
    BLOCKED = "blocked", "Blocked"
    CANCELED = "canceled", "Canceled"
    EXPIRED = "expired", "Expired"


DEAD_STATES = (OrderState.DECLINED, OrderState.BLOCKED, OrderState.CANCELED, OrderState.EXPIRED)


class CaptureMethod(models.TextChoices):
    AUTOMATIC = "automatic", "Automatic"
    MANUAL = "manual", "Manual"


class OrderQuerySet(models.QuerySet["Order"]):
    def locked(self, order_id: str) -> Order:
        """The order under a row lock; always taken before its payment's."""
        return self.select_for_update(of=("self",)).get(pk=order_id)


class Order(models.Model):
    """One purchase. Amounts are minor units of `currency`."""

    id = PrefixedIdField(prefix="ord")
    client = models.ForeignKey(ApiClient, on_delete=models.PROTECT, related_name="orders", db_index=False)
    reference = models.CharField(max_length=100, help_text="The storefront's own number.")
    state = models.CharField(max_length=20, choices=OrderState.choices, default=OrderState.PLACED)
    amount = MinorUnitsField()
    currency = CurrencyField()
    capture_method = models.CharField(
        max_length=10, choices=CaptureMethod.choices, default=CaptureMethod.AUTOMATIC
    )
    customer_id = models.CharField(max_length=100, blank=True)
    customer_email = models.CharField(max_length=254, blank=True)
    customer_created_at = models.DateTimeField(null=True, blank=True)
    billing = models.JSONField(default=dict, blank=True)
    shipping = models.JSONField(default=dict, blank=True)
    lines = models.JSONField(default=list, blank=True)
    context = models.JSONField(default=dict, blank=True, help_text="IP address, user agent and device.")
    metadata = models.JSONField(default=dict, blank=True)
    return_url = models.CharField(max_length=500, blank=True)
    cancel_reason = models.CharField(max_length=40, blank=True)
    event_sequence = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    objects = OrderQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        permissions = [
            ("capture_order", "Can capture an order"),
            ("cancel_order", "Can cancel an order"),
            ("refund_order", "Can refund an order"),
            ("note_order", "Can add a note to an order"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="order_amount_positive"),
            models.CheckConstraint(condition=Q(state__in=OrderState.values), name="order_state_known"),
            # The second wall behind the Idempotency-Key: one living order per reference.
            models.UniqueConstraint(
                fields=["client", "reference"],
                condition=~Q(state__in=["declined", "blocked", "canceled", "expired"]),
                name="order_one_living_per_reference",
            ),
        ]
        indexes = [
            models.Index(fields=["client", "-id"], name="order_client_newest"),
            models.Index(fields=["state", "-id"], name="order_state_newest"),
            models.Index(fields=["reference"], name="order_reference"),
            models.Index(fields=["customer_email"], name="order_customer_email"),
            models.Index(fields=["customer_id"], condition=~Q(customer_id=""), name="order_customer_id"),
        ]

    def __str__(self) -> str:
        return f"{self.reference} ({self.id})"

    def move_to(self, state: str, *, unless: Sequence[str] = DEAD_STATES, **fields: Any) -> bool:
        """Guarded change of state: False, and nothing changed, when the order is in one of `unless` by now."""
        now = timezone.now()
        living = Order.objects.filter(pk=self.pk).exclude(state__in=unless)
        if not living.update(state=state, updated_at=now, **fields):
            return False
        self.state, self.updated_at = state, now
        for name, value in fields.items():
            setattr(self, name, value)
        return True

    @property
    def total(self) -> Money:
        return Money(self.amount, self.currency)
