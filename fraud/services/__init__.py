"""What analysts and the clock do with reviews; lists have their own door, fraud.lists, and rule sets theirs."""

from fraud.services.claims import (
    HANDOVER_LEASE,
    claim_review,
    escalate_review,
    hand_over,
    heartbeat,
    release_claim,
    snooze_review,
)
from fraud.services.decisions import (
    MAX_BULK,
    Outcome,
    RowResult,
    approve_review,
    confirm_review,
    decide_many,
    reject_review,
    return_proposal,
)
from fraud.services.expiry import expire_reviews
from fraud.services.guards import MAX_NOTE_LENGTH, has_right
from fraud.services.listing import case_values, list_case

__all__ = [
    "HANDOVER_LEASE",
    "MAX_BULK",
    "MAX_NOTE_LENGTH",
    "Outcome",
    "RowResult",
    "approve_review",
    "case_values",
    "claim_review",
    "confirm_review",
    "decide_many",
    "escalate_review",
    "expire_reviews",
    "hand_over",
    "has_right",
    "heartbeat",
    "list_case",
    "reject_review",
    "release_claim",
    "return_proposal",
    "snooze_review",
]
