"""What the buttons of the case page do: one service call each, and the words that say what it did."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from fraud import services
from fraud.admin.list_forms import end_after
from fraud.admin.review_forms import CaseListForm, DecideForm, EscalateForm, HandOverForm, SnoozeForm
from fraud.models import ReasonCode, Review
from fraud.policy import SNOOZE_MARGIN
from payments.admin.base import Action, OperatorAction
from payments.admin.words import tell_actor
from payments.errors import PaymentError


def decide(review: Review, action: Action) -> str:
    verb, _, reason = action.data["choice"].partition(":")
    note, reference = action.data["note"], review.order.reference
    match verb:
        case "approve":
            told = _approve(review, reason, note, action.actor)
        case "reject":
            services.reject_review(review.pk, actor=action.actor, reason_code=reason, note=note)
            told = f"{reference} was rejected: the authorization is voided."
        case "confirm":
            services.confirm_review(review.pk, actor=action.actor, note=note)
            told = f"{reference} was approved by two people: the money is captured."
        case _:
            services.return_proposal(review.pk, actor=action.actor, note=note)
            told = f"The proposal to approve {reference} was returned."
    label = ReasonCode(reason).label if reason else "Confirmed"
    return " ".join(filter(None, [told, _add_to_list(review, action, f"{label}, order {reference}")]))


def _approve(review: Review, reason: str, note: str, actor: str) -> str:
    decided = services.approve_review(review.pk, actor=actor, reason_code=reason, note=note)
    if decided.is_open:
        return f"{review.order.reference} takes two people: your approval waits for a second one."
    return f"{review.order.reference} was approved: the money is captured."


def _add_to_list(review: Review, action: Action, reason: str) -> str:
    """After a decision, which stands whatever becomes of the list."""
    if not action.data["kinds"]:
        return ""
    if not services.has_right(action.actor, "fraud.add_listentry"):
        return "Nothing was put on a list: you may not."
    try:
        return add_to_list(review, action, reason)
    except PaymentError as error:
        return f"It was not put on the list: {error.message}"


def add_to_list(review: Review, action: Action, reason: str = "") -> str:
    wish = action.data
    added = services.list_case(
        review,
        wish["list"],
        wish["kinds"],
        reason=(reason or wish["reason"])[:200],
        actor=action.actor,
        expires_at=end_after(wish["days"]),
    )
    return f"{'; '.join(map(str, added))}." if added else "It is on that list already."


def escalate(review: Review, action: Action) -> str:
    services.escalate_review(review.pk, actor=action.actor, note=action.data["note"])
    return f"{review.order.reference} went to the supervisors."


def snooze(review: Review, action: Action) -> str:
    until = timezone.now() + timedelta(hours=action.data["hours"])
    services.snooze_review(review.pk, until=until, actor=action.actor, note=action.data["note"])
    return f"{review.order.reference} is back at {until:%Y-%m-%d %H:%M} UTC, or when something happens to it."


def hand_over(review: Review, action: Action) -> str:
    to = action.data["to"]
    services.hand_over(review.pk, to=to, actor=action.actor, note=action.data["note"])
    return f"{review.order.reference} is {to.get_username()}'s now."


def why_not_open(review: Review) -> str:
    return "" if review.is_open else f"This review was {review.state} by {tell_actor(review.decided_by)}."


def why_not_escalate(review: Review) -> str:
    who = tell_actor(review.escalated_by)
    return why_not_open(review) or (f"{who} escalated it already." if review.escalated_at else "")


def why_not_snooze(review: Review) -> str:
    soon = timezone.now() + SNOOZE_MARGIN + timedelta(hours=1)
    return why_not_open(review) or ("It expires too soon." if review.expires_at <= soon else "")


ACTIONS = (
    OperatorAction(
        "decide", "Decide", permission="decide_review", perform=decide, form=DecideForm, why_not=why_not_open
    ),
    OperatorAction(
        "escalate",
        "Escalate",
        permission="decide_review",
        perform=escalate,
        form=EscalateForm,
        explanation="It goes to the supervisors' queue; only they can decide it then.",
        why_not=why_not_escalate,
    ),
    OperatorAction(
        "snooze",
        "Snooze",
        permission="claim_review",
        perform=snooze,
        form=SnoozeForm,
        explanation="It leaves the queue until then, or until something happens to the order.",
        why_not=why_not_snooze,
    ),
    OperatorAction(
        "handover",
        "Hand over",
        permission="claim_review",
        perform=hand_over,
        form=HandOverForm,
        explanation="It is theirs for an hour, and longer while they look at it.",
        why_not=why_not_open,
    ),
    OperatorAction(
        "list",
        "Add to a list",
        permission="add_listentry",
        perform=add_to_list,
        form=CaseListForm,
        explanation="It counts from the next order on; this order stays as it is.",
        tone="default",
    ),
)
KEYS = {"escalate": "e", "snooze": "s", "handover": "h"}
