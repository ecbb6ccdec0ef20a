"""The lists: values by keyed hash."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import models
from django.db.models import Q
from django.utils import timezone


class ListEntryQuerySet(models.QuerySet["ListEntry"]):
    def valid(self) -> ListEntryQuerySet:
        return self.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=timezone.now()))

    def matching(self, hashes: Iterable[str]) -> ListEntryQuerySet:
        """Valid entries for any of these keyed hashes: one index look-up whatever the size of the lists."""
        return self.valid().filter(value_hash__in=list(hashes))


class ListEntry(models.Model):
    """A value on a list. The value itself is not kept: a keyed hash finds it, a masked form shows it."""

    class List(models.TextChoices):
        BLOCK = "block", "Block"
        ALLOW = "allow", "Allow"
        REVIEW = "review", "Review"

    class Kind(models.TextChoices):
        EMAIL = "email", "E-mail"
        IP = "ip", "IP address"
        CARD = "card", "Card"
        DEVICE = "device", "Device"
        CUSTOMER = "customer", "Customer"
        COUNTRY = "country", "Country"

    list = models.CharField(max_length=8, choices=List.choices, default=List.BLOCK)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    value_hash = models.CharField(max_length=64, editable=False)
    value_masked = models.CharField("value", max_length=100, editable=False)
    reason = models.CharField(max_length=200)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Empty: for ever.")
    created_by = models.CharField(max_length=150, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = ListEntryQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "list entries"
        constraints = [
            models.UniqueConstraint(fields=["value_hash", "list"], name="fraud_list_entry_once"),
            models.CheckConstraint(
                condition=Q(list__in=["block", "allow", "review"]), name="fraud_list_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.value_masked} on the {self.list} list"
