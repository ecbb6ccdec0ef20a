"""What became of orders, as payments tells it: declines, approvals and chargebacks are counted, orders are linked."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from fraud import links
from fraud.collector import collect
from fraud.models import VelocityEvent
from fraud.velocity import record_event
from payments.kinds import DisputeStage
from payments.models import Event
from payments.money import Money
from payments.retention import MONTHS_13

READER = "outcomes"
COUNTED_FOR = timedelta(days=30)
_KINDS = {
    "payment.declined": VelocityEvent.Kind.DECLINE,
    "payment.authorized": VelocityEvent.Kind.APPROVED,
    "dispute.opened": VelocityEvent.Kind.CHARGEBACK,
    "dispute.updated": VelocityEvent.Kind.CHARGEBACK,
}
_TYPES = ("order.placed", *_KINDS)


def collect_outcomes(*, since: datetime | None = None) -> int:
    """Count and link what happened since the last time; the number of events. The first time, 13 months back."""
    return collect(READER, _TYPES, _consume, since=since or timezone.now() - MONTHS_13)


def _consume(event: Event) -> None:
    order, payment = event.order, event.order.payment
    if event.type in ("order.placed", "payment.authorized"):
        links.record_links(order, payment)
    kind = _KINDS.get(event.type)
    if kind is None or event.created_at < timezone.now() - COUNTED_FOR:
        return
    amount = order.total
    if kind == VelocityEvent.Kind.CHARGEBACK:
        dispute = event.data["dispute"]
        if dispute["stage"] == DisputeStage.INQUIRY:
            return  # a question: no money has moved
        amount = _money_of(dispute)
    record_event(order, payment, kind, amount, at=event.created_at)


def _money_of(told: dict[str, Any]) -> Money:
    return Money(told["amount"], told["currency"])
