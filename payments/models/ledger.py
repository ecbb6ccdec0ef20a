"""The double-entry ledger: append-only, sealed at commit, balanced per currency, all of it enforced by triggers."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from payments.models.fields import CurrencyField, MinorUnitsField
from payments.models.gateway import GatewayAccount
from payments.models.payment import Payment


class LedgerAccount(models.Model):
    """One account of the chart, per gateway account and currency."""

    gateway_account = models.ForeignKey(
        GatewayAccount, on_delete=models.PROTECT, related_name="ledger_accounts"
    )
    code = models.PositiveSmallIntegerField()
    currency = CurrencyField()

    class Meta:
        ordering = ["code"]
        constraints = [
            models.UniqueConstraint(
                fields=["gateway_account", "currency", "code"], name="ledger_account_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.code} {self.currency}"


class LedgerEntry(models.Model):
    """One journal entry: what happened, once per source and external id."""

    gateway_account = models.ForeignKey(
        GatewayAccount, on_delete=models.PROTECT, related_name="ledger_entries"
    )
    payment = models.ForeignKey(
        Payment, on_delete=models.PROTECT, related_name="ledger_entries", null=True, blank=True
    )
    event = models.CharField(max_length=40)
    source = models.CharField(max_length=30)
    external_id = models.CharField(max_length=120)
    note = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "ledger entries"
        constraints = [models.UniqueConstraint(fields=["source", "external_id"], name="ledger_entry_once")]
        indexes = [models.Index(fields=["created_at"], name="ledger_entry_created")]

    def __str__(self) -> str:
        return f"{self.event} {self.id}"


class Posting(models.Model):
    """One line of an entry: minor units, debit positive, credit negative."""

    entry = models.ForeignKey(LedgerEntry, on_delete=models.PROTECT, related_name="postings", db_index=False)
    line = models.PositiveSmallIntegerField()
    account = models.ForeignKey(LedgerAccount, on_delete=models.PROTECT, related_name="postings")
    currency = CurrencyField()
    amount = MinorUnitsField()

    class Meta:
        ordering = ["entry", "line"]
        constraints = [
            models.UniqueConstraint(fields=["entry", "line"], name="posting_line"),
            models.CheckConstraint(condition=~Q(amount=0), name="posting_not_zero"),
        ]

    def __str__(self) -> str:
        return f"{self.amount} {self.currency} on {self.account_id}"
