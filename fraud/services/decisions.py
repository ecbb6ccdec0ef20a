"""The decisions: approve, reject, propose and confirm by two people, and many at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from django.db import transaction
from django.utils import timezone

from fraud import policy
from fraud.labels import label_decision
from fraud.models import (
    APPROVE_REASONS,
    PERSON,
    REJECT_REASONS,
    ReasonCode,
    Review,
    ReviewEventKind,
    ReviewState,
)
from fraud.services.guards import check_note, has_right, lock_open, write_event
from payments import services
from payments.errors import ConflictError, InvalidRequestError, PaymentError

MAX_BULK = 100
PROPOSAL = ["proposed_at", "proposed_by", "reason_code", "note", "claimed_by", "claim_expires_at"]


class Outcome(StrEnum):
    """What became of one row of many."""

    DONE = "done"
    LOST = "lost"  # somebody else holds it, or was faster
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class RowResult:
    """One row of many: what became of it, and in words why."""

    review_id: str
    reference: str
    outcome: Outcome
    message: str


def approve_review(
    review_id: str,
    *,
    actor: str,
    reason_code: str = ReasonCode.GENUINE,
    note: str = "",
    may_propose: bool = True,
    is_driven: bool = True,
) -> Review:
    """Let the order go on: the money is captured. From the four-eyes amount on, it is proposed to a second person.

    Raises `ConflictError`, naming who decided and when, if somebody was faster, or who holds it;
    `InvalidRequestError` for a reason that does not fit, or for a proposal where none may be made.
    """
    _check_reason(reason_code, APPROVE_REASONS, note)
    with transaction.atomic():
        review = lock_open(review_id, actor=actor, wish="approved")
        if review.proposed_by:
            raise ConflictError(
                f"{review.proposed_by.removeprefix(PERSON)} proposed to approve this review: a second person "
                "confirms or returns it. Nothing was changed."
            )
        if policy.takes_two(review.order.total):
            if not may_propose:
                raise InvalidRequestError("It takes two people at this amount; nothing was changed.")
            return _propose(review, actor=actor, reason_code=reason_code, note=note)
        end_review(review, ReviewState.APPROVED, actor=actor, reason_code=reason_code, note=note)
        services.release_review(review.order_id, actor=actor, is_driven=is_driven)
    return review


def reject_review(
    review_id: str, *, actor: str, reason_code: str, note: str = "", is_driven: bool = True
) -> Review:
    """Refuse the order: the authorization is voided. Nobody need confirm it. Raises as `approve_review` does."""
    _check_reason(reason_code, REJECT_REASONS, note)
    with transaction.atomic():
        review = lock_open(review_id, actor=actor, wish="rejected")
        end_review(review, ReviewState.REJECTED, actor=actor, reason_code=reason_code, note=note)
        services.reject_review(review.order_id, actor=actor, reason=reason_code, is_driven=is_driven)
    return review


def confirm_review(review_id: str, *, actor: str, note: str = "") -> Review:
    """Approve what somebody else proposed, with their reason. Raises `ConflictError`."""
    check_note(note)
    with transaction.atomic():
        review = _lock_proposal(review_id, actor=actor, wish="confirmed")
        write_event(review, ReviewEventKind.CONFIRMED, actor=actor, note=note)
        reason_code, its_note = review.reason_code, review.note
        end_review(review, ReviewState.APPROVED, actor=actor, reason_code=reason_code, note=its_note)
        services.release_review(review.order_id, actor=actor)
    return review


def return_proposal(review_id: str, *, actor: str, note: str) -> Review:
    """Put somebody else's proposal back into the queue, saying why. Raises `InvalidRequestError`, `ConflictError`."""
    check_note(note, needed_for="Returning a proposal")
    with transaction.atomic():
        review = _lock_proposal(review_id, actor=actor, wish="returned")
        review.proposed_at, review.proposed_by, review.reason_code, review.note = None, "", "", ""
        review.claimed_by = review.claim_expires_at = None
        review.save(update_fields=PROPOSAL)
        write_event(review, ReviewEventKind.RETURNED, actor=actor, note=note)
    return review


def decide_many(
    review_ids: Sequence[str],
    *,
    decision: Literal["approve", "reject"],
    actor: str,
    reason_code: str,
    note: str = "",
) -> list[RowResult]:
    """Decide up to 100 cases with one reason, each by itself; what takes two people is refused.

    The workers go on with the orders, so that nobody waits for a hundred answers of a gateway.
    Raises `InvalidRequestError` for too many, or for a reason that does not fit.
    """
    wanted = list(dict.fromkeys(review_ids))
    if len(wanted) > MAX_BULK:
        raise InvalidRequestError(
            f"{len(wanted)} reviews are more than {MAX_BULK} at once; nothing was changed."
        )
    _check_reason(reason_code, APPROVE_REASONS if decision == "approve" else REJECT_REASONS, note)
    references = dict(Review.objects.filter(pk__in=wanted).values_list("pk", "order__reference"))
    return [
        _decide_one(
            review_id,
            references.get(review_id, review_id),
            decision,
            actor=actor,
            reason_code=reason_code,
            note=note,
        )
        for review_id in wanted
    ]


def _decide_one(
    review_id: str, reference: str, decision: str, *, actor: str, reason_code: str, note: str
) -> RowResult:
    try:
        if decision == "approve":
            approve_review(
                review_id,
                actor=actor,
                reason_code=reason_code,
                note=note,
                may_propose=False,
                is_driven=False,
            )
        else:
            reject_review(review_id, actor=actor, reason_code=reason_code, note=note, is_driven=False)
    except ConflictError as error:
        return RowResult(review_id, reference, Outcome.LOST, error.message)
    except PaymentError as error:
        return RowResult(review_id, reference, Outcome.REFUSED, error.message)
    told = "Approved: the money is captured." if decision == "approve" else "Rejected: the hold is voided."
    return RowResult(review_id, reference, Outcome.DONE, told)


def _propose(review: Review, *, actor: str, reason_code: str, note: str) -> Review:
    review.proposed_at, review.proposed_by = timezone.now(), actor
    review.reason_code, review.note = reason_code, note.strip()
    review.claimed_by = review.claim_expires_at = None
    review.save(update_fields=PROPOSAL)
    write_event(review, ReviewEventKind.PROPOSED, actor=actor, note=_tell_reason(reason_code, note))
    return review


def _lock_proposal(review_id: str, *, actor: str, wish: str) -> Review:
    """The open proposal of somebody else. Raises `ConflictError`."""
    review = lock_open(review_id, actor=actor, wish=wish)
    if not review.proposed_by:
        raise ConflictError(f"Nobody has proposed to approve this review; it was not {wish}.")
    if review.proposed_by == actor:
        raise ConflictError(f"You proposed this approval: a second person must. It was not {wish}.")
    if not has_right(actor, "fraud.confirm_review"):
        raise ConflictError(f"You may not confirm proposals. It was not {wish}; nothing was changed.")
    return review


_KINDS = {
    ReviewState.APPROVED: ReviewEventKind.APPROVED,
    ReviewState.REJECTED: ReviewEventKind.REJECTED,
    ReviewState.EXPIRED: ReviewEventKind.EXPIRED,
}


def end_review(review: Review, state: ReviewState, *, actor: str, reason_code: str, note: str) -> None:
    """End a locked open review, and say so in its history."""
    review.state, review.reason_code, review.note = state, reason_code, note.strip()
    review.decided_by, review.decided_at = actor, timezone.now()
    review.claim_expires_at = None
    review.save(
        update_fields=["state", "reason_code", "note", "decided_by", "decided_at", "claim_expires_at"]
    )
    write_event(review, _KINDS[state], actor=actor, note=_tell_reason(reason_code, note))
    label_decision(review)


def _tell_reason(reason_code: str, note: str) -> str:
    reason = ReasonCode(reason_code).label if reason_code else ""
    return ": ".join(filter(None, [reason, note.strip()]))


def _check_reason(reason_code: str, allowed: tuple[ReasonCode, ...], note: str) -> None:
    if reason_code not in allowed:
        raise InvalidRequestError(
            f"The reason {reason_code!r} does not fit this decision; nothing was changed."
        )
    check_note(note, needed_for="The reason “Other”" if reason_code == ReasonCode.OTHER else "")
