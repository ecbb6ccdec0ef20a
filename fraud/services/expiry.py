"""What the clock does with a review that nobody decided, by the policy of the settings."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from fraud import policy
from fraud.models import Review, ReviewState
from fraud.services.claims import escalate_review
from fraud.services.decisions import end_review
from fraud.services.guards import SYSTEM, lock_open
from payments import services
from payments.errors import ConflictError

AT_ONCE = 500
TOLD = "Nobody decided in time."


def expire_reviews(*, now: datetime | None = None) -> int:
    """End what nobody decided in time, as the policy says; the number of reviews that ended.

    Escalates first where the policy is to. An approval comes a little before the end, as the saga gives up at
    that very moment, and never when the authorization has ended or a person must have looked.
    """
    now = now or timezone.now()
    if policy.at_expiry() is policy.AtExpiry.ESCALATE:
        _escalate_due(now)
    is_approving = policy.at_expiry() is policy.AtExpiry.APPROVE
    lead = policy.APPROVAL_LEAD if is_approving else timedelta(0)
    due = list(Review.objects.due(now + lead).values_list("pk", flat=True)[:AT_ONCE])
    return sum(_expire(review_id, now) for review_id in due)


def _expire(review_id: str, now: datetime) -> bool:
    """False when it is too early for this one, or somebody decided, or the saga went on and ends it itself."""
    try:
        with transaction.atomic():
            review = lock_open(review_id, actor=SYSTEM, wish="ended")
            if _may_approve(review, now):
                end_review(review, ReviewState.APPROVED, actor=SYSTEM, reason_code="", note=TOLD)
                services.release_review(review.order_id, actor=SYSTEM)
            elif review.expires_at <= now:
                end_review(review, ReviewState.EXPIRED, actor=SYSTEM, reason_code="", note=TOLD)
                services.reject_review(review.order_id, actor=SYSTEM, reason="review_expired")
            else:
                return False
    except ConflictError:
        return False
    return True


def _may_approve(review: Review, now: datetime) -> bool:
    """Never by the clock: what takes two people, what was left to a supervisor, and what no rule has judged."""
    total = review.order.total
    needs_person = policy.takes_two(total) or review.escalated_at or review.assessment_id is None
    return policy.is_approved_at_expiry(total) and not needs_person and _is_money_held(review, now)


def _is_money_held(review: Review, now: datetime) -> bool:
    until = review.payment.authorization_expires_at
    return until is None or until > now


def _escalate_due(now: datetime) -> None:
    """Once, and not from under the hands of who works on it."""
    near = Review.objects.due(now + policy.ESCALATION_LEAD).filter(escalated_at__isnull=True)
    free = near.filter(Q(claim_expires_at__isnull=True) | Q(claim_expires_at__lte=now))
    for review_id in free.values_list("pk", flat=True)[:AT_ONCE]:
        try:
            escalate_review(review_id, actor=SYSTEM, note=f"{TOLD} It expires soon.")
        except ConflictError:
            continue
