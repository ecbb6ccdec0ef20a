"""The review queue: a case for each order that waits for a person."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from fraud.models.assessment import Assessment
from payments.models import Order, Payment
from payments.models.fields import MinorUnitsField, PrefixedIdField

LEASE_MINUTES = 10
PERSON = "user:"  # what the actor of a person begins with


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
# What is said of the order, and not only of a policy or of a customer who did not answer.


class ReviewQuerySet(models.QuerySet["Review"]):
    def open(self) -> ReviewQuerySet:
        return self.filter(state=ReviewState.OPEN)

    def urgent_first(self) -> ReviewQuerySet:
        """What expires first, then the highest score, then the largest amount."""
        return self.order_by("expires_at", "-score", "-amount", "id")

    def held_by_nobody_else(self, user: Any) -> ReviewQuerySet:
        """Open cases that nobody else holds now."""
        return self.open().filter(
            Q(claimed_by__isnull=True) | Q(claimed_by=user) | Q(claim_expires_at__lte=timezone.now())
        )

    def asleep(self) -> ReviewQuerySet:
        """Snoozed until later, and nothing has happened to the order since."""
        return self.open().filter(ASLEEP, snoozed_until__gt=timezone.now())

    def awake(self) -> ReviewQuerySet:
        return self.open().exclude(ASLEEP & Q(snoozed_until__gt=timezone.now()))

    def fit_for(self, user: Any) -> ReviewQuerySet:
        """What this user may decide: escalated cases and other people's proposals take a right of their own."""
        cases = self
        if not user.has_perm("fraud.decide_escalated_review"):
            cases = cases.filter(escalated_at__isnull=True)
        if not user.has_perm("fraud.confirm_review"):
            return cases.filter(proposed_by="")
        return cases.exclude(proposed_by=f"{PERSON}{user.get_username()}")

    def claimable(self, user: Any) -> ReviewQuerySet:
        """What the user may be given as the next case."""
        return self.held_by_nobody_else(user).awake().fit_for(user)

    def locked_next(self, candidates: ReviewQuerySet) -> Review | None:
        """The most urgent candidate that no other transaction holds, under a row lock."""
        return candidates.urgent_first().select_for_update(skip_locked=True, of=("self",)).first()

    def locked(self, review_id: str) -> Review | None:
        """The case under a row lock, with its holder; taken after its order's."""
        rows = self.select_for_update(of=("self",)).select_related("claimed_by", "order", "payment")
        return rows.filter(pk=review_id).first()

    def due(self, now: datetime) -> ReviewQuerySet:
        """Open cases whose time is over."""
        return self.open().filter(expires_at__lte=now)

    def late(self, sla: timedelta) -> ReviewQuerySet:
        """Open cases that have waited longer than was promised."""
        return self.open().filter(created_at__lte=timezone.now() - sla)


ASLEEP = Q(snoozed_at_event=F("order__event_sequence"))


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
    snoozed_until = models.DateTimeField(null=True, blank=True)
    snoozed_at_event = models.PositiveIntegerField(
        null=True, blank=True, help_text="The order's last event then; the next one ends the snooze."
    )
    escalated_at = models.DateTimeField(null=True, blank=True)
    escalated_by = models.CharField(max_length=150, blank=True, default="", db_default="")
    escalation_note = models.TextField(blank=True, default="", db_default="")
    proposed_at = models.DateTimeField(null=True, blank=True)
    proposed_by = models.CharField(
        max_length=150, blank=True, default="", db_default="", help_text="Who asks for a second approval."
    )
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
            ("decide_escalated_review", "Can claim and decide an escalated review"),
            ("confirm_review", "Can confirm or return somebody else's proposal to approve"),
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
            models.CheckConstraint(
                condition=~Q(state="approved") | Q(proposed_by="") | ~Q(proposed_by=F("decided_by")),
                name="fraud_review_two_people",
            ),
        ]
        indexes = [
            models.Index(
                fields=["expires_at", "-score", "-amount"],
                condition=Q(state="open"),
                name="fraud_review_queue",
            ),
            models.Index(fields=["state", "-id"], name="fraud_review_state_newest"),
            models.Index(
                fields=["decided_at"], condition=Q(decided_at__isnull=False), name="fraud_review_decided"
            ),
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

    @property
    def is_asleep(self) -> bool:
        """Snoozed, and nothing has happened to the order since."""
        is_later = self.snoozed_until is not None and self.snoozed_until > timezone.now()
        return self.is_open and is_later and self.snoozed_at_event == self.order.event_sequence


class ReviewEventKind(models.TextChoices):
    """What a line of a case's history tells."""

    ESCALATED = "escalated", "Escalated"
    SNOOZED = "snoozed", "Snoozed"
    HANDED_OVER = "handed_over", "Handed over"
    PROPOSED = "proposed", "Approval proposed"
    RETURNED = "returned", "Proposal returned"
    CONFIRMED = "confirmed", "Approval confirmed"
    APPROVED = "approved", "Approved"
    REJECTED = "rejected", "Rejected"
    EXPIRED = "expired", "Expired"
    LISTED = "listed", "Put on a list"


class ReviewEvent(models.Model):
    """One line of a case's history. Never changed: the database refuses it."""

    review = models.ForeignKey(Review, on_delete=models.PROTECT, related_name="events")
    kind = models.CharField(max_length=12, choices=ReviewEventKind.choices)
    actor = models.CharField(max_length=150)
    note = models.TextField(blank=True)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=ReviewEventKind.values), name="fraud_review_event_known"
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} by {self.actor.removeprefix(PERSON)}"
