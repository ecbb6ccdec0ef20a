"""Everything that is known of an order when it is screened, frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from payments.decisions import Stage


class MissingFactError(LookupError):
    """A rule needs something that is not known; the rule's policy decides what that means."""


@dataclass(frozen=True, slots=True)
class ListMatch:
    """One entry of a list that fits this order; `value` is masked."""

    list: str  # block | allow | review
    kind: str  # email | ip | card | device | customer | country
    value: str


@dataclass(frozen=True, slots=True)
class FraudContext:
    """The facts of one screening. Amounts are minor units; personal values are masked; "" means not known."""

    stage: Stage
    amount: int
    currency: str
    order_id: str = ""
    customer_id: str = ""
    customer_email: str = ""
    customer_age_days: int | None = None
    ip: str = ""
    device: str = ""
    billing_country: str = ""
    shipping_country: str = ""
    ip_country: str = ""
    card_country: str = ""
    card_brand: str = ""
    card_last4: str = ""
    avs: str = ""  # pass | fail | unavailable | unchecked
    cvv: str = ""  # pass | fail | unavailable | unchecked
    three_d_secure: str = ""
    risk_score: int | None = None
    list_matches: Sequence[ListMatch] = ()
    velocity: Mapping[str, int] = field(default_factory=dict)  # "card:3600" -> orders, this one included
    velocity_source: str = ""  # redis | postgresql
    score: int = 0  # points so far, of the first screening too

    @property
    def is_allowed(self) -> bool:
        """Somebody put the customer on the allow list: only blocks still count."""
        return any(match.list == "allow" for match in self.list_matches)

    def country(self, source: str) -> str:
        """The country of billing, shipping, ip or card. Raises `MissingFactError` if it is not known."""
        found = getattr(self, f"{source}_country")
        if not found:
            raise MissingFactError(f"the {source} country is not known")
        return str(found)

    def count(self, dimension: str, seconds: int) -> int:
        """Orders in the window, this one included. Raises `MissingFactError` if none were counted."""
        try:
            return self.velocity[velocity_key(dimension, seconds)]
        except KeyError:
            raise MissingFactError(f"the order has no {dimension} to count by") from None

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe, without what is not known."""
        return {name: value for name, value in asdict(self).items() if value not in ("", None, (), [], {})}


def velocity_key(dimension: str, seconds: int) -> str:
    return f"{dimension}:{seconds}"
