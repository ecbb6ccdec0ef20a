"""The lists: values by keyed hash, every change of them, how often they fitted, and the files they came in."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import models
from django.db.models import Q
from django.utils import timezone

from payments.models import ApiClient
from payments.models.fields import PrefixedIdField


class ListEntryQuerySet(models.QuerySet["ListEntry"]):
    def valid(self) -> ListEntryQuerySet:
        return self.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=timezone.now()))

    def ended(self) -> ListEntryQuerySet:
        return self.filter(expires_at__lte=timezone.now())

    def hashed(self, hashes: Iterable[str]) -> ListEntryQuerySet:
        """Entries, valid or not, for any of these keyed hashes: one index look-up whatever the size of the lists."""
        return self.filter(value_hash__in=list(hashes))


class ListEntry(models.Model):
    """A value on a list. The value itself is not kept: a keyed hash finds it, a masked form shows it."""

    class List(models.TextChoices):
        BLOCK = "block", "Block"
        ALLOW = "allow", "Allow"
        REVIEW = "review", "Review"

    class Kind(models.TextChoices):
        EMAIL = "email", "E-mail"
        DOMAIN = "domain", "E-mail domain"
        IP = "ip", "IP address"
        NETWORK = "network", "IP network"
        CARD = "card", "Card"
        DEVICE = "device", "Device"
        CUSTOMER = "customer", "Customer"
        PHONE = "phone", "Phone"
        ADDRESS = "address", "Postal address"
        COUNTRY = "country", "Country"

    list = models.CharField(max_length=8, choices=List.choices, default=List.BLOCK)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    value_hash = models.CharField(max_length=64, editable=False)
    value_masked = models.CharField("value", max_length=100, editable=False)
    reason = models.CharField(max_length=200)
    owner = models.CharField(
        max_length=150, blank=True, help_text="Who answers for it: a person or a team. Empty: who made it."
    )
    expires_at = models.DateTimeField(null=True, blank=True, help_text="UTC. Empty: for ever.")
    created_by = models.CharField(max_length=150, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    client = models.ForeignKey(
        ApiClient,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        editable=False,
        db_index=False,
        related_name="+",
    )  # of an entry that came over the API; no other client sees it
    public_id = models.CharField(max_length=32, null=True, editable=False)  # noqa: DJ001 - only a client's have one
    hits = models.PositiveBigIntegerField(default=0, editable=False)  # screenings it fitted; see fold_hits
    last_hit_at = models.DateTimeField(null=True, editable=False)

    objects = ListEntryQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "list entries"
        permissions = [
            ("import_listentry", "Can import a file of list entries"),
            ("export_listentry", "Can export list entries"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["value_hash", "list", "client"], nulls_distinct=False, name="fraud_list_entry_once"
            ),
            models.UniqueConstraint(
                fields=["client", "public_id"],
                condition=Q(client__isnull=False),
                name="fraud_list_entry_of_client",
            ),
            models.CheckConstraint(
                condition=Q(list__in=["block", "allow", "review"]), name="fraud_list_known"
            ),
            models.CheckConstraint(
                condition=Q(client__isnull=True) | Q(public_id__isnull=False), name="fraud_list_client_has_id"
            ),
        ]
        indexes = [
            models.Index(fields=["list", "kind", "-id"], name="fraud_list_entry_page"),
            models.Index(
                fields=["-id"], condition=Q(expires_at__isnull=False), name="fraud_list_entry_ending"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.value_masked} on the {self.list} list"

    @property
    def has_ended(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()

    @property
    def answers(self) -> str:
        """Who answers for it."""
        return self.owner or self.created_by


class ListImport(models.Model):
    """A file of list entries: what it would do, and whether it was done. The file itself is not kept."""

    class State(models.TextChoices):
        READY = "ready", "Waits for a decision"
        APPLYING = "applying", "Being imported"
        DONE = "done", "Imported"
        DISCARDED = "discarded", "Discarded"

    id = PrefixedIdField(prefix="lim")
    state = models.CharField(max_length=10, choices=State.choices, default=State.READY)
    name = models.CharField(max_length=200)
    size = models.PositiveBigIntegerField()
    sha256 = models.CharField(max_length=64)
    owner = models.CharField(max_length=150, blank=True)
    lines = models.PositiveIntegerField(default=0)
    added = models.PositiveIntegerField(default=0)
    renewed = models.PositiveIntegerField(default=0)
    same = models.PositiveIntegerField(default=0)
    repeated = models.PositiveIntegerField(default=0)
    bad = models.PositiveIntegerField(default=0)
    looked_at = models.DateTimeField()  # the moment of the dry run: the outcomes of the lines are as of then
    problem = models.CharField(max_length=300, blank=True)  # why it was not imported
    uploaded_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(default=timezone.now)
    decided_by = models.CharField(max_length=150, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name = "list import"
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["ready", "applying", "done", "discarded"]),
                name="fraud_list_import_state",
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def seen(self) -> str:
        """What a decision is bound to: the file's bytes, and the moment of the dry run that was shown."""
        return f"{self.sha256}@{self.looked_at:%Y-%m-%dT%H:%M:%S.%f}"


class ListImportLine(models.Model):
    """One line of a file: what it would do, or the column and the cause that make it bad."""

    class Outcome(models.TextChoices):
        ADDED = "added", "Would be added"
        RENEWED = "renewed", "Would be renewed"
        SAME = "same", "Is there already"
        REPEATED = "repeated", "Repeats an earlier line"
        BAD = "bad", "Bad"

    file = models.ForeignKey(
        ListImport, on_delete=models.CASCADE, related_name="entries", db_constraint=False, db_index=False
    )
    line = models.PositiveIntegerField()
    outcome = models.CharField(max_length=8, choices=Outcome.choices)
    list = models.CharField(max_length=8, blank=True)
    kind = models.CharField(max_length=10, blank=True)
    value_hash = models.CharField(max_length=64, blank=True)
    value_masked = models.CharField(max_length=100, blank=True)
    reason = models.CharField(max_length=200, blank=True)
    expires_at = models.DateTimeField(null=True)
    column = models.CharField(max_length=20, blank=True)
    cause = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["line"]
        indexes = [models.Index(fields=["file", "outcome", "line"], name="fraud_list_import_line")]

    def __str__(self) -> str:
        return f"line {self.line}"


class ListChange(models.Model):
    """One addition, renewal, change or end of an entry: who, when, why. Append-only; the database refuses the rest."""

    class Action(models.TextChoices):
        ADDED = "added", "Added"
        RENEWED = "renewed", "Renewed"
        CHANGED = "changed", "Changed"
        ENDED = "ended", "Ended"

    entry = models.ForeignKey(ListEntry, on_delete=models.PROTECT, related_name="changes")
    action = models.CharField(max_length=8, choices=Action.choices)
    reason = models.CharField(max_length=200)
    expires_at = models.DateTimeField(null=True)
    actor = models.CharField(max_length=150, blank=True)
    file = models.ForeignKey(
        ListImport, on_delete=models.PROTECT, null=True, related_name="+", db_constraint=False, db_index=False
    )
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-id"]
        verbose_name = "list change"
        constraints = [
            models.CheckConstraint(
                condition=Q(action__in=["added", "renewed", "changed", "ended"]),
                name="fraud_list_change_action",
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_action_display()} by {self.actor or 'the system'}"


class ListHit(models.Model):
    """An entry fitted a screening, not yet added to the entry's own count: inserts do not wait for each other."""

    entry = models.ForeignKey(
        ListEntry, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"hit of {self.entry_id}"
