"""Why a card was declined, in our words and with our advice."""

from __future__ import annotations

from payments.gateways.base import Decline
from payments.gateways.stripe.wire import Doc
from payments.redaction import redact_data

# Stripe's decline code -> our code and advice, after docs.stripe.com/declines/codes. What smells of theft or
# fraud must look like any other decline to the customer, so its advice says no more than theirs.
_ANY = ("card_declined", "try_another_method")
_STOLEN = ("lost_or_stolen", "try_another_method")
_FRAUD = ("suspected_fraud", "try_another_method")
_LIMIT = ("limit_exceeded", "try_another_method")
_CALL = ("call_issuer", "contact_issuer")
_LATER = ("issuer_unavailable", "try_again_later")
_UNSUPPORTED = ("not_supported", "try_another_method")
_AUTHENTICATE = ("authentication_required", "authenticate")
DECLINES: dict[str, tuple[str, str]] = {
    "insufficient_funds": ("insufficient_funds", "try_another_method"),
    "expired_card": ("expired_card", "try_another_method"),
    "incorrect_cvc": ("incorrect_cvc", "correct_details"),
    "invalid_cvc": ("incorrect_cvc", "correct_details"),
    "incorrect_number": ("incorrect_card", "correct_details"),
    "invalid_number": ("incorrect_card", "correct_details"),
    "invalid_account": ("incorrect_card", "contact_issuer"),
    "new_account_information_available": ("incorrect_card", "contact_issuer"),
    "incorrect_address": ("incorrect_address", "correct_details"),
    "incorrect_zip": ("incorrect_address", "correct_details"),
    "invalid_expiry_month": ("incorrect_expiry", "correct_details"),
    "invalid_expiry_year": ("incorrect_expiry", "correct_details"),
    "incorrect_pin": ("incorrect_pin", "correct_details"),
    "invalid_pin": ("incorrect_pin", "correct_details"),
    "offline_pin_required": ("incorrect_pin", "correct_details"),
    "online_or_offline_pin_required": ("incorrect_pin", "correct_details"),
    "lost_card": _STOLEN,
    "stolen_card": _STOLEN,
    "pickup_card": _STOLEN,
    "restricted_card": _STOLEN,
    "fraudulent": _FRAUD,
    "merchant_blacklist": _FRAUD,
    "security_violation": _FRAUD,
    "highest_risk_level": _FRAUD,
    "card_velocity_exceeded": _LIMIT,
    "withdrawal_count_limit_exceeded": _LIMIT,
    "pin_try_exceeded": _LIMIT,
    "call_issuer": _CALL,
    "do_not_honor": _CALL,
    "no_action_taken": _CALL,
    "not_permitted": _CALL,
    "service_not_allowed": _CALL,
    "transaction_not_allowed": _CALL,
    "revocation_of_all_authorizations": _CALL,
    "revocation_of_authorization": _CALL,
    "stop_payment_order": _CALL,
    "invalid_amount": ("invalid_amount", "contact_issuer"),
    "duplicate_transaction": ("duplicate_transaction", "wait_for_first"),
    "card_not_supported": _UNSUPPORTED,
    "currency_not_supported": _UNSUPPORTED,
    "testmode_decline": _UNSUPPORTED,
    "issuer_not_available": _LATER,
    "reenter_transaction": _LATER,
    "try_again_later": _LATER,
    "processing_error": ("processing_error", "try_again_later"),
    "authentication_required": _AUTHENTICATE,
    "authentication_not_handled": _AUTHENTICATE,
    "mobile_device_authentication_required": _AUTHENTICATE,
    "approve_with_id": ("authentication_required", "try_again_later"),
    "payment_intent_authentication_failure": ("authentication_failed", "authenticate"),
    "generic_decline": _ANY,
    "card_declined": _ANY,
}


def read_decline(error: Doc) -> Decline:
    """From an error answer or from an intent's last payment error."""
    gateway_code = error.get("decline_code") or error.get("code") or ""
    code, advice = DECLINES.get(gateway_code, _ANY)
    return Decline(code, gateway_code, advice, str(redact_data(error.get("message") or "")))
