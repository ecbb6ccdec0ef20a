"""Saga runs, their effects, events and signals: the durable memory of the engine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, models
from django.db.models import Q
from django.db.models.functions import Lower
from django.db.models.lookups import Exact
from django.utils import timezone

from payments.models.fields import PrefixedIdField
from payments.models.order import Order


class SagaState(models.TextChoices):
    PENDING = "PENDING", "Pending"
    RUNNING = "RUNNING", "Running"
    WAITING = "WAITING", "Waiting"
    COMPLETED = "COMPLETED", "Completed"
    COMPENSATING = "COMPENSATING", "Compensating"
    COMPENSATED = "COMPENSATED", "Compensated"
    FAILED_COMPENSATION = "FAILED_COMPENSATION", "Compensation failed"
    QUARANTINED = "QUARANTINED", "Quarantined"
    FORCED = "FORCED", "Forced"


TERMINAL_STATES = (SagaState.COMPLETED, SagaState.COMPENSATED, SagaState.FORCED)
# Nothing moves these but an operator.
STUCK_STATES = (SagaState.FAILED_COMPENSATION, SagaState.QUARANTINED)
DRIVEN_STATES = (SagaState.PENDING, SagaState.RUNNING, SagaState.WAITING, SagaState.COMPENSATING)


# What a payment has at stake while a saga `run` does not get on, in SQL: of a refund what is on its way back, else what
# is held on the card, and what is captured and not given back.
HELD = """CASE WHEN run.kind = 'refund' THEN 0 WHEN payment.captured = 0 THEN payment.authorized
    ELSE payment.capturable END"""
TAKEN = """CASE WHEN run.kind = 'refund' THEN payment.refund_pending
    ELSE payment.captured - payment.refunded - payment.disputed_lost END"""
_STUCK_GROUPS = f"""
WITH stuck AS (
    SELECT state, kind, step, coalesce(last_error->>'code', '') AS code, updated_at, order_id
    FROM payments_sagarun WHERE state IN ('FAILED_COMPENSATION', 'QUARANTINED')
), at_stake AS (  -- once for each payment of a group
    SELECT DISTINCT run.state, run.kind, run.step, run.code, payment.id, payment.currency,
        {HELD} AS held, {TAKEN} AS taken
    FROM stuck AS run JOIN payments_payment AS payment ON payment.order_id = run.order_id
), sums AS (
    SELECT state, kind, step, code, currency, sum(held) AS held, sum(taken) AS taken
    FROM at_stake GROUP BY state, kind, step, code, currency
), amounts AS (
    SELECT state, kind, step, code, jsonb_object_agg(currency, jsonb_build_array(held, taken)) AS amounts
    FROM sums GROUP BY state, kind, step, code
), groups AS (
    SELECT state, kind, step, code, count(*) AS count, min(updated_at) AS oldest, max(updated_at) AS newest
    FROM stuck GROUP BY state, kind, step, code
)
SELECT state, kind, step, code, count, oldest, newest, coalesce(amounts, '{{}}')
FROM groups LEFT JOIN amounts USING (state, kind, step, code) ORDER BY count DESC, oldest
"""  # noqa: S608 - constants only


@dataclass(frozen=True, slots=True)
class StuckGroup:
    """Sagas that stopped for one cause. `amounts` says per currency the minor units held and taken."""

    state: str
    kind: str
    step: str
    code: str
    count: int
    oldest: datetime
    newest: datetime
    amounts: dict[str, tuple[int, int]]

    @property
    def at_risk(self) -> dict[str, int]:
        """Minor units per currency, held and taken together."""
        return {currency: held + taken for currency, (held, taken) in self.amounts.items() if held + taken}


def _read_group(
    state: str, kind: str, step: str, code: str, count: int, oldest: datetime, newest: datetime, amounts: str
) -> StuckGroup:
    read = {currency: (held, taken) for currency, (held, taken) in json.loads(amounts).items()}
    return StuckGroup(state, kind, step, code, count, oldest, newest, read)


class SagaRunQuerySet(models.QuerySet["SagaRun"]):
    def stuck_groups(self) -> list[StuckGroup]:
        """All stuck runs by cause, in one query over the partial index of the stuck."""
        with connection.cursor() as cursor:
            cursor.execute(_STUCK_GROUPS)
            return [_read_group(*row) for row in cursor.fetchall()]

    def in_group(self, *, state: str, kind: str, step: str, code: str) -> SagaRunQuerySet:
        """The stuck runs of one cause, the oldest first."""
        same = self.stuck().filter(state=state, kind=kind, step=step)
        no_code = Q(last_error__code__isnull=True) | Q(last_error__code="")
        return same.filter(Q(last_error__code=code) if code else no_code).order_by("updated_at", "id")

    def stuck(self) -> SagaRunQuerySet:
        """Waiting for an operator."""
        return self.filter(state__in=STUCK_STATES)

    def live(self) -> SagaRunQuerySet:
        return self.exclude(state__in=TERMINAL_STATES)


class SagaRun(models.Model):
    """One run of one recipe. Written only by payments.sagas.store, always `WHERE epoch = mine`."""

    id = PrefixedIdField(prefix="sag")
    kind = models.CharField(max_length=40)
    definition_version = models.PositiveSmallIntegerField()
    order = models.ForeignKey(
        Order, on_delete=models.PROTECT, related_name="sagas", null=True, blank=True, db_index=False
    )
    subject = models.CharField(
        max_length=64, help_text="What the run is about; one live run per kind and subject."
    )
    state = models.CharField(max_length=20, choices=SagaState.choices, default=SagaState.PENDING)
    step = models.CharField(
        max_length=40, blank=True, help_text="The step that runs, waits or is being undone."
    )
    data = models.JSONField(default=dict, blank=True)
    epoch = models.PositiveIntegerField(default=0)
    lease_owner = models.CharField(max_length=80, blank=True)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    wake_at = models.DateTimeField(null=True, blank=True)
    deadline_at = models.DateTimeField(null=True, blank=True)
    waiting_for = models.CharField(max_length=40, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0, help_text="Tries of this step without progress.")
    last_error = models.JSONField(null=True, blank=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    objects = SagaRunQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        verbose_name = "saga"
        permissions = [
            ("operate_saga", "Can retry, compensate, skip and extend a saga, and note on it"),
            ("force_saga", "Can propose to force a saga to its end"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=SagaState.values), name="saga_state_known"),
            models.UniqueConstraint(
                fields=["kind", "subject"],
                condition=~Q(state__in=["COMPLETED", "COMPENSATED", "FORCED"]),
                name="saga_one_live_per_subject",
            ),
        ]
        indexes = [
            models.Index(
                fields=["wake_at"],
                condition=Q(state__in=["PENDING", "RUNNING", "WAITING", "COMPENSATING"]),
                name="saga_due",
            ),
            models.Index(fields=["order"], name="saga_order"),
            models.Index(
                fields=["-id"],
                condition=Q(state__in=["FAILED_COMPENSATION", "QUARANTINED"]),
                name="saga_stuck",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


class SagaEffect(models.Model):
    """One thing that a run does to the outside world: the intent is committed before, the outcome after."""

    class Direction(models.TextChoices):
        DO = "do", "Do"
        UNDO = "undo", "Undo"

    class Outcome(models.TextChoices):
        OK = "ok", "Done"
        DECLINED = "declined", "Declined"
        FAILED = "failed", "Failed"
        UNKNOWN = "unknown", "Unknown"
        ABSENT = "absent", "Never happened"
        SKIPPED = "skipped", "Skipped by an operator"

    # No constraint to check for each row: the store inserts them FROM the very run that it fenced.
    run = models.ForeignKey(
        SagaRun, on_delete=models.PROTECT, related_name="effects", db_index=False, db_constraint=False
    )
    step = models.CharField(max_length=40)
    direction = models.CharField(max_length=4, choices=Direction.choices)
    attempt = models.PositiveSmallIntegerField(default=1)
    gateway_key = models.CharField(max_length=80, blank=True)
    reference = models.CharField(
        max_length=100, blank=True, help_text="The operation, shipment or reservation."
    )
    outcome = models.CharField(max_length=10, choices=Outcome.choices, null=True, blank=True)  # noqa: DJ001
    intent_at = models.DateTimeField()
    outcome_at = models.DateTimeField(null=True, blank=True)
    note = models.TextField(blank=True, db_default="", help_text="Why an operator skipped it.")

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["run", "step", "direction", "attempt"], name="saga_effect_once"),
        ]

    def __str__(self) -> str:
        return f"{self.direction} {self.step} of {self.run_id}"


class SagaEvent(models.Model):
    """The append-only diary of a run."""

    run = models.ForeignKey(
        SagaRun, on_delete=models.PROTECT, related_name="diary", db_index=False, db_constraint=False
    )
    at = models.DateTimeField()
    kind = models.CharField(max_length=40)
    step = models.CharField(max_length=40, blank=True)
    detail = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ["id"]
        indexes = [models.Index(fields=["run", "id"], name="saga_event_run")]

    def __str__(self) -> str:
        return f"{self.kind} {self.step}"


class SagaSignal(models.Model):
    """A message for a waiting run; one that comes before the wait is kept until then."""

    run = models.ForeignKey(SagaRun, on_delete=models.PROTECT, related_name="signals", db_index=False)
    name = models.CharField(max_length=40)
    dedupe_id = models.CharField(max_length=80)
    payload = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField()
    consumed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["run", "name", "dedupe_id"], name="saga_signal_once")]

    def __str__(self) -> str:
        return f"{self.name} for {self.run_id}"


class ForceRequest(models.Model):
    """A stuck run that one person wants to end with a gateway's evidence, and another one lets end."""

    class State(models.TextChoices):
        OPEN = "open", "Open"
        DONE = "done", "Approved and done"
        REJECTED = "rejected", "Rejected"

    class Target(models.TextChoices):
        PAID = "paid", "Paid"
        CANCELED = "canceled", "Canceled"

    run = models.ForeignKey(SagaRun, on_delete=models.PROTECT, related_name="force_requests")
    epoch = models.PositiveIntegerField(help_text="Of the run as it was proposed.")
    target = models.CharField(max_length=10, choices=Target.choices)
    evidence = models.TextField(help_text="What the gateway's own pages say.")
    references = models.JSONField(help_text="Where it can be looked up at the gateway.")
    money = models.JSONField(help_text="The payment's totals as they were proposed, in minor units.")
    payload_hash = models.CharField(max_length=64, help_text="Keyed hash of all of the above.")
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    proposed_by = models.CharField(max_length=150)
    decided_by = models.CharField(max_length=150, blank=True)
    decision_note = models.TextField(blank=True)
    created_at = models.DateTimeField()
    decided_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField()

    class Meta:
        ordering = ["-id"]
        permissions = [("decide_forcerequest", "Can decide on a forced end that somebody else proposed")]
        constraints = [
            models.CheckConstraint(
                condition=~Q(proposed_by="") & ~Q(Exact(Lower("decided_by"), Lower("proposed_by"))),
                name="force_second_person",
            ),
            models.CheckConstraint(
                condition=Q(state="open", decided_by="", decided_at__isnull=True)
                | (Q(state__in=["done", "rejected"], decided_at__isnull=False) & ~Q(decided_by="")),
                name="force_decided_by_somebody",
            ),
            models.CheckConstraint(
                condition=Q(target__in=["paid", "canceled"]) & ~Q(evidence=""), name="force_has_evidence"
            ),
            models.UniqueConstraint(fields=["run"], condition=Q(state="open"), name="force_one_open_per_run"),
        ]

    def __str__(self) -> str:
        return f"{self.target} for {self.run_id}"

    @property
    def is_expired(self) -> bool:
        return self.state == self.State.OPEN and self.expires_at <= timezone.now()
