"""The tables of reconciliation: runs, reports and their rows, discrepancies and everything that happened to them."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import models
from django.db.models import Q
from django.utils import timezone

from payments.models import GatewayAccount, OnCallPage, Operation, Order, Payment
from payments.models.fields import CurrencyField, MinorUnitsField, PrefixedIdField
from payments.money import Money
from reconciliation.kinds import DiscrepancyType
from reconciliation.parsers.base import RowKind


class ReportFile(models.Model):
    """A settlement report as it came, byte for byte, kept in compressed chunks so that any host can read it."""

    account = models.ForeignKey(GatewayAccount, on_delete=models.PROTECT, related_name="reports")
    day = models.DateField()
    sha256 = models.CharField(max_length=64)
    name = models.CharField(max_length=200, blank=True)
    size = models.PositiveBigIntegerField(default=0)
    rows = models.PositiveIntegerField(default=0)
    bad_rows = models.PositiveIntegerField(default=0)
    bad_row_list = models.JSONField(
        default=list, blank=True, help_text="Line and reason of the first bad rows."
    )
    is_fetched = models.BooleanField(
        default=False, help_text="From the gateway itself, so it holds the whole day."
    )
    received_by = models.CharField(max_length=150, default="system")
    received_at = models.DateTimeField()
    imported_at = models.DateTimeField(null=True, blank=True, help_text="When its rows were in, all of them.")

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["account", "day", "sha256"], name="report_file_once")]

    def __str__(self) -> str:
        return self.name or f"report of {self.day}"


class ReportChunk(models.Model):
    """One piece of a report file, deflated."""

    file = models.ForeignKey(ReportFile, on_delete=models.CASCADE, related_name="chunks")
    number = models.PositiveIntegerField()
    data = models.BinaryField()

    class Meta:
        ordering = ["file", "number"]
        constraints = [models.UniqueConstraint(fields=["file", "number"], name="report_chunk_number")]

    def __str__(self) -> str:
        return f"chunk {self.number} of report {self.file_id}"


class ReportLine(models.Model):
    """A row of the gateway, kept: the other side of every comparison, whichever day's report it came in.

    Written by SQL alone. `row_key` and `occurrence` are its identity over all reports of the account; `group_key` is
    our payment or refund when one was found for it, else the gateway's reference.
    """

    # Without constraints: a check per row would cost more than the import itself, and one statement writes them all.
    account = models.ForeignKey(
        GatewayAccount, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    file = models.ForeignKey(ReportFile, on_delete=models.PROTECT, related_name="lines", db_constraint=False)
    line = models.PositiveIntegerField()
    row_key = models.TextField()
    occurrence = models.PositiveIntegerField(default=1)
    external_id = models.TextField()
    kind = models.CharField(max_length=12, choices=[(kind.value, kind.value.title()) for kind in RowKind])
    category = models.TextField()
    reference = models.TextField()
    payment_reference = models.TextField(blank=True)
    group_key = models.TextField()
    is_resolved = models.BooleanField(
        default=False, help_text="A payment or refund of ours was found for it."
    )
    amount = MinorUnitsField(help_text="As the customer saw it, signed.")
    currency = CurrencyField()
    gross = MinorUnitsField()
    fee = MinorUnitsField()
    net = MinorUnitsField()
    settlement_currency = CurrencyField()
    created_at = models.DateTimeField()
    available_on = models.DateField(null=True, blank=True)
    payout_id = models.TextField(blank=True)
    source_id = models.TextField(blank=True)
    description = models.TextField(blank=True)
    our_payment_id = models.TextField(blank=True)
    our_operation_id = models.TextField(blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["account", "row_key", "occurrence"], name="report_line_identity")
        ]
        indexes = [
            models.Index(fields=["account", "group_key"], name="report_line_group"),
            models.Index(fields=["account", "created_at"], name="report_line_created"),
            models.Index(
                fields=["account"],
                condition=Q(is_resolved=False, kind__in=["charge", "refund"]),
                name="report_line_unresolved",
            ),
        ]

    def __str__(self) -> str:
        return self.external_id


class RunState(models.TextChoices):
    PENDING = "pending", "Pending"
    FETCHING = "fetching", "Fetching the report"
    STAGING = "staging", "Reading the report"
    MATCHING = "matching", "Matching"
    HANDLING = "handling", "Handling"
    COMPLETED = "completed", "Completed"
    FAILED = "failed", "Failed"


ACTIVE_RUN_STATES = (
    RunState.PENDING,
    RunState.FETCHING,
    RunState.STAGING,
    RunState.MATCHING,
    RunState.HANDLING,
)


class RunTrigger(models.TextChoices):
    BEAT = "beat", "Schedule"
    COMMAND = "command", "Command"
    UPLOAD = "upload", "Upload"
    ADMIN = "admin", "Started by hand"
    API = "api", "API"


class RunQuerySet(models.QuerySet["Run"]):
    def active(self) -> RunQuerySet:
        """Begun and not finished, whether somebody works on them or not."""
        return self.filter(state__in=ACTIVE_RUN_STATES)

    def completed(self) -> RunQuerySet:
        return self.filter(state=RunState.COMPLETED)


class Run(models.Model):
    """The reconciliation of one account and one UTC day. Running again brings the same row up to date."""

    id = PrefixedIdField(prefix="rec")
    account = models.ForeignKey(GatewayAccount, on_delete=models.PROTECT, related_name="reconciliation_runs")
    day = models.DateField()
    state = models.CharField(max_length=10, choices=RunState.choices, default=RunState.PENDING)
    trigger = models.CharField(max_length=10, choices=RunTrigger.choices)
    requested_by = models.CharField(max_length=150, default="system")
    attempt = models.PositiveIntegerField(default=1, help_text="How often it was started.")
    file = models.ForeignKey(ReportFile, on_delete=models.PROTECT, related_name="runs", null=True, blank=True)
    rows_read = models.PositiveIntegerField(default=0)
    matched = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    expected = models.PositiveIntegerField(default=0, help_text="Ours, not yet due in a report.")
    settled = models.PositiveIntegerField(default=0, help_text="Discrepancies that somebody has resolved.")
    counts = models.JSONField(default=dict, blank=True, help_text="Open discrepancies by kind.")
    totals = models.JSONField(default=dict, blank=True, help_text="Minor units per currency.")
    error = models.TextField(blank=True)
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = RunQuerySet.as_manager()

    class Meta:
        ordering = ["-day", "-id"]
        verbose_name = "reconciliation run"
        constraints = [
            models.UniqueConstraint(fields=["account", "day"], name="run_once_per_day"),
            models.CheckConstraint(condition=Q(state__in=RunState.values), name="run_state_known"),
        ]
        indexes = [
            models.Index(fields=["state"], condition=Q(state__in=ACTIVE_RUN_STATES), name="run_active")
        ]
        permissions = [
            ("start_run", "Can start a reconciliation run"),
            ("upload_report", "Can upload a settlement report"),
        ]

    def __str__(self) -> str:
        return f"{self.account} {self.day}"

    @property
    def discrepancies(self) -> int:
        """How many open ones it found."""
        return sum(self.counts.values())

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE_RUN_STATES

    def summarize(self) -> str:
        """`1248/1251 matched, 3 discrepancies: 2 missing_internal, 1 status_mismatch`."""
        noun = "discrepancy" if self.discrepancies == 1 else "discrepancies"
        line = f"{self.matched}/{self.total} matched, {self.discrepancies} {noun}"
        kinds = ", ".join(f"{self.counts[kind]} {kind}" for kind in DiscrepancyType if self.counts.get(kind))
        return f"{line}: {kinds}" if kinds else line


class DiscrepancyState(models.TextChoices):
    OPEN = "open", "Open"
    ASSIGNED = "assigned", "Assigned"
    RESOLVED = "resolved", "Resolved"
    CLOSED = "closed", "Closed by itself"


UNSETTLED_STATES = (DiscrepancyState.OPEN, DiscrepancyState.ASSIGNED)


class ReasonCode(models.TextChoices):
    """Why somebody holds a discrepancy for settled."""

    CORRECTED_HERE = "corrected_here", "Corrected here"
    CORRECTED_AT_GATEWAY = "corrected_at_gateway", "Corrected at the gateway"
    REFUNDED = "refunded", "Refunded to the customer"
    GATEWAY_ERROR = "gateway_error", "Error in the gateway's report"
    TIMING = "timing", "Timing, will appear in another report"
    ACCEPTED_LOSS = "accepted_loss", "Accepted as a loss"
    TEST = "test", "Test payment"
    OTHER = "other", "Other (say what)"


class ClosedCause(models.TextChoices):
    """What explained a discrepancy without anybody's doing."""

    LATE_WEBHOOK = "late_webhook", "A late webhook: our books have it now"
    LATE_REPORT = "late_report", "A late report: the gateway lists it now"
    AGREES = "agrees", "Both sides agree now"
    SUPERSEDED = "superseded", "It shows as another kind now"


class DiscrepancyQuerySet(models.QuerySet["Discrepancy"]):
    def unsettled(self) -> DiscrepancyQuerySet:
        return self.filter(state__in=UNSETTLED_STATES)

    def mine_or_free(self, user: AbstractBaseUser | AnonymousUser) -> DiscrepancyQuerySet:
        """Unsettled ones that are this user's or nobody's."""
        return self.unsettled().filter(Q(assigned_to__isnull=True) | Q(assigned_to=user.pk))

    def of_order(self, order: Order) -> DiscrepancyQuerySet:
        return self.filter(order=order)


class Discrepancy(models.Model):
    """One difference between the gateway and us: one row for ever, whichever runs see it."""

    id = PrefixedIdField(prefix="dis")
    account = models.ForeignKey(GatewayAccount, on_delete=models.PROTECT, related_name="discrepancies")
    kind = models.CharField(max_length=20, choices=[(kind.value, kind.label) for kind in DiscrepancyType])
    key = models.TextField(help_text="The gateway's reference, ours when it has none.")
    group_key = models.TextField(editable=False)
    ours = models.JSONField(default=dict, blank=True)
    theirs = models.JSONField(default=dict, blank=True)
    fields = models.JSONField(default=list, blank=True, help_text="What differs.")
    fingerprint = models.CharField(max_length=32, editable=False)
    amount = MinorUnitsField(help_text="At stake.")
    currency = CurrencyField()
    order = models.ForeignKey(
        Order, on_delete=models.PROTECT, related_name="discrepancies", null=True, blank=True
    )
    payment = models.ForeignKey(
        Payment, on_delete=models.PROTECT, related_name="discrepancies", null=True, blank=True
    )
    operation = models.ForeignKey(
        Operation, on_delete=models.PROTECT, related_name="discrepancies", null=True, blank=True
    )
    state = models.CharField(max_length=10, choices=DiscrepancyState.choices, default=DiscrepancyState.OPEN)
    assigned_to = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        related_name="discrepancies",
        null=True,
        blank=True,
    )
    reason = models.CharField(max_length=24, choices=ReasonCode.choices, blank=True)
    note = models.TextField(blank=True)
    resolved_by = models.CharField(max_length=150, blank=True)
    resolved_at = models.DateTimeField(null=True, blank=True)
    closed_cause = models.CharField(max_length=12, choices=ClosedCause.choices, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)
    oncall_page = models.ForeignKey(
        OnCallPage, on_delete=models.SET_NULL, related_name="discrepancies", null=True, blank=True
    )
    first_seen = models.DateTimeField()
    last_seen = models.DateTimeField()

    objects = DiscrepancyQuerySet.as_manager()

    class Meta:
        ordering = ["first_seen", "id"]
        verbose_name_plural = "discrepancies"
        constraints = [
            models.UniqueConstraint(fields=["account", "kind", "key"], name="discrepancy_identity"),
            models.CheckConstraint(
                condition=Q(state__in=DiscrepancyState.values), name="discrepancy_state_known"
            ),
            models.CheckConstraint(
                condition=~Q(state="resolved") | (~Q(reason="") & Q(resolved_at__isnull=False)),
                name="discrepancy_resolved_with_reason",
            ),
            models.CheckConstraint(
                condition=~Q(state="assigned") | Q(assigned_to__isnull=False),
                name="discrepancy_assigned_to_one",
            ),
        ]
        indexes = [
            models.Index(
                fields=["account", "group_key"],
                condition=Q(state__in=UNSETTLED_STATES),
                name="discrepancy_unsettled",
            ),
            models.Index(fields=["state", "first_seen"], name="discrepancy_state_oldest"),
        ]
        permissions = [
            ("assign_discrepancy", "Can assign discrepancies"),
            ("resolve_discrepancy", "Can resolve and reopen discrepancies"),
            ("export_discrepancy", "Can export discrepancies"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.key}"

    @property
    def money(self) -> Money:
        return Money(self.amount, self.currency)

    @property
    def age(self) -> timedelta:
        """How long it has been known, until it was settled."""
        return (self.resolved_at or self.closed_at or timezone.now()) - self.first_seen

    @property
    def is_unsettled(self) -> bool:
        return self.state in UNSETTLED_STATES


class Sighting(models.Model):
    """A run saw a discrepancy: once, however often the run is repeated."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="sightings")
    discrepancy = models.ForeignKey(Discrepancy, on_delete=models.CASCADE, related_name="sightings")
    seen_at = models.DateTimeField()

    class Meta:
        ordering = ["-seen_at"]
        constraints = [models.UniqueConstraint(fields=["run", "discrepancy"], name="sighting_once")]

    def __str__(self) -> str:
        return f"{self.discrepancy_id} in {self.run_id}"


class DiscrepancyEvent(models.Model):
    """What happened to a discrepancy, who did it, and when; never changed."""

    class Type(models.TextChoices):
        FOUND = "found", "Found"
        REOPENED = "reopened", "Opened again"
        ASSIGNED = "assigned", "Assigned"
        RELEASED = "released", "Given back"
        RESOLVED = "resolved", "Resolved"
        CLOSED = "closed", "Closed by itself"
        PAGED = "paged", "On-call paged"

    discrepancy = models.ForeignKey(Discrepancy, on_delete=models.CASCADE, related_name="events")
    type = models.CharField(max_length=10, choices=Type.choices)
    actor = models.CharField(max_length=150, default="system")
    text = models.TextField(blank=True)
    at = models.DateTimeField()

    class Meta:
        ordering = ["-at", "-id"]

    def __str__(self) -> str:
        return f"{self.type} {self.discrepancy_id}"


class Tolerance(models.Model):
    """How many minor units two amounts of a currency may differ without being a discrepancy; none unless said here."""

    currency = CurrencyField(unique=True)
    minor_units = MinorUnitsField(default=0)

    class Meta:
        ordering = ["currency"]
        constraints = [
            models.CheckConstraint(condition=Q(minor_units__gte=0), name="tolerance_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.minor_units} {self.currency}"
