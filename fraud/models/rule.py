"""The rules and what each leads to."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q

from fraud.decision import ErrorPolicy, Mode, Outcome, Rule
from fraud.models.choices import choices_of, values_of
from fraud.rules import KINDS, ParameterError
from payments.decisions import Stage


class RuleConfigQuerySet(models.QuerySet["RuleConfig"]):
    def load(self) -> list[Rule]:
        """Every rule that is not off, in order. Raises `ParameterError` for a row edited past its check."""
        return [row.to_rule() for row in self.exclude(mode=Mode.OFF)]


class RuleConfig(models.Model):
    """One built-in rule, its parameters, points and what a hit leads to; in effect from the next order."""

    name = models.CharField(max_length=80, unique=True)
    kind = models.CharField(max_length=20, choices=[(kind.name, kind.label) for kind in KINDS.values()])
    parameters = models.JSONField(default=dict, blank=True)
    points = models.PositiveSmallIntegerField(default=0, help_text="Added to the order's score by a hit.")
    outcome = models.CharField(max_length=10, choices=choices_of(Outcome), default=Outcome.SCORE.value)
    mode = models.CharField(
        max_length=8,
        choices=choices_of(Mode),
        default=Mode.SHADOW.value,
        help_text="Shadow: judged and recorded on every order, without effect.",
    )
    on_error = models.CharField(
        "when it cannot tell",
        max_length=8,
        choices=choices_of(ErrorPolicy),
        default=ErrorPolicy.REVIEW.value,
        help_text="A fact is missing or the rule fails: a hit, a miss, or a reason for review.",
    )
    position = models.PositiveSmallIntegerField(
        default=100, help_text="The lowest is judged and shown first."
    )
    updated_at = models.DateTimeField(auto_now=True)

    objects = RuleConfigQuerySet.as_manager()

    class Meta:
        ordering = ["position", "id"]
        verbose_name = "rule"
        constraints = [
            models.CheckConstraint(condition=Q(kind__in=list(KINDS)), name="fraud_rule_kind_known"),
            models.CheckConstraint(condition=Q(mode__in=values_of(Mode)), name="fraud_rule_mode_known"),
            models.CheckConstraint(
                condition=Q(outcome__in=values_of(Outcome)), name="fraud_rule_outcome_known"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def to_rule(self) -> Rule:
        """The rule as plain Python. Raises `ParameterError`."""
        return Rule(
            id=self.pk,
            name=self.name,
            kind=self.kind,
            parameters=KINDS[self.kind].parameters.from_json(self.parameters),
            points=self.points,
            outcome=Outcome(self.outcome),
            mode=Mode(self.mode),
            on_error=ErrorPolicy(self.on_error),
        )

    def clean(self) -> None:
        try:
            rule = self.to_rule()
        except (ParameterError, TypeError) as error:
            raise ValidationError({"parameters": str(error)}) from None
        except (KeyError, ValueError):
            return  # the field's own choices say it better
        if rule.outcome is Outcome.CHALLENGE and Stage.BEFORE_AUTHORIZATION not in KINDS[rule.kind].stages(
            rule.parameters
        ):
            raise ValidationError(
                {"outcome": "This rule runs after the authorization: it is too late for 3-D Secure."}
            )
