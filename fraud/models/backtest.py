"""Back-tests that somebody asked for: their progress and what they found."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from fraud.models.ruleset import RuleSet
from payments.models.fields import PrefixedIdField


class BackTestState(models.TextChoices):
    WAITING = "waiting", "Waiting"
    RUNNING = "running", "Running"
    DONE = "done", "Done"
    FAILED = "failed", "Failed"
    CANCELED = "canceled", "Canceled"


ENDED = (BackTestState.DONE, BackTestState.FAILED, BackTestState.CANCELED)


class BackTestQuerySet(models.QuerySet["BackTest"]):
    def unfinished(self) -> BackTestQuerySet:
        return self.exclude(state__in=ENDED)


class BackTest(models.Model):
    """What a rule set would have decided of the orders of a period, beside another set; run by a worker.

    `sweep` names a rule and the parameter to vary, or nothing: {"rule": key, "parameter": name, "values": [...]}.
    """

    id = PrefixedIdField(prefix="btr")
    ruleset = models.ForeignKey(RuleSet, on_delete=models.PROTECT, related_name="backtests")
    beside = models.ForeignKey(
        RuleSet, on_delete=models.PROTECT, null=True, blank=True, related_name="backtests_beside"
    )
    since = models.DateTimeField()
    until = models.DateTimeField()
    sweep = models.JSONField(default=dict, blank=True)
    state = models.CharField(max_length=10, choices=BackTestState.choices, default=BackTestState.WAITING)
    progress = models.PositiveSmallIntegerField(default=0, help_text="Per cent.")
    step = models.CharField(max_length=100, blank=True)
    error = models.CharField(max_length=500, blank=True)
    result = models.JSONField(default=dict, blank=True)
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True)
    beat_at = models.DateTimeField(null=True, help_text="When the worker last gave a sign.")
    ended_at = models.DateTimeField(null=True)

    objects = BackTestQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        permissions = [("run_backtest", "Can start and cancel back-tests")]
        verbose_name = "back-test"
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=BackTestState.values), name="fraud_backtest_state_known"
            ),
            models.CheckConstraint(
                condition=Q(since__lt=models.F("until")), name="fraud_backtest_period_forward"
            ),
        ]

    def __str__(self) -> str:
        return f"Back-test of {self.ruleset}"

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED
