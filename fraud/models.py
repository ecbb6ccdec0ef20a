"""The tables of fraud: rules, what they said of each order, lists, counted events and the review queue."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils import timezone

from fraud.decision import ErrorPolicy, Mode, Outcome, Rule, Status
from fraud.rules import KINDS, ParameterError
from payments.decisions import Decision, Stage
from payments.models import Order, Payment
from payments.models.fields import CurrencyField, MinorUnitsField, PrefixedIdField

LEASE_MINUTES = 10


def choices_of(words: type[StrEnum]) -> list[tuple[str, str]]:
    return [(word.value, word.value.replace("_", " ").capitalize()) for word in words]


def values_of(words: type[StrEnum]) -> list[str]:
    return [word.value for word in words]


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


class Assessment(models.Model):
    """One screening of one order: the decision and the facts as they were. Never changed."""

    id = PrefixedIdField(prefix="asm")
    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="assessments")
    payment = models.ForeignKey(Payment, on_delete=models.PROTECT, related_name="assessments")
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
        ]

    def __str__(self) -> str:
        return f"{self.decision} {self.stage} authorization"


class Verdict(models.Model):
    """What one rule said in one assessment, with the rule's name and kind as they were then."""

    assessment = models.ForeignKey(Assessment, on_delete=models.PROTECT, related_name="verdicts")
    rule = models.ForeignKey(RuleConfig, on_delete=models.SET_NULL, null=True, related_name="verdicts")
    rule_name = models.CharField(max_length=80)
    rule_kind = models.CharField(max_length=20)
    status = models.CharField(max_length=8, choices=choices_of(Status))
    outcome = models.CharField(
        max_length=10, choices=choices_of(Outcome), blank=True, help_text="Empty: without effect."
    )
    value = models.CharField(max_length=200, blank=True)
    threshold = models.CharField(max_length=200, blank=True)
    points = models.PositiveSmallIntegerField(default=0)
    microseconds = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["assessment", "id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=values_of(Status)), name="fraud_verdict_status_known"
            )
        ]
        indexes = [models.Index(fields=["rule", "status"], name="fraud_verdict_rule")]

    def __str__(self) -> str:
        return self.describe()

    @property
    def is_reason(self) -> bool:
        return bool(self.outcome)

    def describe(self) -> str:
        """For people: `Card velocity: card used on 6 orders (limit 4 in 1 h)`."""
        limit = f" ({self.threshold})" if self.threshold else ""
        return f"{self.rule_name}: {self.value}{limit}"


class ListEntryQuerySet(models.QuerySet["ListEntry"]):
    def valid(self) -> ListEntryQuerySet:
        return self.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=timezone.now()))

    def matching(self, hashes: Iterable[str]) -> ListEntryQuerySet:
        """Valid entries for any of these keyed hashes: one index look-up whatever the size of the lists."""
        return self.valid().filter(value_hash__in=list(hashes))


class ListEntry(models.Model):
    """A value on a list. The value itself is not kept: a keyed hash finds it, a masked form shows it."""

    class List(models.TextChoices):
        BLOCK = "block", "Block"
        ALLOW = "allow", "Allow"
        REVIEW = "review", "Review"

    class Kind(models.TextChoices):
        EMAIL = "email", "E-mail"
        IP = "ip", "IP address"
        CARD = "card", "Card"
        DEVICE = "device", "Device"
        CUSTOMER = "customer", "Customer"
        COUNTRY = "country", "Country"

    list = models.CharField(max_length=8, choices=List.choices, default=List.BLOCK)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    value_hash = models.CharField(max_length=64, editable=False)
    value_masked = models.CharField("value", max_length=100, editable=False)
    reason = models.CharField(max_length=200)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Empty: for ever.")
    created_by = models.CharField(max_length=150, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = ListEntryQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "list entries"
        constraints = [
            models.UniqueConstraint(fields=["value_hash", "list"], name="fraud_list_entry_once"),
            models.CheckConstraint(
                condition=Q(list__in=["block", "allow", "review"]), name="fraud_list_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.value_masked} on the {self.list} list"


class VelocityEvent(models.Model):
    """One order counted under one key: the truth behind every velocity count."""

    class Kind(models.TextChoices):
        ATTEMPT = "attempt", "Attempt"
        DECLINE = "decline", "Decline"
        APPROVED = "approved", "Approved"

    dimension = models.CharField(max_length=10)
    key_hash = models.CharField(max_length=32)
    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="velocity_events")
    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.ATTEMPT)
    amount = MinorUnitsField()
    currency = CurrencyField()
    at = models.DateTimeField(help_text="By the database's clock.")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["dimension", "key_hash", "order", "kind"], name="fraud_velocity_event_once"
            )
        ]
        indexes = [models.Index(fields=["dimension", "key_hash", "kind", "at"], name="fraud_velocity_window")]

    def __str__(self) -> str:
        return f"{self.kind} by {self.dimension} of {self.order_id}"


class ReviewState(models.TextChoices):
    OPEN = "open", "Open"
    APPROVED = "approved", "Approved"
    REJECTED = "rejected", "Rejected"
    EXPIRED = "expired", "Expired"
    CLOSED = "closed", "Closed"


class ReasonCode(models.TextChoices):
    """Why an analyst decided so: labels for what the rules were worth."""

    CONFIRMED_FRAUD = "confirmed_fraud", "Confirmed fraud"
    STOLEN_CARD = "stolen_card", "Stolen card suspected"
    ACCOUNT_TAKEOVER = "account_takeover", "Account takeover suspected"
    POLICY_ABUSE = "policy_abuse", "Abuse of a policy"
    NOT_VERIFIED = "not_verified", "Customer could not be verified"
    GENUINE = "genuine", "Genuine customer"
    VERIFIED = "verified", "Customer verified"
    OTHER = "other", "Other (see the note)"


REJECT_REASONS = (
    ReasonCode.CONFIRMED_FRAUD,
    ReasonCode.STOLEN_CARD,
    ReasonCode.ACCOUNT_TAKEOVER,
    ReasonCode.POLICY_ABUSE,
    ReasonCode.NOT_VERIFIED,
    ReasonCode.OTHER,
)
APPROVE_REASONS = (ReasonCode.GENUINE, ReasonCode.VERIFIED, ReasonCode.OTHER)


class ReviewQuerySet(models.QuerySet["Review"]):
    def open(self) -> ReviewQuerySet:
        return self.filter(state=ReviewState.OPEN)

    def urgent_first(self) -> ReviewQuerySet:
        """What expires first, then the highest score, then the largest amount."""
        return self.order_by("expires_at", "-score", "-amount", "id")

    def claimable(self, user: Any) -> ReviewQuerySet:
        """Open cases that nobody else holds now."""
        return self.open().filter(
            Q(claimed_by__isnull=True) | Q(claimed_by=user) | Q(claim_expires_at__lte=timezone.now())
        )

    def locked_next(self, candidates: ReviewQuerySet) -> Review | None:
        """The most urgent candidate that no other transaction holds, under a row lock."""
        return candidates.urgent_first().select_for_update(skip_locked=True, of=("self",)).first()

    def due(self, now: datetime) -> ReviewQuerySet:
        """Open cases whose time is over."""
        return self.open().filter(expires_at__lte=now)


class Review(models.Model):
    """One case of the queue: an order whose money is held until somebody decides, or the time is over."""

    id = PrefixedIdField(prefix="rev")
    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="reviews")
    payment = models.ForeignKey(Payment, on_delete=models.PROTECT, related_name="reviews")
    assessment = models.ForeignKey(
        Assessment, on_delete=models.PROTECT, null=True, blank=True, related_name="reviews"
    )
    state = models.CharField(max_length=10, choices=ReviewState.choices, default=ReviewState.OPEN)
    score = models.PositiveIntegerField(default=0)
    amount = MinorUnitsField(help_text="Minor units, a copy of the order's to sort by.")
    claimed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    claim_expires_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(help_text="Rejected by policy if nobody decided until then.")
    reason_code = models.CharField(max_length=30, choices=ReasonCode.choices, blank=True)
    note = models.TextField(blank=True)
    decided_by = models.CharField(max_length=150, blank=True)
    decided_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    objects = ReviewQuerySet.as_manager()

    class Meta:
        ordering = ["expires_at", "-score", "-amount", "id"]
        permissions = [
            ("claim_review", "Can claim a review"),
            ("decide_review", "Can approve or reject a review"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=ReviewState.values), name="fraud_review_state_known"
            ),
            models.CheckConstraint(
                condition=Q(state="open", decided_at__isnull=True)
                | (~Q(state="open") & Q(decided_at__isnull=False)),
                name="fraud_review_decided_once_left",
            ),
            models.UniqueConstraint(
                fields=["order"], condition=Q(state="open"), name="fraud_review_one_open_per_order"
            ),
        ]
        indexes = [
            models.Index(
                fields=["expires_at", "-score", "-amount"],
                condition=Q(state="open"),
                name="fraud_review_queue",
            ),
            models.Index(fields=["state", "-id"], name="fraud_review_state_newest"),
        ]

    def __str__(self) -> str:
        return f"Review of {self.order_id}"

    @property
    def is_open(self) -> bool:
        return self.state == ReviewState.OPEN

    def holder(self, now: datetime | None = None) -> Any:
        """The user whose claim still holds, or None."""
        is_held = self.claim_expires_at is not None and self.claim_expires_at > (now or timezone.now())
        return self.claimed_by if is_held else None
