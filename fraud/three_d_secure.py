"""Whether the cardholder must authenticate: one table of named rows, each with its reason and legal source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

from payments.decisions import Decision
from payments.money import Money

# fmt: off
SWITCHED_OFF = "switched_off"  # the row of a shop that leaves 3-D Secure to the fraud rules
EEA = frozenset({
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE",
    "IS", "IT", "LI", "LT", "LU", "LV", "MT", "NL", "NO", "PL", "PT", "RO", "SE", "SI", "SK",
})
# fmt: on
# Strictly, a payment between the two is one leg out for both; their issuers ask for authentication all the same.
IN_SCOPE = EEA | {"GB"}


class Authentication(StrEnum):
    """What to do about 3-D Secure."""

    CHALLENGE = "challenge"  # ask for it
    EXEMPT = "exempt"  # do without, and name the exemption to the issuer
    OUT_OF_SCOPE = "out_of_scope"  # the law does not ask for it
    ISSUER = "issuer"  # ask for nothing: the gateway and the issuer decide, often without friction


class Exemption(StrEnum):
    LOW_VALUE = "low_value"
    TRA = "tra"  # transaction risk analysis
    RECURRING = "recurring"


class Series(StrEnum):
    """Whether the payment is one of a series of equal amounts that the customer agreed to."""

    NONE = "none"
    FIRST = "first"
    NEXT = "next"


@dataclass(frozen=True, slots=True)
class Limits:
    """The amounts of one regulator. `bands` are (amount, highest fraud rate in percent), the smallest first."""

    currency: str
    low_value: int  # minor units
    low_value_sum: int  # since the last authentication, this payment included
    low_value_count: int  # the same
    bands: tuple[tuple[int, Decimal], ...]


_RATES = (Decimal("0.13"), Decimal("0.06"), Decimal("0.01"))
EU_LIMITS = Limits("EUR", 30_00, 100_00, 5, tuple(zip((100_00, 250_00, 500_00), _RATES, strict=True)))
UK_LIMITS = Limits("GBP", 25_00, 85_00, 5, tuple(zip((85_00, 220_00, 440_00), _RATES, strict=True)))


@dataclass(frozen=True, slots=True)
class ScaFacts:
    """What is known of one payment. None and "" mean: not known, and then nothing is exempted by it.

    `unauthenticated_*` are this card's earlier payments since it was last authenticated, this one left out.
    """

    amount: Money
    decision: Decision  # of the fraud rules
    score: int = 0  # their points
    issuer_country: str = ""
    is_merchant_initiated: bool = False
    is_mail_or_phone: bool = False
    series: Series = Series.NONE
    is_authenticated_series: bool = False  # its first payment was, with this very amount
    unauthenticated_count: int | None = None
    unauthenticated_amounts: tuple[Money, ...] | None = None
    issuer_insists: bool = False  # it declined an attempt of this order for want of authentication


@dataclass(frozen=True, slots=True)
class ScaPolicy:
    """What the shop chose. `rates` are units of a currency for one of the limits' currency (EUR, or GBP in the UK)."""

    is_enabled: bool = False
    merchant_country: str = ""  # where the acquirer is
    exemptions: frozenset[Exemption] = frozenset()
    fraud_rate: Decimal | None = None  # percent, the acquirer's, over the last 90 days (RTS Art. 19)
    tra_max_score: int = 0  # with more points of the fraud rules there is no low risk
    challenges_the_rest: bool = False  # what is in scope and not exempt is challenged, not left to the issuer
    rates: Mapping[str, Decimal] = field(default_factory=dict)

    @property
    def limits(self) -> Limits:
        return UK_LIMITS if self.merchant_country == "GB" else EU_LIMITS

    def convert(self, amount: Money) -> Decimal | None:
        """The amount in minor units of the limits' currency; None without a rate."""
        limits = self.limits
        if amount.currency == limits.currency:
            return Decimal(amount.minor)
        rate = self.rates.get(amount.currency)
        return amount.amount / rate * 100 if rate else None


@dataclass(frozen=True, slots=True)
class ScaDecision:
    """The row that decided, in words that may be stored and shown."""

    authentication: Authentication
    row: str
    reason: str
    source: str
    exemption: Exemption | None = None

    @property
    def requests_challenge(self) -> bool:
        return self.authentication is Authentication.CHALLENGE

    @property
    def sca_exemption(self) -> str:
        """What payments.screening.Screening takes."""
        return self.exemption.value if self.exemption else ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe, for the context of an assessment."""
        return {
            "authentication": self.authentication.value,
            "row": self.row,
            "reason": self.reason,
            "source": self.source,
            "exemption": self.sca_exemption,
        }


Test = Callable[[ScaFacts, ScaPolicy], bool]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: the first whose test holds decides."""

    name: str
    authentication: Authentication
    reason: str
    source: str
    holds: Test
    exemption: Exemption | None = None

    def decide(self) -> ScaDecision:
        return ScaDecision(self.authentication, self.name, self.reason, self.source, self.exemption)


def decide_authentication(facts: ScaFacts, policy: ScaPolicy) -> ScaDecision:
    """The first row of TABLE that fits: pure, so that every decision can be made again and explained."""
    return next(row.decide() for row in TABLE if row.holds(facts, policy))


# --- the tests of the rows ----------------------------------------------------------------------------------


def is_unsuspected(facts: ScaFacts) -> bool:
    return facts.decision is Decision.APPROVE


def may_exempt(exemption: Exemption, test: Test) -> Test:
    """The shop wants this exemption, the fraud rules see nothing, the amount can be compared, and the test holds."""

    def holds(facts: ScaFacts, policy: ScaPolicy) -> bool:
        is_wanted = exemption in policy.exemptions and is_unsuspected(facts)
        return is_wanted and policy.convert(facts.amount) is not None and test(facts, policy)

    return holds


def is_low_value(facts: ScaFacts, policy: ScaPolicy) -> bool:
    """Art. 16, read strictly: the sum and the number must both hold, and this payment counts."""
    limits, count, earlier = policy.limits, facts.unauthenticated_count, facts.unauthenticated_amounts
    if count is None or earlier is None or count + 1 > limits.low_value_count:
        return False
    amounts = [policy.convert(amount) for amount in (facts.amount, *earlier)]
    known = [amount for amount in amounts if amount is not None]
    is_small = known[0] <= limits.low_value and sum(known) <= limits.low_value_sum
    return len(known) == len(amounts) and is_small


def is_low_risk(facts: ScaFacts, policy: ScaPolicy) -> bool:
    """Art. 18: no sign of risk, and the amount within the band that the fraud rate allows."""
    amount = policy.convert(facts.amount)
    if amount is None or policy.fraud_rate is None or facts.score > policy.tra_max_score:
        return False
    return any(amount <= limit and policy.fraud_rate <= highest for limit, highest in policy.limits.bands)


def is_elsewhere(country: str) -> bool:
    """Surely outside; a country that is not known may be inside."""
    return bool(country) and country not in IN_SCOPE


_C, _E = Authentication.CHALLENGE, Authentication.EXEMPT
_O, _I = Authentication.OUT_OF_SCOPE, Authentication.ISSUER
TABLE: tuple[Row, ...] = (
    Row(
        "fraud_challenge",
        _C,
        "The fraud rules ask for it.",
        "RTS Art. 2 (monitoring)",
        lambda facts, policy: facts.decision is Decision.CHALLENGE,
    ),
    Row(SWITCHED_OFF, _I, "No policy is set.", "none", lambda facts, policy: not policy.is_enabled),
    Row(
        "merchant_initiated",
        _O,
        "The shop charges while the cardholder is away, as was agreed with authentication.",
        "PSD2 Art. 97(1); EBA Q&A 2018_4031",
        lambda facts, policy: facts.is_merchant_initiated,
    ),
    Row(
        "mail_or_phone",
        _O,
        "Ordered by mail or telephone: no electronic payment of the payer.",
        "PSD2 recital 95",
        lambda facts, policy: facts.is_mail_or_phone,
    ),
    Row(
        "merchant_elsewhere",
        _O,
        "One leg out: the shop's acquirer is outside the EEA and the UK.",
        "PSD2 Art. 2(4); EBA-Op-2018-04",
        lambda facts, policy: is_elsewhere(policy.merchant_country),
    ),
    Row(
        "issuer_elsewhere",
        _O,
        "One leg out: the card was issued outside the EEA and the UK.",
        "PSD2 Art. 2(4); EBA-Op-2018-04",
        lambda facts, policy: is_elsewhere(facts.issuer_country),
    ),
    Row(
        "issuer_insists",
        _C,
        "The issuer declined this order once because nobody had authenticated.",
        "PSD2 Art. 97(1)",
        lambda facts, policy: facts.issuer_insists,
    ),
    Row(
        "first_of_series",
        _C,
        "The first payment of a series is authenticated, so that the next need not be.",
        "RTS Art. 14(1)",
        lambda facts, policy: facts.series is Series.FIRST,
    ),
    Row(
        "recurring",
        _E,
        "The next of a series of the same amount, whose first payment was authenticated.",
        "RTS Art. 14(2)",
        may_exempt(
            Exemption.RECURRING,
            lambda facts, policy: facts.series is Series.NEXT and facts.is_authenticated_series,
        ),
        Exemption.RECURRING,
    ),
    Row(
        "low_value",
        _E,
        "At most 30 EUR (25 GBP in the UK), and since the card was last authenticated at most 5 payments"
        " and 100 EUR (85 GBP), this one included.",
        "RTS Art. 16",
        may_exempt(Exemption.LOW_VALUE, is_low_value),
        Exemption.LOW_VALUE,
    ),
    Row(
        "tra",
        _E,
        "Low risk: a fraud rate of at most 0.13 % up to 100 EUR (85 GBP), 0.06 % up to 250 EUR (220 GBP),"
        " 0.01 % up to 500 EUR (440 GBP), and no more points than the policy allows.",
        "RTS Art. 18 and annex",
        may_exempt(Exemption.TRA, is_low_risk),
        Exemption.TRA,
    ),
    Row(
        "rest_challenged",
        _C,
        "In scope and not exempt, and the policy challenges the rest.",
        "PSD2 Art. 97(1)",
        lambda facts, policy: policy.challenges_the_rest,
    ),
    Row(
        "suspected",
        _I,
        "The fraud rules want a person to look: no exemption is asked for.",
        "RTS Art. 2, Art. 18(2)(c)",
        lambda facts, policy: not is_unsuspected(facts),
    ),
    Row(
        "unknown_rate",
        _I,
        "The limits cannot be applied: no reference rate for the currency.",
        "RTS Art. 16, 18 (amounts in euro)",
        lambda facts, policy: policy.convert(facts.amount) is None,
    ),
    Row("in_scope", _I, "In scope and not exempt.", "PSD2 Art. 97(1)", lambda facts, policy: True),
)
