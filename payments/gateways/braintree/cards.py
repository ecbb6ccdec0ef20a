"""The card of a transaction: its checks, its risk, and the vault's token of it."""

from __future__ import annotations

from collections.abc import Sequence

from babel.core import get_global

from payments.gateways.base import CardDetails, SavedToken
from payments.gateways.braintree.wire import VAULT, Doc

# developer.paypal.com/braintree/docs/reference/general/processor-responses/avs-cvv-responses
CHECKS = {
    "M": "pass",
    "N": "fail",
    "U": "unavailable",
    "S": "unavailable",
    "E": "unavailable",
    "I": "unchecked",
    "A": "unchecked",
    "B": "unchecked",
}
_WORST_FIRST = ("fail", "pass", "unavailable", "unchecked")
BRANDS = {
    "American Express": "amex",
    "China UnionPay": "unionpay",
    "UnionPay": "unionpay",
    "Diners Club": "diners",
    "MasterCard": "mastercard",
    "UK Maestro": "maestro",
}
THREE_D_SECURE = {
    "authenticate_successful": "authenticated",
    "authenticate_successful_issuer_not_participating": "attempted",
    "authenticate_attempt_successful": "attempted",
    "data_only_successful": "attempted",
    "authenticate_error": "failed",
    "authenticate_failed": "failed",
    "authenticate_failed_acs_error": "failed",
    "authenticate_frictionless_failed": "failed",
    "authenticate_rejected": "failed",
    "authenticate_signature_verification_failed": "failed",
    "authenticate_unable_to_authenticate": "failed",
}


def read_card(transaction: Doc) -> CardDetails | None:
    """The card of a transaction, with the checks and the risk that were found."""
    card = transaction.get("credit_card") or {}
    if not card.get("last_4"):
        return None
    brand = card.get("card_type") or ""
    return CardDetails(
        brand=BRANDS.get(brand, brand.lower().replace(" ", "_")),
        last4=card["last_4"],
        country=read_country(card.get("country_of_issuance") or ""),
        funding=read_funding(card),
        exp_month=read_number(card.get("expiration_month")),
        exp_year=read_number(card.get("expiration_year")),
        fingerprint=card.get("unique_number_identifier") or "",
        avs=combine_checks(
            transaction.get("avs_error_response_code"),
            transaction.get("avs_street_address_response_code"),
            transaction.get("avs_postal_code_response_code"),
        ),
        cvc=combine_checks(transaction.get("cvv_response_code")),
        three_d_secure=THREE_D_SECURE.get(
            (transaction.get("three_d_secure_info") or {}).get("status") or "", ""
        ),
        risk_score=read_number((transaction.get("risk_data") or {}).get("transaction_risk_score")),
    )


def combine_checks(*codes: str | None) -> str:
    """One failed part fails the whole; else one that passed is worth more than one that was not looked at."""
    words = [CHECKS.get(code or "", "") for code in codes]
    return next((word for word in _WORST_FIRST if word in words), "")


def read_country(code: str) -> str:
    """Braintree writes three letters (USA), we keep two (US); "" for what is neither, as "Unknown" is."""
    aliases: Sequence[str] = get_global("territory_aliases").get(code, ())
    return aliases[0] if len(code) == 3 and aliases else code if len(code) == 2 else ""


def read_funding(card: Doc) -> str:
    if card.get("prepaid") == "Yes":
        return "prepaid"
    return {"Yes": "debit", "No": "credit"}.get(card.get("debit") or "", "")


def read_number(text: object) -> int | None:
    return int(str(text)) if str(text or "").isdecimal() else None


def read_saved(transaction: Doc) -> SavedToken | None:
    """The vault's token of the card; a nonce that was not stored has none."""
    token = (transaction.get("credit_card") or {}).get("token")
    customer = (transaction.get("customer") or {}).get("id")
    return SavedToken(f"{VAULT}{token}", customer or "") if token else None
