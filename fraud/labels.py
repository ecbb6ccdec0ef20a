"""Says of orders whether they were fraud: from disputes, warnings, refunds, decisions, people, and time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from fraud.models import EffectiveLabel, Label, LabelCursor, LabelSource, ReasonCode, Review, ReviewState
from payments import sql
from payments.errors import InvalidRequestError
from payments.kinds import DisputeStage, DisputeState
from payments.models import Event, Operation, Order

BATCH = 2_000  # events, or captures, in one transaction
MOST_BATCHES = 50  # of one turn; the next goes on where it ended
MAX_REASON_LENGTH = 200

# What an analyst's reason says of the order; None: nothing. An abuse of a policy is no stolen card, and who could not
# be verified may have been genuine: neither may teach what fraud looks like.
DECISION_LABELS: Mapping[str, bool | None] = {
    ReasonCode.CONFIRMED_FRAUD: True,
    ReasonCode.STOLEN_CARD: True,
    ReasonCode.ACCOUNT_TAKEOVER: True,
    ReasonCode.POLICY_ABUSE: None,
    ReasonCode.NOT_VERIFIED: None,
    ReasonCode.GENUINE: False,
    ReasonCode.VERIFIED: False,
    ReasonCode.OTHER: None,
}


def record_label(order: Order, *, is_fraud: bool, source: str, reason: str, actor: str) -> Label:
    """Say by hand or by the API whether an order was fraud; what was said before stays as history.

    Raises `InvalidRequestError` for another source, and for a reason that is empty or longer than 200 characters.
    """
    if source not in (LabelSource.MANUAL, LabelSource.API):
        raise InvalidRequestError(
            f"A label of order {order.pk} cannot be given as {source!r}; nothing was changed."
        )
    if not reason.strip() or len(reason) > MAX_REASON_LENGTH:
        raise InvalidRequestError(
            f"A label of order {order.pk} needs a reason of at most {MAX_REASON_LENGTH} characters; "
            "nothing was changed."
        )
    now = timezone.now()
    return Label.objects.create(
        order=order, is_fraud=is_fraud, source=source, reason=reason.strip(), actor=actor, at=now
    )


def count_frauds(order_ids: Collection[str]) -> int:
    """How many of these orders were fraud, by the label that counts."""
    return EffectiveLabel.objects.filter(order_id__in=order_ids, is_fraud=True).count()


def label_decision(review: Review) -> Label | None:
    """Write what an analyst's decision says of the order, in the transaction of the decision; None if nothing.

    Called twice for one review it writes once. A review that ended by the clock says nothing.
    """
    is_fraud = DECISION_LABELS.get(review.reason_code)
    if review.state not in (ReviewState.APPROVED, ReviewState.REJECTED) or is_fraud is None:
        return None
    label, _ = Label.objects.get_or_create(
        source=LabelSource.DECISION,
        evidence=review.pk,
        defaults={
            "order_id": review.order_id,
            "is_fraud": is_fraud,
            "reason": review.reason_code,
            "actor": review.decided_by,
            "at": review.decided_at or timezone.now(),
        },
    )
    return label


# --- from the outbox ----------------------------------------------------------------------------------------

# Only what lies before the horizon: no transaction can bring an event there any more, so each is read once. The
# slice bounds what one turn looks at, however few of the events say something of fraud.
_EVENTS = """
    SELECT id, type, order_id, data, created_at FROM payments_event
    WHERE id > %s AND id < %s ORDER BY id LIMIT %s
"""


def collect_labels() -> int:
    """Label by every event since the last turn. Returns how many labels are new; any number may run at once."""
    return sum(_repeat(_collect_batch))


def _collect_batch() -> tuple[int, bool]:
    with transaction.atomic():
        cursor = _lock_cursor("events")
        events = list(Event.objects.raw(_EVENTS, [cursor.last_id, Event.objects.read_horizon(), BATCH]))
        if not events:
            return 0, False
        made = _add(_read_events(events))
        cursor.last_id = events[-1].pk
        cursor.save(update_fields=["last_id"])
    return made, len(events) == BATCH


def _read_events(events: Iterable[Event]) -> Iterator[Label]:
    telling = [event for event in events if event.type in _READERS]
    refunds = [event.data["refund"]["id"] for event in telling if event.type == "refund.created"]
    frauds = set(Operation.objects.filter(pk__in=refunds, reason="fraudulent").values_list("pk", flat=True))
    for event in telling:
        if event.type == "refund.created" and event.data["refund"]["id"] not in frauds:
            continue
        if (read := _READERS[event.type](event.data)) is not None:
            source, is_fraud, reason = read
            yield Label(
                order_id=event.order_id,
                is_fraud=is_fraud,
                source=source,
                reason=reason[:MAX_REASON_LENGTH],
                actor=event.actor,
                evidence=event.pk,
                at=event.created_at,
            )


_Read = tuple[LabelSource, bool, str]


def read_dispute(data: Mapping[str, Any]) -> _Read | None:
    """A chargeback for fraud, until it is won. An inquiry only asks, and other reasons say nothing of fraud."""
    dispute = data["dispute"]
    if dispute["reason"] != "fraudulent" or dispute["stage"] == DisputeStage.INQUIRY:
        return None
    return LabelSource.DISPUTE, dispute["state"] != DisputeState.WON, dispute["state"]


def read_warning(data: Mapping[str, Any]) -> _Read:
    return LabelSource.EARLY_WARNING, True, str(data["warning"].get("reason", ""))


def read_refund(data: Mapping[str, Any]) -> _Read:
    """Of a refund whose reason is fraud: what the person meant who asked for it, whatever the bank does."""
    return LabelSource.REFUND_AS_FRAUD, True, "fraudulent"


_READERS: Mapping[str, Callable[[Mapping[str, Any]], _Read | None]] = {
    "dispute.opened": read_dispute,
    "dispute.updated": read_dispute,
    "dispute.closed": read_dispute,
    "payment.fraud_warned": read_warning,
    "refund.created": read_refund,
}


# --- by time ------------------------------------------------------------------------------------------------

_CAPTURES = """
    SELECT operation.id, operation.created_at, payment.order_id,
        operation.kind = 'capture' AND operation.state = 'succeeded' AND NOT EXISTS (
            SELECT FROM payments_dispute dispute WHERE dispute.payment_id = payment.id
        ) AS is_good
    FROM payments_operation operation JOIN payments_payment payment ON payment.id = operation.payment_id
    WHERE (operation.created_at, operation.id) > (%s, %s) AND operation.created_at <= %s
    ORDER BY operation.created_at, operation.id LIMIT %s
"""


def mature_labels(*, now: datetime | None = None) -> int:
    """Label as genuine what was captured `FRAUD_MATURE_DAYS` ago and was never disputed. Returns how many."""
    until = (now or timezone.now()) - timedelta(days=settings.FRAUD_MATURE_DAYS)
    return sum(_repeat(lambda: _mature_batch(until)))


def _mature_batch(until: datetime) -> tuple[int, bool]:
    with transaction.atomic():
        cursor = _lock_cursor("captures")
        since = cursor.at or datetime.min.replace(tzinfo=until.tzinfo)
        rows = sql.fetch_all(_CAPTURES, [since, cursor.last_id, until, BATCH])
        if not rows:
            return 0, False
        wait = timedelta(days=settings.FRAUD_MATURE_DAYS)
        good = {order_id: at + wait for _, at, order_id, is_good in reversed(rows) if is_good}
        reason = f"no dispute in {settings.FRAUD_MATURE_DAYS} days"
        made = _add(
            Label(
                order_id=order,
                is_fraud=False,
                source=LabelSource.MATURED,
                reason=reason,
                evidence=order,
                at=at,
            )
            for order, at in good.items()
        )
        cursor.last_id, cursor.at = rows[-1][0], rows[-1][1]
        cursor.save(update_fields=["last_id", "at"])
    return made, len(rows) == BATCH


# --- both ---------------------------------------------------------------------------------------------------


def _repeat(turn: Callable[[], tuple[int, bool]]) -> Iterator[int]:
    """One transaction after the other while there is more, within what one task may do."""
    for _ in range(MOST_BATCHES):
        made, is_more = turn()
        yield made
        if not is_more:
            return


def _lock_cursor(name: str) -> LabelCursor:
    LabelCursor.objects.get_or_create(pk=name)
    return LabelCursor.objects.select_for_update().get(pk=name)


def _add(labels: Iterable[Label]) -> int:
    """Write those whose evidence has not labelled yet; how many are new."""
    wanted = list(labels)
    known = set(
        Label.objects.filter(
            source__in={label.source for label in wanted}, evidence__in=[label.evidence for label in wanted]
        ).values_list("source", "evidence")
    )
    new = [label for label in wanted if (label.source, label.evidence) not in known]
    Label.objects.bulk_create(new, ignore_conflicts=True)
    return len(new)
