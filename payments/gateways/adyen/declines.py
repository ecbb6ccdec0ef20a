"""Why Adyen says that a payment, a capture or a void was not done, in our words and with our advice."""

from __future__ import annotations

from payments.gateways.base import Decline

# Adyen's refusalReasonCode -> our code and advice (docs.adyen.com/development-resources/refusal-reasons). Its
# reasons must not be shown to the customer, so what smells of theft or fraud gets no advice of its own.
_ANY = ("card_declined", "try_another_method")
_STOLEN = ("lost_or_stolen", "try_another_method")
_FRAUD = ("suspected_fraud", "try_another_method")
_LIMIT = ("limit_exceeded", "try_another_method")
_CALL = ("call_issuer", "contact_issuer")
_PIN = ("incorrect_pin", "correct_details")
_UNSUPPORTED = ("not_supported", "try_another_method")
_NOT_PROCESSED = ("processing_error", "try_again_later")
_NOT_AUTHENTICATED = ("authentication_failed", "authenticate")
_AUTHENTICATE = ("authentication_required", "authenticate")
DECLINES: dict[str, tuple[str, str]] = {
    "2": _ANY,  # Refused
    "3": _CALL,  # Referral
    "4": _NOT_PROCESSED,  # Acquirer Error
    "5": _STOLEN,  # Blocked Card
    "6": ("expired_card", "try_another_method"),
    "7": ("invalid_amount", "contact_issuer"),
    "8": ("incorrect_card", "correct_details"),
    "9": ("issuer_unavailable", "try_again_later"),
    "10": _UNSUPPORTED,
    "11": _NOT_AUTHENTICATED,  # 3D Not Authenticated
    "12": ("insufficient_funds", "try_another_method"),
    "14": _FRAUD,  # Acquirer Fraud
    "15": _ANY,  # Cancelled
    "16": _ANY,  # Shopper Cancelled
    "17": _PIN,
    "18": _LIMIT,  # Pin tries exceeded
    "19": _PIN,
    "20": _FRAUD,
    "21": _NOT_PROCESSED,  # Not Submitted
    "22": _FRAUD,
    "23": _CALL,  # Transaction Not Permitted
    "24": ("incorrect_cvc", "correct_details"),
    "25": _STOLEN,  # Restricted Card
    "26": _CALL,  # Revocation Of Auth
    "27": _ANY,  # Declined Non Generic
    "28": _LIMIT,
    "29": _LIMIT,
    "31": _FRAUD,  # Issuer Suspected Fraud
    "32": ("incorrect_address", "correct_details"),  # AVS Declined
    "33": _PIN,  # Card requires online pin
    "34": _UNSUPPORTED,
    "35": _UNSUPPORTED,
    "36": _AUTHENTICATE,  # Mobile pin required
    "37": _UNSUPPORTED,  # Contactless fallback
    "38": _AUTHENTICATE,
    "39": _NOT_AUTHENTICATED,  # RReq not received from DS
    "42": _NOT_AUTHENTICATED,  # 3DS Authentication Error
    "46": _LIMIT,  # blocked by Adyen to prevent excessive retry fees
}
# A webhook gives the reason in words alone.
REASONS = {
    "refused": "2",
    "referral": "3",
    "acquirer error": "4",
    "blocked card": "5",
    "expired card": "6",
    "invalid amount": "7",
    "invalid card number": "8",
    "issuer unavailable": "9",
    "not supported": "10",
    "3d not authenticated": "11",
    "not enough balance": "12",
    "acquirer fraud": "14",
    "cancelled": "15",
    "shopper cancelled": "16",
    "invalid pin": "17",
    "pin tries exceeded": "18",
    "pin validation not possible": "19",
    "fraud": "20",
    "not submitted": "21",
    "fraud-cancelled": "22",
    "transaction not permitted": "23",
    "cvc declined": "24",
    "restricted card": "25",
    "revocation of auth": "26",
    "declined non generic": "27",
    "withdrawal amount exceeded": "28",
    "withdrawal count exceeded": "29",
    "issuer suspected fraud": "31",
    "avs declined": "32",
    "card requires online pin": "33",
    "mobile pin required": "36",
    "authentication required": "38",
    "rreq not received from ds": "39",
}


def read_decline(reason: str, code: str = "") -> Decline:
    """Adyen's code and words. An unknown code is kept beside our plainest one."""
    known = code or REASONS.get(reason.strip().lower(), "")
    ours, advice = DECLINES.get(known, _ANY)
    return Decline(ours, known or reason, advice, reason or "The payment was refused.")


def read_failure(reason: str) -> Decline:
    """Why a capture or a void was not done: Adyen's words are all there is."""
    is_too_much = "insufficient balance" in reason.lower()
    return Decline("amount_too_large" if is_too_much else "not_done", reason, "none", reason or "no reason")
