"""The words that the tables and the gateways share: kinds of money movement, and how a dispute stands."""

from __future__ import annotations

from enum import StrEnum


class OperationKind(StrEnum):
    AUTHORIZE = "authorize"
    CAPTURE = "capture"
    VOID = "void"
    REFUND = "refund"


class DisputeStage(StrEnum):
    """How far a cardholder's complaint has come; each stage has a deadline of its own."""

    INQUIRY = "inquiry"  # a question: no money has moved
    CHARGEBACK = "chargeback"
    PRE_ARBITRATION = "pre_arbitration"


class DisputeState(StrEnum):
    NEEDS_RESPONSE = "needs_response"
    UNDER_REVIEW = "under_review"
    WON = "won"
    LOST = "lost"
    ACCEPTED = "accepted"
    EXPIRED = "expired"  # nobody answered in time: lost by silence


# Our words for evidence; each adapter translates them, and puts what its gateway has no field for into the rest.
EVIDENCE_KINDS = (
    "product_description",
    "customer_communication",
    "receipt",
    "shipping_documentation",
    "shipping_tracking_number",
    "service_documentation",
    "refund_policy",
    "cancellation_policy",
    "duplicate_charge_explanation",
    "access_activity_log",
    "uncategorized",
)
