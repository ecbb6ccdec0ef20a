"""Customers of a storefront and the payment methods that they let it keep: tokens, never card numbers."""

from __future__ import annotations

from datetime import date, datetime

from django.db import models
from django.db.models import Q

from payments.encryption import EncryptedTextField
from payments.models.client import ApiClient
from payments.models.fields import PrefixedIdField
from payments.models.gateway import GatewayAccount


class CustomerQuerySet(models.QuerySet["Customer"]):
    def known(self) -> CustomerQuerySet:
        """Those who have not asked to be forgotten."""
        return self.filter(erasure_requested_at__isnull=True)

    def being_erased(self) -> CustomerQuerySet:
        """Asked for, and not finished: an order of theirs is still open, or a process died."""
        return self.filter(erasure_requested_at__isnull=False, erased_at__isnull=True)

    def locked(self, customer_id: str) -> Customer:
        """The customer under a row lock; taken after an order's and a payment's, never before."""
        return self.select_for_update(of=("self",)).get(pk=customer_id)


class Customer(models.Model):
    """One buyer, by the storefront's own id."""

    id = PrefixedIdField(prefix="cus")
    client = models.ForeignKey(ApiClient, on_delete=models.PROTECT, related_name="customers", db_index=False)
    storefront_id = models.CharField(
        max_length=100, help_text="The storefront's own id; a digest once erased."
    )
    email = models.CharField(max_length=254, blank=True)
    name = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField()
    erasure_requested_at = models.DateTimeField(null=True, blank=True)
    erasure_requested_by = models.CharField(max_length=150, blank=True, db_default="")
    erasure_reason = models.CharField(max_length=200, blank=True, db_default="")
    erasing_id = EncryptedTextField(
        blank=True, db_default="", help_text="The storefront's id while their orders are being blanked."
    )
    erased_at = models.DateTimeField(null=True, blank=True)

    objects = CustomerQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        permissions = [("erase_customer", "Can erase a customer on request")]
        constraints = [
            models.UniqueConstraint(fields=["client", "storefront_id"], name="customer_once_per_storefront")
        ]
        indexes = [
            models.Index(fields=["email"], name="customer_email"),
            models.Index(
                fields=["erasure_requested_at"],
                condition=Q(erasure_requested_at__isnull=False, erased_at__isnull=True),
                name="customer_being_erased",
            ),
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def state(self) -> str:
        """Derived, never stored: known, erasing or erased."""
        if self.erased_at:
            return "erased"
        return "erasing" if self.erasure_requested_at else "known"


class SavedPaymentMethodQuerySet(models.QuerySet["SavedPaymentMethod"]):
    def usable(self) -> SavedPaymentMethodQuerySet:
        return self.filter(removed_at__isnull=True)

    def locked_to_forget(self, now: datetime, *, limit: int) -> SavedPaymentMethodQuerySet:
        """Removed ones whose gateway is due to be told, under row locks; what another worker holds is left out."""
        due = self.filter(forget_at__lte=now).order_by("forget_at")
        return due.select_for_update(of=("self",), skip_locked=True)[:limit]


class SavedPaymentMethod(models.Model):
    """A card on file: the gateway's token, and what may be shown of it."""

    id = PrefixedIdField(prefix="spm")
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="payment_methods")
    account = models.ForeignKey(GatewayAccount, on_delete=models.PROTECT, related_name="saved_methods")
    token = EncryptedTextField(help_text="The gateway's token; empty once removed.")
    gateway_customer = models.CharField(max_length=100, blank=True, help_text="The gateway's own customer.")
    brand = models.CharField(max_length=30, blank=True)
    last4 = models.CharField(max_length=4, blank=True)
    exp_month = models.PositiveSmallIntegerField(null=True, blank=True)
    exp_year = models.PositiveSmallIntegerField(null=True, blank=True)
    fingerprint = models.CharField(
        max_length=64, blank=True, help_text="Keyed hash of the gateway's fingerprint."
    )
    created_at = models.DateTimeField()
    removed_at = models.DateTimeField(null=True, blank=True)
    forget_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="When the gateway is told next to delete the token; empty once it has.",
    )
    forget_tries = models.PositiveSmallIntegerField(default=0, db_default=0)

    objects = SavedPaymentMethodQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["customer", "account", "fingerprint"],
                condition=Q(removed_at__isnull=True) & ~Q(fingerprint=""),
                name="saved_method_once_per_card",
            ),
            # While the gateway has a removed token, so have we, and a time to delete it there.
            models.CheckConstraint(
                condition=Q(token="") | Q(removed_at__isnull=True) | Q(forget_at__isnull=False),
                name="saved_method_removed_is_forgotten",
            ),
        ]
        indexes = [
            models.Index(
                fields=["forget_at"], condition=Q(forget_at__isnull=False), name="saved_method_to_forget"
            )
        ]

    def __str__(self) -> str:
        return (
            f"{self.brand or 'card'} ending in {self.last4}" if self.last4 else self.brand or "saved method"
        )

    def has_expired(self, today: date) -> bool:
        """A card is good until the end of the month on it; without one nobody knows."""
        if not (self.exp_year and self.exp_month):
            return False
        return (self.exp_year, self.exp_month) < (today.year, today.month)
