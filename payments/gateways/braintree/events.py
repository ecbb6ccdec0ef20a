"""Braintree's notifications read into facts about money: pure functions over plain dicts, no network."""

from __future__ import annotations

from datetime import datetime

from payments.gateways.base import Fact, GatewayFact, RefundResult, RefundStatus
from payments.gateways.braintree.disputes import read_dispute
from payments.gateways.braintree.results import build_refund, read_capture, read_refund
from payments.gateways.braintree.states import is_refund
from payments.gateways.braintree.wire import Doc, read_time
from payments.kinds import OperationKind

# `transaction_disbursed` says no more than the settlement did: payouts are the reconciliation's.
_TRANSACTION_EVENTS = frozenset({"transaction_settled", "transaction_settlement_declined", "refund_failed"})
_DISPUTE_EVENTS = frozenset(
    f"dispute_{word}"
    for word in (
        "opened",
        "under_review",
        "disputed",
        "won",
        "lost",
        "accepted",
        "auto_accepted",
        "expired",
    )
)


def read_facts(event: Doc) -> list[Fact]:
    """The facts in one event; none for a kind that says nothing of a payment's money."""
    kind, subject = event["kind"], event["subject"]
    when = read_time(event["timestamp"])
    if kind in _DISPUTE_EVENTS:
        return [read_dispute(subject["dispute"], when=when)]
    if kind in _TRANSACTION_EVENTS:
        transaction = subject["transaction"]
        if kind == "refund_failed":
            return [build_refund_fact(transaction, build_refund(transaction, RefundStatus.FAILED), when)]
        return read_transaction_facts(transaction, when)
    return []


def read_transaction_facts(transaction: Doc, when: datetime) -> list[Fact]:
    """Settled or declined on the way: a capture or a refund, which its order id names."""
    if is_refund(transaction):
        refund = read_refund(transaction)
        return [build_refund_fact(transaction, refund, when)] if refund else []
    result = read_capture(transaction)
    if result is None:
        return []
    return [
        GatewayFact(
            kind=OperationKind.CAPTURE,
            result=result,
            operation_id=transaction.get("order_id") or "",
            reference=result.reference,
            occurred_at=when,
        )
    ]


def build_refund_fact(transaction: Doc, refund: RefundResult, when: datetime) -> GatewayFact:
    return GatewayFact(
        kind=OperationKind.REFUND,
        result=refund,
        operation_id=transaction.get("order_id") or "",
        reference=transaction.get("refunded_transaction_id") or "",
        occurred_at=when,
    )
