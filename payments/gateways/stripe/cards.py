"""The card of a charge, with the checks that were made and the risk that was found."""

from __future__ import annotations

from payments.gateways.base import CardDetails
from payments.gateways.stripe.wire import Doc

THREE_D_SECURE = {"authenticated": "authenticated", "attempt_acknowledged": "attempted", "failed": "failed"}
_WORST_FIRST = ("fail", "pass", "unavailable", "unchecked")


def read_card(charge: Doc) -> CardDetails | None:
    """The card of an expanded charge, with the checks and the risk that were found."""
    card = (charge.get("payment_method_details") or {}).get("card")
    outcome = charge.get("outcome") or {}
    return describe_card(card, risk_score=outcome.get("risk_score")) if card else None


def read_refused_card(error: Doc | None) -> CardDetails | None:
    card = ((error or {}).get("payment_method") or {}).get("card")
    return describe_card(card) if card else None


def describe_card(card: Doc, *, risk_score: int | None = None) -> CardDetails:
    checks = card.get("checks") or {}
    return CardDetails(
        brand=card.get("brand") or "",
        last4=card.get("last4") or "",
        country=card.get("country") or "",
        funding=card.get("funding") or "",
        exp_month=card.get("exp_month"),
        exp_year=card.get("exp_year"),
        fingerprint=card.get("fingerprint") or "",
        avs=combine_checks(checks.get("address_line1_check"), checks.get("address_postal_code_check")),
        cvc=combine_checks(checks.get("cvc_check")),
        three_d_secure=THREE_D_SECURE.get((card.get("three_d_secure") or {}).get("result") or "", ""),
        risk_score=risk_score,
    )


def combine_checks(*checks: str | None) -> str:
    """One failed part fails the whole; else one that passed is worth more than one that was not looked at."""
    return next((word for word in _WORST_FIRST if word in checks), "")
