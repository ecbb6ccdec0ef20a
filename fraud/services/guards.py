"""What every change of a case passes: its lock, whoever holds it, the rights it takes, and its history."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model

from fraud.models import PERSON, Review, ReviewEvent, ReviewEventKind
from payments.errors import ConflictError, InvalidRequestError
from payments.models import Order

SYSTEM = "system"
MAX_NOTE_LENGTH = 2000


def actor_of(user: Any) -> str:
    return f"{PERSON}{user.get_username()}"


def has_right(actor: str, permission: str) -> bool:
    """Whether the person behind an actor may; the clock may all that it is made to do."""
    if actor == SYSTEM:
        return True
    found = get_user_model().objects.filter(username=actor.removeprefix(PERSON)).first()
    return found is not None and found.has_perm(permission)


def lock_open(review_id: str, *, actor: str, wish: str) -> Review:
    """The open case under its lock, the order's first, as the saga takes them.

    Raises `InvalidRequestError` when there is none; `ConflictError`, naming who, when it was decided or
    somebody else holds it, or when it is escalated and the actor is no supervisor.
    """
    order_id = Review.objects.values_list("order_id", flat=True).filter(pk=review_id).first()
    if order_id is None:
        raise InvalidRequestError(f"There is no review {review_id}.")
    Order.objects.locked(order_id)
    review = Review.objects.locked(review_id)
    assert review is not None, "reviews are never deleted"
    if not review.is_open:
        raise ConflictError(tell_ended(review, wish))
    holder = review.holder()
    if holder is not None and actor not in (SYSTEM, actor_of(holder)):
        raise ConflictError(f"{tell_holder(holder)}. It was not {wish}; nothing was changed.")
    if review.escalated_at and not has_right(actor, "fraud.decide_escalated_review"):
        raise ConflictError(f"This review is escalated: a supervisor decides it. It was not {wish}.")
    return review


def write_event(review: Review, kind: ReviewEventKind, *, actor: str, note: str = "") -> None:
    ReviewEvent.objects.create(review=review, kind=kind, actor=actor, note=note.strip())


def check_note(note: str, *, needed_for: str = "") -> None:
    """Raises `InvalidRequestError` for a note that is too long, or missing where one is needed."""
    if needed_for and not note.strip():
        raise InvalidRequestError(f"{needed_for} needs a note; nothing was changed.")
    if len(note) > MAX_NOTE_LENGTH:
        raise InvalidRequestError(
            f"The note is longer than {MAX_NOTE_LENGTH} characters; nothing was changed."
        )


def tell_ended(review: Review, wish: str) -> str:
    """Who decided it and when."""
    who = review.decided_by.removeprefix(PERSON) or "the system"
    when = f"{review.decided_at:%Y-%m-%d %H:%M:%S} UTC" if review.decided_at else "before"
    return f"This review was {review.state} by {who} at {when}. It was not {wish}; nothing was changed."


def tell_holder(holder: Any) -> str:
    return f"This review is held by {holder.get_username()} now"
