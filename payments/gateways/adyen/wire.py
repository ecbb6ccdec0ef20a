"""Adyen's words in ours: names in metadata, digits of money, and what is kept of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from payments.errors import GatewayMismatchError, InvalidRequestError
from payments.gateways.kept import keep
from payments.money import Money, exponent

Doc = Mapping[str, Any]
# Names of our ids in the metadata of a payment.
OPERATION_ID, PAYMENT_ID, ORDER_ID = "operation_id", "payment_id", "order_id"


# --- money --------------------------------------------------------------------------------------------------

# Digits that Adyen counts, where it says itself that they differ from the standard
# (docs.adyen.com/development-resources/currency-codes).
WIRE_DIGITS = {"CLP": 2, "CVE": 0, "IDR": 0, "ISK": 2}


def to_wire(amount: Money) -> dict[str, Any]:
    """Raises `InvalidRequestError` for a fraction that Adyen cannot express."""
    shift = WIRE_DIGITS.get(amount.currency, exponent(amount.currency)) - exponent(amount.currency)
    whole, rest = (amount.minor * 10**shift, 0) if shift >= 0 else divmod(amount.minor, 10**-shift)
    if rest:
        raise InvalidRequestError(f"Adyen takes whole {amount.currency} only: {amount} was not sent")
    return {"value": int(whole), "currency": amount.currency}


def from_wire(stated: Doc) -> Money:
    """What Adyen states. Raises `GatewayMismatchError` for a fraction that the currency does not have."""
    number, code = stated["value"], stated["currency"]
    shift = WIRE_DIGITS.get(code, exponent(code)) - exponent(code)
    if shift <= 0:
        return Money(number * 10**-shift, code)
    whole, rest = divmod(number, 10**shift)
    if rest:
        raise GatewayMismatchError(f"Adyen states {number} {code}, which is no whole amount of {code}")
    return Money(whole, code)


# --- what is kept of an answer ------------------------------------------------------------------------------

# fmt: off
_KEPT = frozenset({
    # which, and how much
    "pspReference", "originalReference", "paymentPspReference", "merchantReference", "merchantAccountCode", "reference",
    "paymentReference", "eventCode", "eventDate", "success", "live", "amount", "currency", "value", "metadata",
    # how it ended
    "resultCode", "refusalReason", "refusalReasonCode", "reason", "status",
    # the card and its checks
    "additionalData", "paymentMethod", "brand", "type", "cardSummary", "expiryDate", "cardIssuingCountry",
    "fundingSource", "paymentMethodVariant", "avsResult", "cvcResult", "authCode", "refusalReasonRaw",
    "threeDOffered", "threeDAuthenticated", "liabilityShift", "scaExemptionRequested",
    "fraudResult", "accountScore", "fraudResultType",
    "modification.action", "networkTxReference", "merchantAdviceCode",
    # disputes
    "disputeStatus", "chargebackReasonCode", "chargebackSchemeCode", "rfiReasonCode", "rfiSchemeCode",
    "defensePeriodEndsAt", "defendable", "autoDefended", "capturePspReference",
})
# fmt: on


def trim(doc: Doc) -> dict[str, Any]:
    """No alias, no token, no signature."""
    return keep(doc, _KEPT)
