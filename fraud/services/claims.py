"""Who has a case: claim and heartbeat, release, hand over, snooze, escalate."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models.functions import Greatest
from django.utils import timezone

from fraud.models import LEASE_MINUTES, Review, ReviewEventKind
from fraud.policy import SNOOZE_MARGIN
from fraud.services.guards import actor_of, check_note, lock_open, tell_ended, tell_holder, write_event
from payments.errors import ConflictError, InvalidRequestError

LEASE = timedelta(minutes=LEASE_MINUTES)
HANDOVER_LEASE = timedelta(hours=1)  # who is handed a case does not sit before it yet
CLAIM = ["claimed_by", "claim_expires_at"]
SNOOZE = ["snoozed_until", "snoozed_at_event"]


def claim_review(user: Any, review_id: str = "") -> Review | None:
    """Give the user a case for ten minutes: this one, or the most urgent that nobody else holds.

    None: the queue is empty. No two users get the same case. Claiming one's own case again extends it; a snoozed
    case that is asked for is awake again. Raises `ConflictError` when the case asked for is decided, held by
    somebody else, or not for this user.
    """
    with transaction.atomic():
        review = Review.objects.locked_next(_candidates(user, review_id))
        if review is None:
            if review_id:
                raise ConflictError(_why_not(user, review_id))
            return None
        _give(review, user, LEASE)
    return review


def heartbeat(review_id: str, user: Any) -> bool:
    """Extend the claim of who holds the case; False, and nothing changed, when it is not this user's any more."""
    held = Review.objects.open().filter(pk=review_id, claimed_by=user, claim_expires_at__isnull=False)
    return bool(held.update(claim_expires_at=Greatest("claim_expires_at", timezone.now() + LEASE)))


def release_claim(review_id: str, *, user: Any) -> bool:
    """Put the case back for the others; False when the user does not hold it."""
    held = Review.objects.open().filter(pk=review_id, claimed_by=user)
    return bool(held.update(claimed_by=None, claim_expires_at=None))


def hand_over(review_id: str, *, to: Any, actor: str, note: str = "") -> Review:
    """Give the case to another analyst, who has an hour to begin.

    Raises `InvalidRequestError` for somebody who may not have it; `ConflictError` as `lock_open`.
    """
    check_note(note)
    with transaction.atomic():
        review = lock_open(review_id, actor=actor, wish="handed over")
        _check_receiver(review, to, actor)
        _give(review, to, HANDOVER_LEASE)
        told = f"to {to.get_username()}" + (f": {note.strip()}" if note.strip() else "")
        write_event(review, ReviewEventKind.HANDED_OVER, actor=actor, note=told)
    return review


def snooze_review(review_id: str, *, until: datetime, actor: str, note: str = "") -> Review:
    """Take the case out of the queue until then, or until something happens to its order.

    Raises `InvalidRequestError` for a time that is past, or less than an hour before the case expires;
    `ConflictError` as `lock_open`.
    """
    check_note(note)
    with transaction.atomic():
        review = lock_open(review_id, actor=actor, wish="snoozed")
        _check_until(review, until)
        review.snoozed_until, review.snoozed_at_event = until, review.order.event_sequence
        _let_go(review, SNOOZE)
        told = f"until {until:%Y-%m-%d %H:%M} UTC" + (f": {note.strip()}" if note.strip() else "")
        write_event(review, ReviewEventKind.SNOOZED, actor=actor, note=told)
    return review


def escalate_review(review_id: str, *, actor: str, note: str) -> Review:
    """Send the case to the supervisors, with a note. Raises `InvalidRequestError`, `ConflictError`."""
    check_note(note, needed_for="An escalation")
    with transaction.atomic():
        review = lock_open(review_id, actor=actor, wish="escalated")
        if review.escalated_at:
            who = review.escalated_by.removeprefix("user:")
            raise ConflictError(f"This review was escalated by {who} already; nothing was changed.")
        review.escalated_at, review.escalated_by = timezone.now(), actor
        review.escalation_note = note.strip()
        review.snoozed_until = review.snoozed_at_event = None
        _let_go(review, ["escalated_at", "escalated_by", "escalation_note", *SNOOZE])
        write_event(review, ReviewEventKind.ESCALATED, actor=actor, note=note)
    return review


def _candidates(user: Any, review_id: str) -> Any:
    if not review_id:
        return Review.objects.claimable(user)
    return Review.objects.held_by_nobody_else(user).fit_for(user).filter(pk=review_id)


def _give(review: Review, user: Any, lease: timedelta) -> None:
    """Under the row's lock."""
    review.claimed_by, review.claim_expires_at = user, timezone.now() + lease
    review.snoozed_until = review.snoozed_at_event = None
    review.save(update_fields=[*CLAIM, *SNOOZE])


def _let_go(review: Review, changed: list[str]) -> None:
    review.claimed_by = review.claim_expires_at = None
    review.save(update_fields=[*changed, *CLAIM])


def _check_receiver(review: Review, to: Any, actor: str) -> None:
    name = to.get_username()
    if actor_of(to) == actor:
        raise InvalidRequestError("A case is handed over to somebody else; nothing was changed.")
    if not to.is_active or not to.has_perm("fraud.claim_review"):
        raise InvalidRequestError(f"{name} may not claim reviews; nothing was changed.")
    if not Review.objects.fit_for(to).filter(pk=review.pk).exists():
        raise InvalidRequestError(f"{name} may not decide this case; nothing was changed.")


def _check_until(review: Review, until: datetime) -> None:
    if until <= timezone.now():
        raise InvalidRequestError(f"{until:%Y-%m-%d %H:%M} UTC is past; nothing was changed.")
    latest = review.expires_at - SNOOZE_MARGIN
    if until > latest:
        raise InvalidRequestError(
            f"This review expires at {review.expires_at:%Y-%m-%d %H:%M} UTC: snooze it until {latest:%Y-%m-%d %H:%M} "
            "UTC at most. Nothing was changed."
        )


def _why_not(user: Any, review_id: str) -> str:
    """Why a case cannot be had."""
    review = Review.objects.select_related("claimed_by").filter(pk=review_id).first()
    if review is None:
        return f"There is no review {review_id}."
    if not review.is_open:
        return tell_ended(review, "claimed")
    holder = review.holder()
    if holder is not None and holder != user:
        return f"{tell_holder(holder)}; nothing was changed."
    if review.escalated_at and not user.has_perm("fraud.decide_escalated_review"):
        return "This review is escalated: only a supervisor can claim it. Nothing was changed."
    if review.proposed_by:
        return "This review waits for a second person, who may confirm it; nothing was changed."
    return "Somebody is claiming this review at this moment; nothing was changed."
