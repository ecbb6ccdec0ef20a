"""Stripe's disputes read into facts: pure functions over plain dicts, no network."""

from __future__ import annotations

from datetime import datetime

from payments.gateways.base import DisputeFact
from payments.gateways.stripe.wire import PAYMENT_ID, Doc, from_wire, read_time, reference_of, trim
from payments.kinds import DisputeStage, DisputeState
from payments.money import Money

DISPUTE_EVENTS = frozenset(
    f"charge.dispute.{end}" for end in ("created", "updated", "closed", "funds_withdrawn", "funds_reinstated")
)
# Stripe calls a dispute that we gave in to lost, like any other: this key of its metadata tells them apart.
ACCEPTED = "accepted_by_us"
# docs.stripe.com/api/disputes/object: a warning is an inquiry, before any money has moved; an appeal is the second
# round. An inquiry that was closed, and a dispute that was prevented, took nothing.
STATUSES = {
    "warning_needs_response": (DisputeStage.INQUIRY, DisputeState.NEEDS_RESPONSE),
    "warning_under_review": (DisputeStage.INQUIRY, DisputeState.UNDER_REVIEW),
    "warning_closed": (DisputeStage.INQUIRY, DisputeState.WON),
    "needs_response": (DisputeStage.CHARGEBACK, DisputeState.NEEDS_RESPONSE),
    "under_review": (DisputeStage.CHARGEBACK, DisputeState.UNDER_REVIEW),
    "appeal_needs_response": (DisputeStage.PRE_ARBITRATION, DisputeState.NEEDS_RESPONSE),
    "appeal_under_review": (DisputeStage.PRE_ARBITRATION, DisputeState.UNDER_REVIEW),
    "won": (DisputeStage.CHARGEBACK, DisputeState.WON),
    "lost": (DisputeStage.CHARGEBACK, DisputeState.LOST),
    "prevented": (DisputeStage.CHARGEBACK, DisputeState.WON),
}
REASONS = {
    "fraudulent": "fraudulent",
    "unrecognized": "fraudulent",
    "product_not_received": "not_received",
    "duplicate": "duplicate",
    "product_unacceptable": "not_as_described",
    "subscription_canceled": "canceled",
    "credit_not_processed": "credit_not_processed",
}


def read_dispute(dispute: Doc, *, occurred_at: datetime, source: str = "webhook") -> DisputeFact:
    """Raises `KeyError` for a dispute without what every dispute has, or with a status that is not known."""
    stage, state = STATUSES[dispute["status"]]
    details = dispute.get("evidence_details") or {}
    fee, is_withdrawn = read_balance(dispute)
    return DisputeFact(
        reference=dispute["id"],
        payment_reference=reference_of(dispute.get("payment_intent")),
        stage=stage,
        state=read_loss(dispute, occurred_at) if state is DisputeState.LOST else state,
        amount=from_wire(dispute["amount"], dispute["currency"]),
        reason=REASONS.get(dispute.get("reason") or "", "other"),
        network_code=read_network_code(dispute),
        fee=fee,
        is_withdrawn=is_withdrawn,
        due_by=read_time(details["due_by"]) if details.get("due_by") else None,
        payment_id=(dispute.get("metadata") or {}).get(PAYMENT_ID, ""),
        occurred_at=occurred_at,
        source=source,
        raw=trim(dispute),
    )


def read_loss(dispute: Doc, when: datetime) -> DisputeState:
    """Lost by the bank's judgement, given up by us, or lost because nobody answered in time."""
    details = dispute.get("evidence_details") or {}
    if details.get("submission_count") != 0:
        return DisputeState.LOST
    if (dispute.get("metadata") or {}).get(ACCEPTED):
        return DisputeState.ACCEPTED
    if details.get("due_by") and read_time(details["due_by"]) <= when:
        return DisputeState.EXPIRED
    return DisputeState.LOST


def read_balance(dispute: Doc) -> tuple[Money | None, bool | None]:
    """The fee so far and whether the amount is out of our balance; None, None when the event does not say.

    Money goes out with the dispute and comes back when it is won: the sum of both tells how it stands.
    """
    transactions = dispute.get("balance_transactions")
    if transactions is None:
        return None, None
    if not transactions:
        return None, False
    fee = from_wire(sum(one["fee"] for one in transactions), transactions[0]["currency"])
    return fee, sum(one["amount"] for one in transactions) < 0


def read_network_code(dispute: Doc) -> str:
    card = (dispute.get("payment_method_details") or {}).get("card") or {}
    return str(card.get("network_reason_code") or dispute.get("network_reason_code") or "")
