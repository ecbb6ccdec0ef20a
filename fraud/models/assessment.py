"""What the rules said of each order, and the facts as they were."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from fraud.decision import Outcome, Status
from fraud.models.choices import choices_of, values_of
from fraud.models.ruleset import Rule, RuleSet
from payments.decisions import Decision, Stage
from payments.models import Order, Payment
from payments.models.fields import PrefixedIdField

MAX_NANOSECONDS = 2**31 - 1  # two seconds: what took longer (a pause, a slow provider) is kept as that


class Assessment(models.Model):
    """One screening of one order: the decision and the facts as they were. Never changed."""

    id = PrefixedIdField(prefix="asm")
    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="assessments")
    payment = models.ForeignKey(Payment, on_delete=models.PROTECT, related_name="assessments")
    ruleset = models.ForeignKey(RuleSet, on_delete=models.PROTECT, null=True, related_name="assessments")
    stage = models.CharField(max_length=8, choices=choices_of(Stage))
    decision = models.CharField(max_length=10, choices=choices_of(Decision))
    score = models.PositiveIntegerField()
    context = models.JSONField(help_text="The facts as they were, personal values masked.")
    microseconds = models.PositiveIntegerField()
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(decision__in=values_of(Decision)), name="fraud_assessment_decision_known"
            )
        ]
        indexes = [
            models.Index(fields=["order", "stage", "-id"], name="fraud_assessment_order"),
            models.Index(fields=["decision", "-id"], name="fraud_assessment_decision"),
            models.Index(fields=["created_at"], name="fraud_assessment_created"),
        ]

    def __str__(self) -> str:
        return f"{self.decision} {self.stage} authorization"


class Verdict(models.Model):
    """What one rule said in one assessment, with the rule's name and kind as they were then."""

    assessment = models.ForeignKey(Assessment, on_delete=models.PROTECT, related_name="verdicts")
    rule = models.ForeignKey(Rule, on_delete=models.PROTECT, null=True, related_name="verdicts")
    rule_key = models.CharField(max_length=60, help_text="The same in every version of the rule.")
    rule_name = models.CharField(max_length=80)
    rule_kind = models.CharField(max_length=40, help_text="expression, total, or the name of its code.")
    status = models.CharField(max_length=8, choices=choices_of(Status))
    outcome = models.CharField(
        max_length=10, choices=choices_of(Outcome), blank=True, help_text="Empty: without effect."
    )
    value = models.CharField(max_length=200, blank=True)
    threshold = models.CharField(max_length=200, blank=True)
    points = models.PositiveSmallIntegerField(default=0)
    nanoseconds = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["assessment", "id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=values_of(Status)), name="fraud_verdict_status_known"
            )
        ]
        indexes = [
            models.Index(fields=["rule_key", "status", "-id"], name="fraud_verdict_rule"),
            models.Index(  # few of many, and all that the measures read of them
                fields=["assessment"],
                include=["rule_key", "rule_kind", "status"],
                condition=Q(status__in=["hit", "shadow", "snoozed"]),
                name="fraud_verdict_hits",
            ),
        ]

    def __str__(self) -> str:
        return self.describe()

    @property
    def is_reason(self) -> bool:
        return bool(self.outcome)

    def describe(self) -> str:
        """For people: `Card velocity: card used on 6 orders (limit 4 in 1 h)`."""
        limit = f" ({self.threshold})" if self.threshold else ""
        return f"{self.rule_name}: {self.value}{limit}"
