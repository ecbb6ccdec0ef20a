"""Saga runs, their effects, events and signals: the durable memory of the engine."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

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


class SagaRunQuerySet(models.QuerySet["SagaRun"]):
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
        permissions = [("operate_saga", "Can retry and compensate a saga")]
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
