"""Rules written as code: typed functions, registered by name, with the same verdicts as an expression's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import polars as pl

from fraud.decision import Seen
from fraud.facts import FraudContext
from fraud.rules.parameters import AmountParameters, Parameters
from payments.decisions import Stage
from payments.money import Money, payable_currencies

P = TypeVar("P", bound=Parameters)
Judge = Callable[[FraudContext, P], tuple[bool | None, Seen]]


@dataclass(frozen=True, slots=True)
class CodeRule:
    """One function that judges an order: whether it hits (None: it cannot tell), and what it saw.

    `to_polars` says the same of a frame with `amount` and `currency`; without it there is no back-test.
    """

    name: str
    label: str
    parameters: type[Parameters]
    judge: Callable[[FraudContext, Any], tuple[bool | None, Seen]]
    stages: frozenset[Stage]
    to_polars: Callable[[Any], pl.Expr] | None = None


CODE_RULES: dict[str, CodeRule] = {}


def register(
    name: str,
    label: str,
    parameters: type[P],
    *,
    stages: frozenset[Stage] = frozenset({Stage.BEFORE_AUTHORIZATION}),
    to_polars: Callable[[P], pl.Expr] | None = None,
) -> Callable[[Judge[P]], Judge[P]]:
    """Offer the decorated function as a rule to whoever writes rule sets. Raises `ValueError` for a taken name."""

    def keep(judge: Judge[P]) -> Judge[P]:
        if name in CODE_RULES:
            raise ValueError(f"There is a rule named {name!r} already.")
        CODE_RULES[name] = CodeRule(name, label, parameters, judge, stages, to_polars)
        return judge

    return keep


def amount_to_polars(parameters: AmountParameters) -> pl.Expr:
    limits = {currency: parameters.limit(currency).minor for currency in payable_currencies()}
    return pl.col("amount") > pl.col("currency").replace_strict(limits, default=None, return_dtype=pl.Int64)


@register("high_amount", "High amount, in any currency", AmountParameters, to_polars=amount_to_polars)
def judge_amount(context: FraudContext, parameters: AmountParameters) -> tuple[bool, Seen]:
    """An expression names every currency; this knows a default for all the others."""
    limit = parameters.limit(context.currency)
    amount = Money(context.amount, context.currency)
    return amount > limit, Seen(str(amount), f"limit {limit}")
