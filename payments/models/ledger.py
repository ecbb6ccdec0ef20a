"""The double-entry ledger and its closed days: append-only, sealed, balanced, all of it enforced by triggers."""

from __future__ import annotations

from datetime import date

from django.db import connection, models
from django.db.models import F, Func, Q

from payments.models.fields import CurrencyField, MinorUnitsField
from payments.models.gateway import GatewayAccount
from payments.models.payment import Payment


class UtcToday(Func):
    """The database's UTC day, as a default that also holds for code which does not know the column."""

    template = "((statement_timestamp() AT TIME ZONE 'UTC')::date)"
    output_field = models.DateField()


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
        GatewayAccount, on_delete=models.PROTECT, related_name="ledger_entries", db_index=False
    )
    payment = models.ForeignKey(
        Payment, on_delete=models.PROTECT, related_name="ledger_entries", null=True, blank=True
    )
    event = models.CharField(max_length=40)
    source = models.CharField(max_length=30)
    external_id = models.CharField(max_length=200)
    note = models.CharField(max_length=200, blank=True)
    actor = models.CharField(
        max_length=150, blank=True, db_default="", help_text="Who decided it, where a person did."
    )
    booked_on = models.DateField(db_default=UtcToday(), help_text="The day that it belongs to.")
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "ledger entries"
        permissions = [("export_ledgerentry", "Can export the trial balance and statements")]
        constraints = [models.UniqueConstraint(fields=["source", "external_id"], name="ledger_entry_once")]
        indexes = [
            models.Index(fields=["created_at"], name="ledger_entry_created"),
            models.Index(fields=["gateway_account", "booked_on"], name="ledger_entry_booked"),
        ]

    def __str__(self) -> str:
        return f"{self.event} {self.id}"


class Posting(models.Model):
    """One line of an entry: minor units, debit positive, credit negative."""

    entry = models.ForeignKey(LedgerEntry, on_delete=models.PROTECT, related_name="postings", db_index=False)
    line = models.PositiveSmallIntegerField()
    account = models.ForeignKey(
        LedgerAccount, on_delete=models.PROTECT, related_name="postings", db_index=False
    )
    currency = CurrencyField()
    amount = MinorUnitsField()
    booked_on = models.DateField(
        db_default=UtcToday(), editable=False, help_text="Its entry's, written by a trigger."
    )

    class Meta:
        ordering = ["entry", "line"]
        constraints = [
            models.UniqueConstraint(fields=["entry", "line"], name="posting_line"),
            models.CheckConstraint(condition=~Q(amount=0), name="posting_not_zero"),
        ]
        # Balances and statements are read from this index alone, whatever the number of postings.
        indexes = [
            models.Index(fields=["account", "booked_on", "id"], include=["amount"], name="posting_statement")
        ]

    def __str__(self) -> str:
        return f"{self.amount} {self.currency} on {self.account_id}"


class LedgerPeriodQuerySet(models.QuerySet["LedgerPeriod"]):
    def closed(self) -> LedgerPeriodQuerySet:
        return self.filter(reopened_at__isnull=True)

    def overlapping(self, account: GatewayAccount, first_day: date, last_day: date) -> LedgerPeriodQuerySet:
        return self.filter(gateway_account=account, first_day__lte=last_day, last_day__gte=first_day)

    def lock_days(self, account: GatewayAccount, first_day: date, last_day: date) -> None:
        """Wait for every posting that is on its way into these days, and let none in until this transaction ends."""
        with connection.cursor() as cursor:
            cursor.execute(_LOCK_DAYS, [account.pk, first_day, last_day])


_LOCK_DAYS = """
SELECT pg_advisory_xact_lock(ledger_day_lock(%s, day::date))
FROM generate_series(%s::date, %s::date, interval '1 day') AS day
"""


class LedgerPeriod(models.Model):
    """Days of one gateway account, in all its currencies, into which nothing is posted any more."""

    gateway_account = models.ForeignKey(
        GatewayAccount, on_delete=models.PROTECT, related_name="ledger_periods", db_index=False
    )
    first_day = models.DateField()
    last_day = models.DateField()
    closed_at = models.DateTimeField()
    closed_by = models.CharField(max_length=150)
    note = models.CharField(max_length=200, blank=True)
    # What the days held when they were closed, written by a trigger; the proof holds the books against it.
    postings = models.BigIntegerField(default=0, editable=False)
    digest = models.DecimalField(max_digits=40, decimal_places=0, default=0, editable=False)
    reopened_at = models.DateTimeField(null=True, blank=True)
    reopened_by = models.CharField(max_length=150, blank=True)
    reopen_reason = models.CharField(max_length=200, blank=True)

    objects = LedgerPeriodQuerySet.as_manager()

    class Meta:
        ordering = ["-last_day", "-id"]
        verbose_name = "accounting period"
        permissions = [
            ("close_ledgerperiod", "Can close an accounting period"),
            ("reopen_ledgerperiod", "Can reopen a closed accounting period"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(first_day__lte=F("last_day")), name="ledger_period_in_order"),
            models.CheckConstraint(condition=~Q(closed_by=""), name="ledger_period_closed_by_somebody"),
            models.CheckConstraint(
                condition=Q(reopened_at__isnull=True, reopened_by="", reopen_reason="")
                | (Q(reopened_at__isnull=False) & ~Q(reopened_by="") & ~Q(reopen_reason="")),
                name="ledger_period_reopened_with_reason",
            ),
        ]
        indexes = [models.Index(fields=["gateway_account", "last_day"], name="ledger_period_last")]

    def __str__(self) -> str:
        return f"{self.first_day} to {self.last_day} of {self.gateway_account}"

    @property
    def is_closed(self) -> bool:
        return self.reopened_at is None
