"""How far a transaction has come, and how much it is of."""

from __future__ import annotations

from payments.gateways.braintree.wire import Doc, from_wire
from payments.money import Money

# What is on its way into the bank. `submitted_for_settlement` counts as captured: nothing but a batch at night
# stands between, Braintree tells nobody of its end for cards, and a decline there is as rare as a lost refund.
CAPTURED = frozenset({"submitted_for_settlement", "settling", "settled", "settlement_confirmed"})
SETTLEMENT_FAILURES = frozenset({"settlement_declined", "settlement_failed"})
REFUSALS = frozenset({"processor_declined", "gateway_rejected"})
# A parent of partial settlements waits in the first, and ends in the second when it is used up or voided.
PARENT_STATES = frozenset({"settlement_pending", "settlement_confirmed"})


def is_refund(transaction: Doc) -> bool:
    return bool(transaction.get("type") == "credit")


def is_parent(transaction: Doc) -> bool:
    """Whether parts of it were captured, each as a transaction of its own."""
    return bool(transaction.get("partial_settlement_transaction_ids"))


def was_captured(transaction: Doc) -> bool:
    """Whether it was submitted for settlement in its life, even if it was voided before it settled."""
    return transaction["status"] in CAPTURED or any(
        event.get("status") in CAPTURED for event in transaction.get("status_history") or ()
    )


def read_amount(transaction: Doc) -> Money:
    return from_wire(transaction["amount"], transaction["currency_iso_code"])


def authorized_amount(transaction: Doc) -> Money:
    """What was held: a capture of less overwrites the transaction's amount, its history keeps the first one."""
    history = transaction.get("status_history") or ()
    held = next((event["amount"] for event in history if event.get("status") == "authorized"), None)
    return from_wire(held or transaction["amount"], transaction["currency_iso_code"])
