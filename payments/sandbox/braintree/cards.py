"""The nonces and what their cards do: like Braintree's own test nonces, and more of them."""

import hashlib
import re
from dataclasses import dataclass, replace

from payments.sandbox.wire import Doc


@dataclass(frozen=True, slots=True)
class Card:
    """A card by its nonce; `decline` and `rejection` refuse the sale, the rest goes wrong later."""

    nonce: str
    card_type: str = "Visa"
    last_4: str = "1881"
    debit: str = "No"
    country: str = "USA"
    street: str = "M"
    postal: str = "M"
    cvv: str = "M"
    three_d_secure: str = ""  # the status that the browser's authentication had
    needs_authentication: bool = False  # the issuer refuses it without
    decline: str = ""
    rejection: str = ""
    wrong_amount: bool = False
    capture: str = ""  # settlement_declined: at once
    settlement: str = "settled"  # or settlement_declined: when the batch runs
    refund: str = ""  # settlement_pending | processor_declined

    def describe(self) -> Doc:
        return {
            "bin": "401288",
            "card_type": self.card_type,
            "last_4": self.last_4,
            "expiration_month": "12",
            "expiration_year": "2034",
            "country_of_issuance": self.country,
            "unique_number_identifier": hashlib.sha256(self.nonce.encode()).hexdigest()[:32],
            "debit": self.debit,
            "prepaid": "No",
            "issuing_bank": "Sandbox Bank",
            "customer_location": "US",
            "token": None,
        }


TEXTS = {
    "2000": "Do Not Honor",
    "2001": "Insufficient Funds",
    "2004": "Expired Card",
    "2010": "Card Issuer Declined CVV",
    "2012": "Processor Declined - Possible Lost Card",
    "2014": "Processor Declined - Fraud Suspected",
    "2038": "Processor Declined",
    "2099": "Cardholder Authentication Required",
    "3000": "Processor Network Unavailable - Try Again",
}
FULL = "authenticate_successful"
CARDS = {
    card.nonce: card
    for card in (
        Card("fake-valid-nonce"),
        Card("fake-valid-mastercard-nonce", card_type="MasterCard", last_4="4444"),
        Card("fake-valid-amex-nonce", card_type="American Express", last_4="0005"),
        Card("fake-valid-debit-nonce", debit="Yes", country="DEU"),
        Card("fake-valid-country-of-issuance-cad-nonce", country="CAN"),
        Card("fake-three-d-secure-visa-full-authentication-nonce", three_d_secure=FULL),
        Card("fake-three-d-secure-visa-attempts-nonce", three_d_secure="authenticate_attempt_successful"),
        Card("fake-three-d-secure-visa-failed-authentication-nonce", three_d_secure="authenticate_failed"),
        Card("fake-requires-authentication-nonce", needs_authentication=True),
        Card("fake-avs-fail-nonce", street="N", postal="N"),
        Card("fake-cvv-fail-nonce", cvv="N"),
        Card("fake-unverified-nonce", street="U", postal="I", cvv="S"),
        Card("fake-wrong-amount-nonce", wrong_amount=True),
        Card("fake-capture-fails-nonce", capture="settlement_declined"),
        Card("fake-settlement-declined-nonce", settlement="settlement_declined"),
        Card("fake-refund-pending-nonce", refund="settlement_pending"),
        Card("fake-refund-declined-nonce", refund="processor_declined"),
    )
}
_DECLINE = re.compile(r"fake-decline-(\d{4})-nonce")
_REJECTION = re.compile(r"fake-gateway-rejected-([a-z_]+)-nonce")


def find_card(nonce: str) -> Card | None:
    """`fake-decline-<code>-nonce` and `fake-gateway-rejected-<reason>-nonce` are refused so."""
    card = CARDS.get(nonce)
    if card is None and (match := _DECLINE.fullmatch(nonce)):
        return replace(CARDS["fake-valid-nonce"], nonce=nonce, decline=match[1], last_4="0002")
    if card is None and (match := _REJECTION.fullmatch(nonce)):
        return replace(CARDS["fake-valid-nonce"], nonce=nonce, rejection=match[1], last_4="0003")
    return card
