"""Why a payment was declined, by the processor or by Braintree, in our words and with our advice."""

from __future__ import annotations

from payments.gateways.base import Decline
from payments.gateways.braintree.states import SETTLEMENT_FAILURES
from payments.gateways.braintree.wire import Doc
from payments.redaction import redact_data

# The processor's code -> our code and advice, after developer.paypal.com/braintree/docs/reference/general/
# processor-responses/authorization-responses. What smells of theft or fraud looks like any other decline.
_ANY = ("card_declined", "try_another_method")
_STOLEN = ("lost_or_stolen", "try_another_method")
_FRAUD = ("suspected_fraud", "try_another_method")
_LIMIT = ("limit_exceeded", "try_another_method")
_CALL = ("call_issuer", "contact_issuer")
_LATER = ("issuer_unavailable", "try_again_later")
_UNSUPPORTED = ("not_supported", "try_another_method")
_AUTHENTICATE = ("authentication_required", "authenticate")
_CARD = ("incorrect_card", "correct_details")
_ADDRESS = ("incorrect_address", "correct_details")
_PROCESSING = ("processing_error", "try_again_later")
_PIN = ("incorrect_pin", "correct_details")
_CVC = ("incorrect_cvc", "correct_details")
_AMOUNT = ("invalid_amount", "contact_issuer")
_DUPLICATE = ("duplicate_transaction", "wait_for_first")
DECLINES: dict[str, tuple[str, str]] = {
    "2000": _CALL,  # do not honor
    "2001": ("insufficient_funds", "try_another_method"),
    "2002": _LIMIT,
    "2003": _LIMIT,
    "2004": ("expired_card", "try_another_method"),
    "2005": _CARD,
    "2006": ("incorrect_expiry", "correct_details"),
    "2007": ("incorrect_card", "contact_issuer"),  # no account
    "2008": _CARD,
    "2009": _CARD,  # no such issuer
    "2010": _CVC,
    "2011": _CALL,  # voice authorization required
    "2012": _STOLEN,
    "2013": _STOLEN,
    "2014": _FRAUD,
    "2015": _CALL,  # transaction not allowed
    "2016": _DUPLICATE,
    "2017": _CALL,  # the cardholder stopped billing
    "2018": _CALL,
    "2019": _PROCESSING,  # invalid transaction
    "2020": _CALL,  # violation
    "2021": _FRAUD,  # security violation
    "2022": ("incorrect_card", "contact_issuer"),  # the issuer has newer details
    "2023": _UNSUPPORTED,
    "2024": _UNSUPPORTED,
    # 2025-2031, 2033, 2040, 2042, 2045, 2049, 2050, 2055, 2061, 2062: how the account is set up, not the card.
    **dict.fromkeys(
        (*map(str, range(2025, 2032)), "2033", "2040", "2042", "2045", "2049", "2050", "2055", "2061"),
        _PROCESSING,
    ),
    "2062": _PROCESSING,
    "2032": _UNSUPPORTED,  # surcharge not permitted
    "2034": _CALL,  # no action taken
    "2035": _LIMIT,  # approved for a part only
    "2036": _PROCESSING,  # authorization not found
    "2037": _PROCESSING,  # reversed already
    "2038": _ANY,
    "2039": _PROCESSING,  # invalid authorization code
    "2041": _CALL,
    "2043": _CALL,
    "2044": _CALL,
    "2046": _ANY,
    "2047": _STOLEN,  # pick up card
    "2048": _AMOUNT,
    "2051": _CARD,
    "2053": _STOLEN,
    "2054": _AMOUNT,  # reversal does not match
    "2056": _LIMIT,
    "2057": _STOLEN,  # restricted card
    "2058": _UNSUPPORTED,
    "2059": _ADDRESS,
    "2060": _ADDRESS,
    "2064": _UNSUPPORTED,  # currency
    "2065": _PROCESSING,  # too late for a refund
    "2067": _PROCESSING,  # authorization expired
    "2069": _DUPLICATE,
    "2074": _ANY,
    "2075": _CALL,
    "2076": _ANY,
    "2077": _FRAUD,
    "2078": _CARD,
    "2086": _LIMIT,
    "2088": _UNSUPPORTED,
    "2097": _LIMIT,
    "2098": _LIMIT,
    "2099": _AUTHENTICATE,
    "2101": _AUTHENTICATE,
    "2102": _PIN,
    "2103": _LIMIT,  # too many wrong PINs
    "2104": _ANY,
    "2105": _CALL,
    "2106": _CALL,
    "2107": _CALL,  # card not activated
    "2108": ("incorrect_card", "contact_issuer"),  # closed card
    "3000": _LATER,
    "4001": _ANY,  # settlement declined
}
# Why Braintree itself refused, before or after the processor (Transaction.GatewayRejectionReason).
REJECTIONS: dict[str, tuple[str, str]] = {
    "avs": _ADDRESS,
    "avs_and_cvv": _ADDRESS,
    "cvv": _CVC,
    "duplicate": _DUPLICATE,
    "excessive_retry": _ANY,
    "fraud": _FRAUD,
    "risk_threshold": _FRAUD,
    "three_d_secure": _AUTHENTICATE,
    "token_issuance": _ANY,
    "application_incomplete": _PROCESSING,
}


def read_decline(transaction: Doc) -> Decline:
    """From a transaction that the processor or Braintree itself refused."""
    reason = transaction.get("gateway_rejection_reason") or ""
    if transaction["status"] == "gateway_rejected":
        code, advice = REJECTIONS.get(reason, _ANY)
        return Decline(code, reason or "gateway_rejected", advice, f"Gateway Rejected: {reason}")
    name = "processor_response"
    if transaction["status"] in SETTLEMENT_FAILURES and transaction.get("processor_settlement_response_code"):
        name = "processor_settlement_response"
    gateway_code = str(transaction.get(f"{name}_code") or "")
    code, advice = DECLINES.get(gateway_code, _LATER if gateway_code.startswith("3") else _ANY)
    text = transaction.get(f"{name}_text") or transaction.get("additional_processor_response") or "Declined"
    return Decline(code, gateway_code, advice, str(redact_data(text)))
