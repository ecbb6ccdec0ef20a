"""Everything that is known of an order when it is screened, frozen, and the names under which rules ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from payments.decisions import Stage

DIMENSIONS = ("card", "email", "ip", "network", "device", "customer", "address")
EVENT_KINDS = ("attempt", "decline", "approved", "chargeback")


class FactType(StrEnum):
    """What a fact is, in the rule language and in the history's columns."""

    NUMBER = "number"
    MONEY = "money"  # minor units of the order's currency
    TEXT = "text"
    BOOLEAN = "boolean"
    TIME = "time"  # whole seconds since 1970, UTC


class Measure(StrEnum):
    """What is made of the counted events of a window."""

    COUNT = "count"  # orders
    SUM = "sum"  # their amounts, in minor units of the order's currency
    DISTINCT = "distinct"  # different values of another dimension


@dataclass(frozen=True, slots=True, order=True)
class VelocityKey:
    """One figure: what is counted by which dimension, over how many seconds. Its `name` is its key in a context."""

    dimension: str
    seconds: int
    kind: str = "attempt"
    measure: Measure = Measure.COUNT
    of: str = ""  # the other dimension, of a distinct count

    @property
    def name(self) -> str:
        """`card:3600`, `card:3600:decline`, `card:86400:attempt:sum`, `ip:3600:attempt:distinct:card`."""
        parts = [self.dimension, str(self.seconds)]
        if (self.kind, self.measure) != ("attempt", Measure.COUNT):
            parts.append(self.kind)
        if self.measure is not Measure.COUNT:
            parts.append(self.measure.value)
        if self.of:
            parts.append(self.of)
        return ":".join(parts)

    @classmethod
    def parse(cls, name: str) -> VelocityKey:
        """The key of this name. Raises `ValueError`."""
        dimension, seconds, kind, measure, of = [*name.split(":"), "", "", ""][:5]
        return cls(dimension, int(seconds), kind or "attempt", Measure(measure or "count"), of)


@dataclass(frozen=True, slots=True)
class ListMatch:
    """One entry of a list that fits this order; `value` is masked."""

    list: str  # block | allow | review
    kind: str  # email | ip | card | device | customer | country ...
    value: str
    entry: int = field(default=0, compare=False)  # the row of the list, whose hits are counted


@dataclass(frozen=True)
class FraudContext:
    """The facts of one screening. Amounts are minor units; personal values are masked; "" or None: not known."""

    stage: Stage
    amount: int
    currency: str
    order_id: str = ""
    assessed_at: int = 0  # seconds since 1970, by which every age is reckoned
    is_guest: bool | None = None
    is_saved_card: bool | None = None
    is_merchant_initiated: bool | None = None
    line_count: int | None = None
    item_count: int | None = None
    customer_id: str = ""
    customer_email: str = ""
    email_domain: str = ""
    customer_since: int | None = None
    customer_age_days: int | None = None
    ip: str = ""
    device: str = ""
    billing_country: str = ""
    shipping_country: str = ""
    ip_country: str = ""
    card_country: str = ""
    is_same_postcode: bool | None = None
    card_brand: str = ""
    card_funding: str = ""
    card_last4: str = ""
    avs: str = ""  # pass | fail | unavailable | unchecked
    cvv: str = ""  # pass | fail | unavailable | unchecked
    three_d_secure: str = ""
    risk_score: int | None = None  # the gateway's
    outside_score: float | None = None  # somebody else's, see fraud.scores
    model_score: float | None = None  # our own model's
    orders_before: int | None = None  # of this customer, or of this e-mail address
    paid_before: int | None = None
    declined_before: int | None = None
    refunded_before: int | None = None
    chargebacks_before: int | None = None
    first_order_at: int | None = None
    linked_orders: int | None = None  # others that share a card, e-mail, device or address with this one
    linked_fraud: int | None = None  # those of them that were fraud
    list_matches: Sequence[ListMatch] = ()
    velocity: Mapping[str, int] = field(
        default_factory=dict
    )  # VelocityKey.name -> figure, this order included
    velocity_source: str = ""  # redis | postgresql
    scores: Mapping[str, Any] = field(default_factory=dict)  # who scored, how long it took, what went wrong
    score: int = 0  # points so far, of the first screening too

    @property
    def is_allowed(self) -> bool:
        """Somebody put the customer on the allow list: only blocks still count."""
        return "allow" in self.listed

    @cached_property
    def listed(self) -> frozenset[str]:
        """What `in_list` asks: `block` and `block.email` for an e-mail address on the block list."""
        matches = self.list_matches
        return frozenset([m.list for m in matches] + [f"{m.list}.{m.kind}" for m in matches])

    def with_score(self, score: int) -> FraudContext:
        """The same facts with these points: a plain copy, cheaper than `dataclasses.replace`."""
        copied = object.__new__(FraudContext)
        copied.__dict__.update(self.__dict__, score=score)
        return copied

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe, without what is not known."""
        return {name: value for name, value in asdict(self).items() if value not in ("", None, (), [], {})}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FraudContext:
        """The context that `to_dict` gave; names that are no longer facts are left out."""
        known = {name: value for name, value in data.items() if name in cls.__dataclass_fields__}
        matches = tuple(ListMatch(**match) for match in data.get("list_matches", ()))
        return cls(**{**known, "stage": Stage(data["stage"]), "list_matches": matches})


@dataclass(frozen=True, slots=True)
class Fact:
    """One name of the rule language: what it is, when it is known, and how it is explained to who writes rules."""

    name: str
    type: FactType
    help: str
    stage: Stage = Stage.BEFORE_AUTHORIZATION
    values: tuple[str, ...] = ()  # all that a text can be, where that is known


_AFTER = Stage.AFTER_AUTHORIZATION
_ANSWERS = ("pass", "fail", "unavailable", "unchecked")
_N, _T, _B = FactType.NUMBER, FactType.TEXT, FactType.BOOLEAN

FACTS: dict[str, Fact] = {
    fact.name: fact
    for fact in (
        Fact("amount", FactType.MONEY, "What the order costs, with its currency."),
        Fact("currency", _T, "The order's currency, such as EUR."),
        Fact("line_count", _N, "How many different articles."),
        Fact("item_count", _N, "How many pieces."),
        Fact("is_guest", _B, "Bought without an account."),
        Fact("is_saved_card", _B, "Paid with a card that the customer saved before."),
        Fact("is_merchant_initiated", _B, "Charged by the shop while the customer was away."),
        Fact("email_domain", _T, "What stands after the @ of the e-mail address."),
        Fact("customer_since", FactType.TIME, "When the account was made."),
        Fact("customer_age_days", _N, "How old the account is, in whole days."),
        Fact("billing_country", _T, "Two letters, such as DE."),
        Fact("shipping_country", _T, "Two letters, such as DE."),
        Fact("ip_country", _T, "Where the IP address is, if the shop sent it."),
        Fact("is_same_postcode", _B, "Billing and shipping have the same postal code."),
        Fact("orders_before", _N, "Earlier orders of this customer, or of the same e-mail address."),
        Fact("paid_before", _N, "Those of them that were paid."),
        Fact("declined_before", _N, "Those of them that a bank declined."),
        Fact("refunded_before", _N, "Those of them with money given back."),
        Fact("chargebacks_before", _N, "Those of them that were disputed."),
        Fact("first_order_at", FactType.TIME, "When the first of them came."),
        Fact("linked_orders", _N, "Other orders with the same card, e-mail, device, IP or address."),
        Fact("linked_fraud", _N, "Those of them that were fraud."),
        Fact("outside_score", _N, "The score of the outside provider."),
        Fact("model_score", _N, "The score of the shop's own model."),
        Fact("score", _N, "The points of all rules that do not ask for it."),
        Fact("card_brand", _T, "Such as visa.", _AFTER),
        Fact(
            "card_funding", _T, "Credit, debit or prepaid.", _AFTER, ("credit", "debit", "prepaid", "unknown")
        ),
        Fact("card_country", _T, "Where the card was issued.", _AFTER),
        Fact("avs", _T, "The bank's answer to the address.", _AFTER, _ANSWERS),
        Fact("cvv", _T, "The bank's answer to the card code.", _AFTER, _ANSWERS),
        Fact("three_d_secure", _T, "How 3-D Secure ended.", _AFTER, ("authenticated", "attempted", "failed")),
        Fact("risk_score", _N, "The gateway's own score.", _AFTER),
    )
}
