"""The review queue: a case for each order that waits for a person."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from fraud.models.assessment import Assessment
from payments.models import Order, Payment
from payments.models.fields import MinorUnitsField, PrefixedIdField

LEASE_MINUTES = 10


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
