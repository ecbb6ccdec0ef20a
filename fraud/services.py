"""What analysts and the clock do with a review: claim, release, approve, reject, expire, list a value."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from fraud import lists
from fraud.models import (
    APPROVE_REASONS,
    LEASE_MINUTES,
    REJECT_REASONS,
    ListEntry,
    ReasonCode,
    Review,
    ReviewState,
)
from payments import services
from payments.errors import ConflictError, InvalidRequestError
from payments.models import Order

MAX_NOTE_LENGTH = 2000


def claim_review(user: Any, review_id: str = "") -> Review | None:
    """Give the user a case for ten minutes: this one, or the most urgent that nobody else holds.

    None: the queue is empty. No two users get the same case. Claiming one's own case again extends it.
    Raises `ConflictError` when the case asked for is decided, or held by somebody else.
    """
    with transaction.atomic():
        candidates = Review.objects.claimable(user)
        if review_id:
            candidates = candidates.filter(pk=review_id)
        review = Review.objects.locked_next(candidates)
        if review is None:
            if review_id:
                raise ConflictError(_why_not(review_id, "claimed"))
            return None
        review.claimed_by = user
        review.claim_expires_at = timezone.now() + timedelta(minutes=LEASE_MINUTES)
        review.save(update_fields=["claimed_by", "claim_expires_at"])
    return review


def release_claim(review_id: str, *, user: Any) -> bool:
    """Put the case back for the others; False when the user does not hold it."""
    held = Review.objects.open().filter(pk=review_id, claimed_by=user)
    return bool(held.update(claimed_by=None, claim_expires_at=None))


def approve_review(
    review_id: str, *, actor: str, reason_code: str = ReasonCode.GENUINE, note: str = ""
) -> Review:
    """Let the order go on: the money is captured.

    Raises `ConflictError`, naming who decided and when, if somebody was faster; `InvalidRequestError` for a
    reason that does not fit.
    """
    _check_reason(reason_code, APPROVE_REASONS, note)
    with transaction.atomic():
        review = _decide(review_id, ReviewState.APPROVED, actor=actor, reason_code=reason_code, note=note)
        services.release_review(review.order_id, actor=actor)
    return review


def reject_review(review_id: str, *, actor: str, reason_code: str, note: str = "") -> Review:
    """Refuse the order: the authorization is voided. Raises as `approve_review` does."""
    _check_reason(reason_code, REJECT_REASONS, note)
    with transaction.atomic():
        review = _decide(review_id, ReviewState.REJECTED, actor=actor, reason_code=reason_code, note=note)
        services.reject_review(review.order_id, actor=actor, reason=reason_code)
    return review


def expire_reviews(*, now: datetime | None = None) -> int:
    """Reject what nobody decided in time; the number of reviews that ended."""
    due = list(Review.objects.due(now or timezone.now()).values_list("pk", flat=True)[:500])
    return sum(_expire_review(review_id) for review_id in due)


def _expire_review(review_id: str) -> bool:
    try:
        with transaction.atomic():
            review = _decide(
                review_id, ReviewState.EXPIRED, actor="system", reason_code="", note="Nobody decided in time."
            )
            services.reject_review(review.order_id, actor="system", reason="review_expired")
    except ConflictError:
        return False  # somebody decided, or the saga went on: its own close_review follows
    return True


def add_to_list(
    list_name: str,
    kind: str,
    value: str,
    *,
    reason: str,
    created_by: str = "",
    expires_at: datetime | None = None,
) -> ListEntry:
    """Put a value on a list. Raises `InvalidRequestError` and `ConflictError`; see fraud.lists."""
    return lists.add_to_list(
        list_name, kind, value, reason=reason, created_by=created_by, expires_at=expires_at
    )


def add_case_to_list(
    review: Review,
    list_name: str,
    kind: str,
    *,
    reason: str,
    created_by: str = "",
    expires_at: datetime | None = None,
) -> ListEntry:
    """Put something of a case on a list, by its kind. Raises as `add_to_list` does."""
    value = case_values(review).get(kind, "")
    if not value:
        raise InvalidRequestError(f"This order has no {kind} to put on a list; nothing was changed.")
    return add_to_list(list_name, kind, value, reason=reason, created_by=created_by, expires_at=expires_at)


def case_values(review: Review) -> dict[str, str]:
    """What of a case can be put on a list, by kind; the card is its keyed fingerprint."""
    order = review.order
    values = {
        ListEntry.Kind.EMAIL: order.customer_email,
        ListEntry.Kind.CARD: review.payment.card_fingerprint,
        ListEntry.Kind.IP: str(order.context.get("ip") or ""),
        ListEntry.Kind.DEVICE: str(order.context.get("device") or ""),
        ListEntry.Kind.CUSTOMER: order.customer_id,
    }
    return {kind.value: value for kind, value in values.items() if value}


def _check_reason(reason_code: str, allowed: tuple[ReasonCode, ...], note: str) -> None:
    if reason_code not in allowed:
        raise InvalidRequestError(
            f"The reason {reason_code!r} does not fit this decision; nothing was changed."
        )
    if reason_code == ReasonCode.OTHER and not note.strip():
        raise InvalidRequestError("The reason “Other” needs a note; nothing was changed.")
    if len(note) > MAX_NOTE_LENGTH:
        raise InvalidRequestError(
            f"The note is longer than {MAX_NOTE_LENGTH} characters; nothing was changed."
        )


def _decide(review_id: str, state: ReviewState, *, actor: str, reason_code: str, note: str) -> Review:
    """End an open review; of two that try, one wins. The order is locked first, as the saga does it."""
    order_id = Review.objects.values_list("order_id", flat=True).filter(pk=review_id).first()
    if order_id is None:
        raise InvalidRequestError(f"There is no review {review_id}.")
    Order.objects.locked(order_id)
    changed = (
        Review.objects.open()
        .filter(pk=review_id)
        .update(
            state=state,
            reason_code=reason_code,
            note=note.strip(),
            decided_by=actor,
            decided_at=timezone.now(),
            claim_expires_at=None,
        )
    )
    if not changed:
        raise ConflictError(_why_not(review_id, state.value))
    return Review.objects.get(pk=review_id)


def _why_not(review_id: str, wish: str) -> str:
    """Why a case cannot be had: who decided it and when, or who holds it."""
    review = Review.objects.select_related("claimed_by").filter(pk=review_id).first()
    if review is None:
        return f"There is no review {review_id}."
    if not review.is_open:
        who = review.decided_by.removeprefix("user:") or "the system"
        when = f"{review.decided_at:%Y-%m-%d %H:%M:%S} UTC" if review.decided_at else "before"
        return f"This review was {review.state} by {who} at {when}. It was not {wish}; nothing was changed."
    holder = review.holder()
    return f"This review is held by {holder or 'another analyst'} now; nothing was changed."


def possible_hashes(text: str) -> list[str]:
    """The keyed hashes that a plain value would have on a list, one for each kind that it could be."""
    found = []
    for kind in ListEntry.Kind.values:
        try:
            found.append(lists.hash_value(kind, text))
        except InvalidRequestError:
            continue
    return found
