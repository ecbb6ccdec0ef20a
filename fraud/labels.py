"""Says of orders whether they were fraud: from disputes, warnings, refunds, decisions, people, and time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from fraud import collector
from fraud.models import EffectiveLabel, Label, LabelSource, ReasonCode, Review, ReviewState
from payments.errors import InvalidRequestError
from payments.kinds import DisputeStage, DisputeState
from payments.models import Dispute, Event, Operation, Order

MOST_TURNS = 10  # of the collector at once; the next task goes on where it ended
MAX_REASON_LENGTH = 200
READER = "labels"  # of payments' events, see fraud.collector

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


def find_frauds(order_ids: Iterable[str]) -> set[str]:
    """Those of the orders that were fraud, by the label that counts."""
    labels = EffectiveLabel.objects.filter(order_id__in=list(order_ids), is_fraud=True)
    return set(labels.values_list("order_id", flat=True))


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


def collect_labels() -> int:
    """Label by every event since the last turn. Returns how many labels are new; any number may run at once."""
    return _collect(READER, tuple(_READERS), _read_event)


def mature_labels(*, now: datetime | None = None) -> int:
    """Label as genuine what was captured `FRAUD_MATURE_DAYS` ago and was never disputed. Returns how many."""
    until = (now or timezone.now()) - timedelta(days=settings.FRAUD_MATURE_DAYS)
    return _collect("matured", ("payment.captured",), _read_capture, until=until)


def _collect(
    name: str, types: Collection[str], read: Callable[[Event], Label | None], until: datetime | None = None
) -> int:
    """Write what each event says, if anything, and if its evidence has not labelled yet; how many are new."""
    new = 0

    def consume(event: Event) -> None:
        nonlocal new
        label = read(event)
        new += label is not None and _add(label)

    for _ in range(MOST_TURNS):
        if collector.collect(name, types, consume, until=until) < collector.MOST_AT_ONCE:
            break
    return new


def _add(label: Label) -> bool:
    """False when its evidence has labelled already."""
    if Label.objects.filter(source=label.source, evidence=label.evidence).exists():
        return False
    Label.objects.bulk_create([label], ignore_conflicts=True)  # of two at once one writes it
    return True


def _read_event(event: Event) -> Label | None:
    read = _READERS[event.type](event.data)
    if read is None:
        return None
    source, is_fraud, reason = read
    return Label(
        order_id=event.order_id,
        is_fraud=is_fraud,
        source=source,
        reason=reason[:MAX_REASON_LENGTH],
        actor=event.actor,
        evidence=event.pk,
        at=event.created_at,
    )


def _read_capture(event: Event) -> Label | None:
    if Dispute.objects.filter(payment__order=event.order_id).exists():
        return None
    days = settings.FRAUD_MATURE_DAYS
    return Label(
        order_id=event.order_id,
        is_fraud=False,
        source=LabelSource.MATURED,
        reason=f"no dispute in {days} days",
        evidence=event.order_id,
        at=event.created_at + timedelta(days=days),
    )


_Read = tuple[LabelSource, bool, str]


def _read_dispute(data: Mapping[str, Any]) -> _Read | None:
    """A chargeback for fraud, until it is won. An inquiry only asks, and other reasons say nothing of fraud."""
    dispute = data["dispute"]
    if dispute["reason"] != "fraudulent" or dispute["stage"] == DisputeStage.INQUIRY:
        return None
    return LabelSource.DISPUTE, dispute["state"] != DisputeState.WON, dispute["state"]


def _read_warning(data: Mapping[str, Any]) -> _Read:
    return LabelSource.EARLY_WARNING, True, str(data["warning"].get("reason", ""))


def _read_refund(data: Mapping[str, Any]) -> _Read | None:
    """Of a refund whose reason is fraud: what the person meant who asked for it, whatever the bank does."""
    if not Operation.objects.filter(pk=data["refund"]["id"], reason="fraudulent").exists():
        return None
    return LabelSource.REFUND_AS_FRAUD, True, "fraudulent"


_READERS: Mapping[str, Callable[[Mapping[str, Any]], _Read | None]] = {
    "dispute.opened": _read_dispute,
    "dispute.updated": _read_dispute,
    "dispute.closed": _read_dispute,
    "payment.fraud_warned": _read_warning,
    "refund.created": _read_refund,
}
