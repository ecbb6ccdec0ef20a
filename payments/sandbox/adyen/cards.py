"""The test cards: what each token stands for, and how it misbehaves."""

import re
from dataclasses import dataclass, replace

from .wire import Doc, refuse

REFUSALS = {
    "2": "Refused",
    "3": "Referral",
    "4": "Acquirer Error",
    "5": "Blocked Card",
    "6": "Expired Card",
    "7": "Invalid Amount",
    "8": "Invalid Card Number",
    "9": "Issuer Unavailable",
    "10": "Not supported",
    "11": "3D Not Authenticated",
    "12": "Not enough balance",
    "14": "Acquirer Fraud",
    "20": "FRAUD",
    "24": "CVC Declined",
    "25": "Restricted Card",
    "31": "Issuer Suspected Fraud",
    "32": "AVS Declined",
    "38": "Authentication required",
}


@dataclass(frozen=True, slots=True)
class Card:
    """What Adyen knows of the card behind a token."""

    name: str
    brand: str = "visa"
    variant: str = "visacredit"
    last4: str = "1111"
    country: str = "NL"
    funding: str = "CREDIT"
    alias: str = "H167852639363479"
    avs: str = "7 Both postal code and address match"
    cvc: str = "1 Matches"
    score: int = 12
    three_d_secure: str = "none"  # none | optional | required
    refusal: str = ""  # a refusalReasonCode
    alone: str = ""  # the same, for a charge that its holder is not there for
    wrong_amount: bool = False
    capture: str = ""  # refused: CAPTURE says no; fails: CAPTURE_FAILED comes after it
    refund: str = (
        ""  # refused: REFUND says no; fails, reversed: REFUND_FAILED or REFUNDED_REVERSED come after it
    )

    def describe(self, *, offered: bool, authenticated: bool) -> Doc:
        """The additionalData of an account that lets Adyen tell all."""
        return {
            "alias": self.alias,
            "authCode": "053587",
            "avsResult": self.avs,
            "cardIssuingCountry": self.country,
            "cardSummary": self.last4,
            "cvcResult": self.cvc,
            "expiryDate": "3/2030",
            "fundingSource": self.funding,
            "paymentMethod": self.brand,
            "paymentMethodVariant": self.variant,
            "liabilityShift": str(authenticated).lower(),
            "threeDOffered": str(offered).lower(),
            "threeDAuthenticated": str(authenticated).lower(),
        }


_VISA = Card("TESTVISA")
CARDS = {
    card.name: card
    for card in (
        _VISA,
        Card("TESTMASTERCARD", "mc", "mcdebit", "4444", funding="DEBIT", alias="M469509594859802"),
        replace(_VISA, name="TESTCHALLENGE", three_d_secure="required"),
        replace(_VISA, name="TESTCHALLENGEIFASKED", three_d_secure="optional"),
        replace(_VISA, name="TESTHOLDERNEEDED", three_d_secure="required", alone="38"),
        replace(_VISA, name="TESTAVSFAIL", avs="2 Neither postal code nor address match"),
        replace(_VISA, name="TESTCVCFAIL", cvc="2 Doesn't match"),
        replace(_VISA, name="TESTWRONGAMOUNT", wrong_amount=True),
        replace(_VISA, name="TESTCAPTUREREFUSED", capture="refused"),
        replace(_VISA, name="TESTCAPTUREFAILS", capture="fails"),
        replace(_VISA, name="TESTREFUNDREFUSED", refund="refused"),
        replace(_VISA, name="TESTREFUNDFAILS", refund="fails"),
        replace(_VISA, name="TESTREFUNDREVERSED", refund="reversed"),
        *(replace(_VISA, name=f"TESTREFUSED{code}", refusal=code) for code in REFUSALS),
    )
}


def find_card(token: object) -> Card:
    """Raises ApiError 422 for a token that stands for no card."""
    name = re.sub(r"[^A-Z0-9]", "", str(token))
    if name not in CARDS:
        raise refuse("803", "PaymentDetail not found")
    return CARDS[name]
