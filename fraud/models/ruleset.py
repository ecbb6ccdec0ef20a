"""Rule sets: drafts until somebody else publishes them, then never changed, and what was in force when."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from fraud.decision import ErrorPolicy, Mode, Outcome
from fraud.models.choices import choices_of, values_of
from payments.models.fields import PrefixedIdField


class RuleSetState(models.TextChoices):
    DRAFT = "draft", "Draft"
    SUBMITTED = "submitted", "Waits for another person"
    PUBLISHED = "published", "Published"
    DISCARDED = "discarded", "Discarded"


class RuleSetQuerySet(models.QuerySet["RuleSet"]):
    def locked(self, ruleset_id: str) -> RuleSet:
        """The row under a lock. Raises `RuleSet.DoesNotExist`."""
        return self.select_for_update().get(pk=ruleset_id)

    def live(self) -> RuleSet | None:
        """The set that is in force now."""
        now = RuleActivation.objects.in_force()
        return now.ruleset if now else None


class RuleSet(models.Model):
    """All rules of one version. The database refuses a change once it left the draft (migration 0004)."""

    id = PrefixedIdField(prefix="rset")
    number = models.PositiveIntegerField(unique=True, editable=False)
    state = models.CharField(max_length=10, choices=RuleSetState.choices, default=RuleSetState.DRAFT)
    note = models.CharField("what changes, and why", max_length=500, blank=True)
    based_on = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="drafts", editable=False
    )
    digest = models.CharField(
        max_length=64, blank=True, editable=False, help_text="SHA-256 of every rule, from the submission on."
    )
    editors = models.JSONField(default=list, editable=False, help_text="Who changed the draft.")
    created_by = models.CharField(max_length=150, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    submitted_by = models.CharField(max_length=150, blank=True, editable=False)
    submitted_at = models.DateTimeField(null=True, editable=False)
    published_by = models.CharField(max_length=150, blank=True, editable=False)
    published_at = models.DateTimeField(null=True, editable=False)

    objects = RuleSetQuerySet.as_manager()

    class Meta:
        ordering = ["-number"]
        permissions = [
            ("draft_ruleset", "Can make and change drafts of rule sets"),
            ("publish_ruleset", "Can publish, schedule and roll back rule sets"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=RuleSetState.values), name="fraud_ruleset_state_known"
            ),
            models.CheckConstraint(
                condition=Q(published_by="") | ~Q(published_by=F("submitted_by")),
                name="fraud_ruleset_published_by_another",
            ),
            models.CheckConstraint(
                condition=~Q(state="published") | ~(Q(published_by="") | Q(digest="")),
                name="fraud_ruleset_published_is_signed",
            ),
        ]

    def __str__(self) -> str:
        return f"Rule set {self.number}"

    @property
    def is_draft(self) -> bool:
        return self.state == RuleSetState.DRAFT


class Rule(models.Model):
    """One rule of a set: an expression of the rule language, or the name of a rule written as code."""

    ruleset = models.ForeignKey(RuleSet, on_delete=models.PROTECT, related_name="rules")
    key = models.SlugField(
        max_length=60, help_text="Names the rule in every version: its verdicts and figures hang on it."
    )
    name = models.CharField(max_length=80)
    code = models.CharField(max_length=40, blank=True, help_text="Empty: the expression decides.")
    expression = models.TextField(blank=True)
    parameters = models.JSONField(default=dict, blank=True)
    points = models.PositiveSmallIntegerField(default=0, help_text="Added to the order's score by a hit.")
    outcome = models.CharField(max_length=10, choices=choices_of(Outcome), default=Outcome.SCORE.value)
    mode = models.CharField(
        max_length=8,
        choices=choices_of(Mode),
        default=Mode.SHADOW.value,
        help_text="Shadow: judged and recorded on every order, without effect. Share: in effect for some orders.",
    )
    share = models.PositiveSmallIntegerField(
        "share (%)", default=100, help_text="Of the orders, when the mode is Share; the others are shadow."
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

    class Meta:
        ordering = ["position", "id"]
        constraints = [
            models.UniqueConstraint(fields=["ruleset", "key"], name="fraud_rule_key_once"),
            models.CheckConstraint(condition=Q(mode__in=values_of(Mode)), name="fraud_rule_mode_known"),
            models.CheckConstraint(condition=Q(share__lte=100), name="fraud_rule_share_percent"),
            models.CheckConstraint(
                condition=Q(outcome__in=values_of(Outcome)), name="fraud_rule_outcome_known"
            ),
            models.CheckConstraint(
                condition=Q(code="", expression__gt="") | Q(code__gt="", expression=""),
                name="fraud_rule_one_source",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def to_json(self) -> dict[str, Any]:
        """What the set's digest is made of, and what a comparison of two versions shows."""
        names = ("key", "name", "code", "expression", "parameters", "points", "outcome", "mode", "share")
        return {name: getattr(self, name) for name in (*names, "on_error", "position")}


class RuleActivationQuerySet(models.QuerySet["RuleActivation"]):
    def in_force(self) -> RuleActivation | None:
        """The newest that has begun, by the database's clock."""
        return self.begun().order_by("-starts_at", "-id").select_related("ruleset").first()

    def begun(self) -> RuleActivationQuerySet:
        return self.filter(starts_at__lte=models.functions.Now(), cancelled_at__isnull=True)

    def waiting(self) -> RuleActivationQuerySet:
        return self.filter(starts_at__gt=models.functions.Now(), cancelled_at__isnull=True)


class RuleActivation(models.Model):
    """From when on a published set decides: the first time, or again after another was rolled back."""

    ruleset = models.ForeignKey(RuleSet, on_delete=models.PROTECT, related_name="activations")
    starts_at = models.DateTimeField()
    is_rollback = models.BooleanField(default=False)
    note = models.CharField(max_length=500, blank=True)
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(default=timezone.now)
    cancelled_at = models.DateTimeField(null=True)
    cancelled_by = models.CharField(max_length=150, blank=True)

    objects = RuleActivationQuerySet.as_manager()

    class Meta:
        ordering = ["-starts_at", "-id"]
        indexes = [models.Index(fields=["-starts_at", "-id"], name="fraud_activation_newest")]

    def __str__(self) -> str:
        return f"{self.ruleset} from {self.starts_at:%Y-%m-%d %H:%M} UTC"
