"""Braintree's disputes read into facts: pure functions over plain dicts, no network."""

from __future__ import annotations

from datetime import UTC, datetime, time

from payments.gateways.base import DisputeFact
from payments.gateways.braintree.wire import Doc, from_wire, read_time, trim
from payments.kinds import DisputeStage, DisputeState

STAGES = {
    "retrieval": DisputeStage.INQUIRY,
    "chargeback": DisputeStage.CHARGEBACK,
    "pre_arbitration": DisputeStage.PRE_ARBITRATION,
}
STATES = {
    "open": DisputeState.NEEDS_RESPONSE,
    "disputed": DisputeState.UNDER_REVIEW,
    "under_review": DisputeState.UNDER_REVIEW,
    "won": DisputeState.WON,
    "lost": DisputeState.LOST,
    "accepted": DisputeState.ACCEPTED,
    "auto_accepted": DisputeState.ACCEPTED,
    "expired": DisputeState.EXPIRED,
}
REASONS = {
    "fraud": "fraudulent",
    "not_recognized": "fraudulent",
    "product_not_received": "not_received",
    "product_unsatisfactory": "not_as_described",
    "duplicate": "duplicate",
    "cancelled_recurring_transaction": "canceled",
    "credit_not_processed": "credit_not_processed",
}


def read_dispute(dispute: Doc, *, when: datetime | None = None, source: str = "webhook") -> DisputeFact:
    """Braintree debits a chargeback when it opens and gives it back when it is won; a retrieval moves nothing."""
    stage, state = STAGES[dispute["kind"]], STATES[dispute["status"]]
    updated = dispute.get("updated_at")
    return DisputeFact(
        reference=dispute["id"],
        payment_reference=(dispute.get("transaction") or {}).get("id") or "",
        stage=stage,
        state=state,
        amount=from_wire(dispute.get("amount_disputed") or dispute["amount"], dispute["currency_iso_code"]),
        reason=REASONS.get(dispute.get("reason") or "", "other"),
        network_code=dispute.get("reason_code") or "",
        is_withdrawn=stage is not DisputeStage.INQUIRY and state is not DisputeState.WON,
        due_by=read_deadline(dispute) if state is DisputeState.NEEDS_RESPONSE else None,
        occurred_at=when or (read_time(updated) if updated else None),
        source=source,
        raw=trim(dispute),
    )


def read_deadline(dispute: Doc) -> datetime | None:
    """The end of the day in UTC, which is earlier than where Braintree counts, so never too late."""
    day = dispute.get("reply_by_date")
    return datetime.combine(read_time(day), time(23, 59, 59), UTC) if day else None
