"""The test tokens: which card stands behind each, and what goes wrong with it."""

import hashlib
import re
from dataclasses import dataclass, replace

from .wire import Doc, invalid

EUROPE_CODES = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IS IT LI LT LU LV MT NL NO PL PT RO SE SI SK"
OTHER_CODES = (
    "AE AR AU BR CA CH CL CN CO CR EC GB HK IL IN JP KR MX MY NG NZ PA PE PH PY RU SA SG TH TR TW US"
)
EUROPE = frozenset(EUROPE_CODES.split())
COUNTRIES = EUROPE | frozenset(OTHER_CODES.split())
BRANDS = {
    "visa": ("visa", "4242", "credit"),
    "visa_debit": ("visa", "5556", "debit"),
    "mastercard": ("mastercard", "4444", "credit"),
    "mastercard_debit": ("mastercard", "8210", "debit"),
    "mastercard_prepaid": ("mastercard", "5100", "prepaid"),
    "amex": ("amex", "8431", "credit"),
    "discover": ("discover", "1117", "credit"),
    "diners": ("diners", "0004", "credit"),
    "jcb": ("jcb", "0505", "credit"),
    "unionpay": ("unionpay", "0005", "credit"),
}
DECLINES = {
    "chargeDeclined": ("card_declined", "generic_decline", "Your card was declined."),
    "chargeDeclinedInsufficientFunds": (
        "card_declined",
        "insufficient_funds",
        "Your card has insufficient funds.",
    ),
    "chargeDeclinedLostCard": ("card_declined", "lost_card", "Your card was declined."),
    "chargeDeclinedStolenCard": ("card_declined", "stolen_card", "Your card was declined."),
    "chargeDeclinedFraudulent": ("card_declined", "fraudulent", "Your card was declined."),
    "chargeDeclinedVelocityLimitExceeded": (
        "card_declined",
        "card_velocity_exceeded",
        "Your card was declined for making repeated attempts too frequently or exceeding its amount limit.",
    ),
    "chargeDeclinedExpiredCard": ("expired_card", "expired_card", "Your card has expired."),
    "chargeDeclinedIncorrectCvc": (
        "incorrect_cvc",
        "incorrect_cvc",
        "Your card's security code is incorrect.",
    ),
    "chargeDeclinedProcessingError": (
        "processing_error",
        "processing_error",
        "An error occurred while processing your card. Try again in a little bit.",
    ),
    "chargeCustomerFail": ("card_declined", "generic_decline", "Your card was declined."),
    "radarBlock": ("card_declined", "fraudulent", "Your card was declined."),
}
ALWAYS = 1_000_000


@dataclass(frozen=True, slots=True)
class Card:
    """What the gateway knows of the card behind a token, and how it misbehaves."""

    token: str
    brand: str = "visa"
    last4: str = "4242"
    funding: str = "credit"
    country: str = "US"
    fingerprint: str = ""
    decline: tuple[str, str, str] | None = None
    three_d_secure: str = "none"  # none | optional | required
    line1_check: str = "pass"
    postal_check: str = "pass"
    cvc_check: str = "pass"
    risk_score: int = 12
    capture_failures: int = 0
    refund_fails_later: bool = False
    dispute: str = ""  # the reason of the dispute that follows the capture, or inquiry
    multicapture: bool = True  # may be captured in parts, when that is asked for
    needs_holder: bool = True  # off session too, where three_d_secure is required
    webhook: str = "normal"  # normal | late | duplicate | first | bad_signature
    fault: str = ""  # a fault of faults.FAULTS, on the first `fault_attempts` attempts of a key
    fault_attempts: int = 1

    @property
    def european(self) -> bool:
        return self.country in EUROPE

    @property
    def needs_holder_off_session(self) -> bool:
        return self.three_d_secure == "required" and self.needs_holder

    def describe(self, *, authenticated: bool) -> Doc:
        """The `card` part of a charge's payment_method_details."""
        secure = {"result": "authenticated", "version": "2.2.0", "authentication_flow": "challenge"}
        return {
            "brand": self.brand,
            "last4": self.last4,
            "country": self.country,
            "funding": self.funding,
            "fingerprint": self.fingerprint,
            "exp_month": 12,
            "exp_year": 2034,
            "checks": {
                "address_line1_check": self.line1_check,
                "address_postal_code_check": self.postal_check,
                "cvc_check": self.cvc_check,
            },
            "network": self.brand,
            "three_d_secure": secure if authenticated else None,
            "wallet": None,
        }

    def risk(self) -> Doc:
        level = "highest" if self.risk_score >= 75 else "elevated" if self.risk_score >= 65 else "normal"
        return {"risk_score": self.risk_score, "risk_level": level}


def build_table() -> dict[str, Card]:
    table = {}
    for name, (brand, last4, funding) in BRANDS.items():
        table[f"pm_card_{name}"] = Card(f"pm_card_{name}", brand=brand, last4=last4, funding=funding)
    for country in COUNTRIES:
        token = f"pm_card_{country.lower()}"
        table[token] = Card(token, country=country, last4=f"{sum(map(ord, country)) * 37 % 10000:04d}")
    for name, decline in DECLINES.items():
        for token in (f"pm_card_{name}", f"pm_card_visa_{name}"):
            table[token] = Card(f"pm_card_{name}", last4="0002", decline=decline)
    table["pm_card_radarBlock"] = replace(table["pm_card_radarBlock"], risk_score=99)
    for card in SPECIAL:
        table[card.token] = card
    return table


SPECIAL = (
    Card("pm_card_threeDSecure2Required", last4="3220", three_d_secure="required"),
    Card("pm_card_threeDSecureRequired", last4="3063", three_d_secure="required"),
    Card("pm_card_authenticationRequired", last4="3184", three_d_secure="required"),
    Card(
        "pm_card_authenticationRequiredOnSetup", last4="3155", three_d_secure="required", needs_holder=False
    ),
    Card("pm_card_threeDSecureOptional", last4="3055", three_d_secure="optional"),
    Card(
        "pm_card_threeDSecureRequiredChargeDeclined",
        last4="1629",
        three_d_secure="required",
        decline=DECLINES["chargeDeclined"],
    ),
    Card("pm_card_avsFail", last4="0010", line1_check="fail", postal_check="fail"),
    Card("pm_card_avsLine1Fail", last4="0028", line1_check="fail"),
    Card("pm_card_avsZipFail", last4="0036", postal_check="fail"),
    Card("pm_card_avsUnchecked", last4="0044", line1_check="unavailable", postal_check="unavailable"),
    Card("pm_card_cvcCheckFail", last4="0101", cvc_check="fail"),
    Card("pm_card_riskLevelElevated", last4="9235", risk_score=70),
    Card("pm_card_riskLevelHighest", last4="4954", risk_score=90),
    Card("pm_card_createDispute", last4="0259", dispute="fraudulent"),
    Card("pm_card_createDisputeProductNotReceived", last4="2685", dispute="product_not_received"),
    Card("pm_card_createDisputeInquiry", last4="1976", dispute="inquiry"),
    Card("pm_card_multicaptureUnavailable", last4="0053", multicapture=False),
    Card("tok_timeout_after", fault="timeout_after"),
    Card("tok_timeout_before", fault="timeout_before"),
    Card("tok_reset_after", fault="reset_after"),
    Card("tok_network_twice", fault="reset_before", fault_attempts=2),
    Card("tok_500_after", fault="500_after"),
    Card("tok_wrong_amount", fault="wrong_amount", fault_attempts=ALWAYS),
    Card("tok_slow", fault="slow", fault_attempts=ALWAYS),
    Card("tok_capture_fails", capture_failures=ALWAYS),
    Card("tok_capture_fails_once", capture_failures=1),
    Card("tok_refund_fails_later", refund_fails_later=True),
    Card("tok_webhook_late", webhook="late"),
    Card("tok_webhook_duplicate", webhook="duplicate"),
    Card("tok_webhook_first", webhook="first"),
    Card("tok_webhook_bad_signature", webhook="bad_signature"),
)
TABLE = build_table()


def find_card(token: str, *, param: str = "payment_method") -> Card:
    """The card of a token; `<token>_<anything>` is another card of that kind; `<token>_de` a German one.

    Raises ApiError 400 resource_missing for a token that is not in the table.
    """
    parts = token.split("_")
    for length in range(len(parts), 1, -1):
        card = TABLE.get("_".join(parts[:length]))
        if card is None:
            continue
        suffix = parts[length:]
        return identify(card, token, suffix)
    raise invalid(f"No such PaymentMethod: '{token}'", param, "resource_missing")


def identify(card: Card, token: str, suffix: list[str]) -> Card:
    digest = hashlib.sha256(("_".join([card.token, *suffix])).encode()).hexdigest()
    named = replace(card, token=token, fingerprint=digest[:16])
    if not suffix:
        return named
    if re.fullmatch("[a-z]{2}", suffix[0]) and suffix[0].upper() in COUNTRIES:
        named = replace(named, country=suffix[0].upper())
    return replace(named, last4=f"{int(digest[16:24], 16) % 10000:04d}")
