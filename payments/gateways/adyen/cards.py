"""The card of a payment or a webhook: its checks, its risk, and the token that it was stored under."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from payments.gateways.adyen.wire import Doc
from payments.gateways.base import CardDetails, SavedToken

BRANDS = {"mc": "mastercard", "cup": "unionpay", "bcmc": "bancontact"}
# avsResult begins with a number (docs.adyen.com/risk-management/avs-checks): what both parts, or the only one that was
# looked at, came to. A name that does not match beside an address that does is no failure of the address.
AVS = {
    "pass": {"7", "9", "12", "14", "15", "19", "20", "21", "23", "24", "25"},
    "fail": {"1", "2", "6", "10", "13", "16", "17", "26"},
    "unavailable": {"0", "3", "4", "8", "11", "22"},
    "unchecked": {"5", "18"},
}
CVC = {"0": "unavailable", "1": "pass", "2": "fail", "3": "unchecked", "4": "unchecked", "5": "unavailable"}
CVC |= {"6": "unchecked"}
_EXPIRY = re.compile(r"([0-9]{1,2})/([0-9]{4})")


def read_card(answer: Doc) -> CardDetails | None:
    """The card of a payment or a webhook, as far as the account's settings let Adyen tell of it."""
    extra = answer.get("additionalData") or {}
    if not any(name in extra for name in ("cardSummary", "avsResult", "cvcResult", "alias")):
        return None
    brand = read_brand(answer, extra)
    expiry = _EXPIRY.fullmatch(extra.get("expiryDate") or "")
    score = (answer.get("fraudResult") or {}).get("accountScore", extra.get("totalFraudScore"))
    return CardDetails(
        brand=BRANDS.get(brand, brand),
        last4=extra.get("cardSummary") or "",
        country=extra.get("cardIssuingCountry") or "",
        funding=(extra.get("fundingSource") or "").lower(),
        exp_month=int(expiry[1]) if expiry else None,
        exp_year=int(expiry[2]) if expiry else None,
        fingerprint=extra.get("alias") or "",
        avs=read_check(
            extra.get("avsResult"), lambda code: next((w for w, c in AVS.items() if code in c), "")
        ),
        cvc=read_check(extra.get("cvcResult"), lambda code: CVC.get(code, "")),
        three_d_secure=read_three_d_secure(extra),
        risk_score=int(str(score)) if str(score).isdecimal() else None,
    )


def read_brand(answer: Doc, extra: Doc) -> str:
    method = answer.get("paymentMethod")
    named = method.get("brand") if isinstance(method, Mapping) else method  # a webhook has the word itself
    return str(named or extra.get("paymentMethod") or extra.get("paymentMethodVariant") or "")


def read_check(result: str | None, read: Callable[[str], str]) -> str:
    return read((result or "").partition(" ")[0])


def read_three_d_secure(extra: Doc) -> str:
    """ "" when it was not offered at all."""
    if extra.get("threeDAuthenticated") == "true":
        return "authenticated"
    if extra.get("threeDOffered") != "true":
        return ""
    return "attempted" if extra.get("liabilityShift") == "true" else "failed"


def read_saved(extra: Doc) -> SavedToken | None:
    """The token of a stored card, by its name of today or by the one before."""
    for prefix, name in (
        ("tokenization", "storedPaymentMethodId"),
        ("recurring", "recurringDetailReference"),
    ):
        if token := extra.get(f"{prefix}.{name}"):
            return SavedToken(token, extra.get(f"{prefix}.shopperReference") or "")
    return None
