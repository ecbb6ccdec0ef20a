"""Stripe's words in ours: names in metadata, times, digits of money, and what is kept of an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from payments.errors import GatewayMismatchError, InvalidRequestError
from payments.gateways.kept import keep
from payments.money import Money, exponent

Doc = Mapping[str, Any]
# Names of our ids in the metadata of Stripe's objects.
OPERATION_ID, PAYMENT_ID, ORDER_ID = "operation_id", "payment_id", "order_id"
CAPTURE_OPERATION_ID = "capture_operation_id"  # of the one capture, before there could be several
VOID_OPERATION_ID = "void_operation_id"  # of the release of what several captures left
# Each capture leaves one key of its own, this and the operation's id: 38 characters of the 40 that Stripe takes.
CAPTURED_PREFIX = "captured_"
CUSTOMER_ID = "customer_id"


def read_time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def reference_of(value: Any) -> str:
    """The id of an object that may be expanded or absent."""
    return str(value.get("id", "")) if isinstance(value, Mapping) else str(value or "")


def find_by_metadata(docs: Sequence[Doc], name: str, value: str) -> Doc | None:
    return next((doc for doc in docs if (doc.get("metadata") or {}).get(name) == value), None)


# --- money --------------------------------------------------------------------------------------------------

# Digits that Stripe counts, where they are not those of ISO 4217 (docs.stripe.com/currencies, special cases):
# UGX and ISK kept the two digits that they once had, the last two always being zero; MGA has none.
# HUF and TWD have two digits for charges as in ISO; only their payouts are whole.
WIRE_DIGITS = {"ISK": 2, "UGX": 2, "MGA": 0}


def to_wire(amount: Money) -> int:
    """Raises `InvalidRequestError` for a fraction that Stripe cannot express."""
    shift = WIRE_DIGITS.get(amount.currency, 0) - exponent(amount.currency)
    if amount.currency not in WIRE_DIGITS or shift == 0:
        return amount.minor
    if shift > 0:
        return int(amount.minor * 10**shift)
    whole, rest = divmod(amount.minor, 10**-shift)
    if rest:
        raise InvalidRequestError(f"Stripe takes whole {amount.currency} only: {amount} was not sent")
    return int(whole)


def from_wire(number: int, currency: str) -> Money:
    """What Stripe states. Raises `GatewayMismatchError` for a fraction that the currency does not have."""
    code = currency.upper()
    shift = WIRE_DIGITS.get(code, exponent(code)) - exponent(code)
    if shift <= 0:
        return Money(number * 10**-shift, code)
    whole, rest = divmod(number, 10**shift)
    if rest:
        raise GatewayMismatchError(f"Stripe states {number} {code}, which is no whole amount of {code}")
    return Money(whole, code)


# --- what is kept of an answer ------------------------------------------------------------------------------

# The fields that an operator may need: objects and states, money, the card and its checks, refusals.
# fmt: off
_KEPT = frozenset({
    # objects and their ids
    "id", "object", "type", "livemode", "created", "payment_intent", "charge", "latest_charge",
    "balance_transaction", "metadata", "customer",
    # money and state
    "amount", "amount_capturable", "amount_captured", "amount_received", "amount_refunded", "currency",
    "status", "paid", "captured", "canceled_at", "cancellation_reason", "capture_before", "reason",
    "result", "multicapture",
    # disputes
    "is_charge_refundable", "evidence_details", "due_by", "has_evidence", "past_due", "submission_count",
    "network_reason_code", "actionable", "fraud_type",
    # the card and its checks
    "payment_method_details", "card", "brand", "last4", "country", "funding", "exp_month", "exp_year",
    "fingerprint", "checks", "address_line1_check", "address_postal_code_check", "cvc_check",
    "three_d_secure", "outcome", "risk_level", "risk_score",
    # refusals
    "last_payment_error", "code", "decline_code", "message", "failure_code", "failure_message",
    "failure_reason", "network_status", "network_decline_code", "network_advice_code", "seller_message",
})
# fmt: on


def trim(doc: Doc) -> dict[str, Any]:
    """No client secret, no address."""
    return keep(doc, _KEPT)
