"""What a model is told of an order: numbers of the facts, made by one function for training and for live orders."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from payments.money import exponent

Context = Mapping[str, Any]  # as FraudContext.to_dict gives it: what is not known is not there
Feature = Callable[[Context], float | None]
MISSING = "missing:"  # before a feature's name: 1 when it is not known, else 0
SECONDS_A_DAY = 86_400


class UnknownFeatureError(ValueError):
    """A model asks for a feature that there is not."""


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """What one model is told, in its order, and what stands for what is not known: the mean of the training."""

    names: tuple[str, ...]
    means: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.names:
            if name.removeprefix(MISSING) not in FEATURES:
                raise UnknownFeatureError(f"there is no feature {name!r}; there are {', '.join(FEATURES)}")


def features(context: Context, spec: FeatureSpec) -> list[float]:
    """The numbers of one order, finite, in the order of `spec.names`. Pure: the same context, the same numbers."""
    return [_read(context, name, spec.means) for name in spec.names]


def raw_features(context: Context) -> dict[str, float | None]:
    """Every feature there is, by name; None: not known. For training."""
    return {name: feature(context) for name, feature in FEATURES.items()}


def find_means(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """The mean of each feature over the rows that know it; 0 where none does."""
    known = {name: [row[name] for row in rows if row[name] is not None] for name in FEATURES}
    return {name: math.fsum(filter(None, values)) / max(len(values), 1) for name, values in known.items()}


def _read(context: Context, name: str, means: Mapping[str, float]) -> float:
    value = FEATURES[name.removeprefix(MISSING)](context)
    if name.startswith(MISSING):
        return float(value is None)
    return means.get(name, 0.0) if value is None else value


def _number(name: str, context: Context) -> float | None:
    value = context.get(name)
    return None if value is None else float(value)


def _log(name: str, context: Context) -> float | None:
    """Of counts and ages: the step from 1 to 2 is worth more than that from 100 to 101."""
    value = context.get(name)
    return None if value is None else math.log1p(max(float(value), 0.0))


def _amount(context: Context) -> float:
    """The logarithm of major units, whatever the currency."""
    return math.log1p(context["amount"] / 10 ** exponent(context["currency"]))


def _hour(context: Context) -> float | None:
    at = context.get("assessed_at")
    return at % SECONDS_A_DAY / 3600 if at else None


def _differ(one: str, other: str, context: Context) -> float | None:
    first, second = context.get(f"{one}_country"), context.get(f"{other}_country")
    return float(first != second) if first and second else None


def _velocity(key: str, context: Context) -> float | None:
    value = context.get("velocity", {}).get(key)
    return None if value is None else math.log1p(value)


def _listed(name: str, context: Context) -> float:
    return float(any(match["list"] == name for match in context.get("list_matches", ())))


FEATURES: dict[str, Feature] = {
    "amount": _amount,
    "hour": _hour,
    **{
        name: partial(_number, name)
        for name in (
            *("is_guest", "is_saved_card", "is_merchant_initiated", "is_same_postcode"),
            "outside_score",
        )
    },
    **{
        name: partial(_log, name)
        for name in (
            *("line_count", "item_count", "customer_age_days", "orders_before", "paid_before"),
            *("declined_before", "refunded_before", "chargebacks_before", "linked_orders", "linked_fraud"),
        )
    },
    "billing_is_not_shipping": partial(_differ, "billing", "shipping"),
    "billing_is_not_ip": partial(_differ, "billing", "ip"),
    **{
        f"velocity:{dimension}:{seconds}": partial(_velocity, f"{dimension}:{seconds}")
        for dimension in ("card", "email", "ip", "device", "customer")
        for seconds in (3600, 86_400)
    },
    "on_review_list": partial(_listed, "review"),
    "on_allow_list": partial(_listed, "allow"),
}
