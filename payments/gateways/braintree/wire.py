"""Braintree's words in ours: money, times, and what is kept of an answer.

A transaction or a dispute is the dict that its XML makes: underscored names, `type` attributes applied, times and
dates as ISO 8601 text. The adapter makes it of the SDK's objects, the webhook verifier of the payload itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from payments.errors import GatewayMismatchError
from payments.gateways.kept import keep
from payments.money import Money, exponent

Doc = Mapping[str, Any]
# A saved token is written so where a charge names it, since a nonce looks like any other word.
VAULT = "vault:"


def read_time(text: str) -> datetime:
    """Braintree's times are UTC, whether they say so or not."""
    when = datetime.fromisoformat(text)
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


# --- money --------------------------------------------------------------------------------------------------


def to_wire(amount: Money) -> str:
    """Exact major units with the digits of ISO 4217: 19.99 EUR, 500 JPY, 1.230 KWD."""
    return f"{amount.amount:f}"


def from_wire(stated: object, currency: str) -> Money:
    """What Braintree states. Raises `GatewayMismatchError` for a fraction that the currency does not have.

    Raises `ValueError` or `ArithmeticError` for what is no currency or no number.
    """
    code, number = currency.upper(), Decimal(str(stated))
    exponent(code)
    try:
        return Money.from_major(number, code)
    except ValueError as error:
        raise GatewayMismatchError(f"Braintree states {stated} {code}: {error}") from error


# --- what is kept of an answer ------------------------------------------------------------------------------

# The fields that an operator may need: objects and states, money, the card and its checks, refusals.
# fmt: off
_KEPT = frozenset({
    # objects and their ids
    "id", "type", "status", "order_id", "merchant_account_id", "authorized_transaction_id", "refund_ids",
    "refunded_transaction_id", "partial_settlement_transaction_ids", "created_at", "updated_at",
    "authorization_expires_at", "network_transaction_id", "acquirer_reference_number", "settlement_batch_id",
    # money and state
    "amount", "currency_iso_code", "status_history", "timestamp", "payment_instrument_type",
    "disbursement_details", "disbursement_date", "settlement_amount", "settlement_currency_iso_code",
    "settlement_currency_exchange_rate",
    # the card and its checks
    "credit_card", "card_type", "last_4", "expiration_month", "expiration_year", "country_of_issuance",
    "debit", "prepaid", "issuing_bank", "avs_error_response_code",
    "avs_street_address_response_code", "avs_postal_code_response_code", "cvv_response_code",
    "three_d_secure_info", "enrolled", "liability_shifted", "liability_shift_possible", "eci_flag",
    "three_d_secure_version", "sca_exemption_requested", "risk_data", "decision", "decision_reasons",
    "transaction_risk_score",
    # refusals
    "gateway_rejection_reason", "processor_response_code", "processor_response_text",
    "processor_response_type", "additional_processor_response", "network_response_code",
    "network_response_text", "merchant_advice_code", "processor_settlement_response_code",
    "processor_settlement_response_text",
    # disputes
    "amount_disputed", "amount_won", "case_number", "kind", "reason", "reason_code", "reason_description",
    "received_date", "reference_number", "reply_by_date", "original_dispute_id", "transaction", "evidence",
    "category", "date_opened", "date_won",
})
# fmt: on


def trim(doc: Doc) -> dict[str, Any]:
    """No address, no customer, no token."""
    return keep(doc, _KEPT)
