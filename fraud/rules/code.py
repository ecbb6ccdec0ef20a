"""Rules written as code: typed functions, registered by name, with the same verdicts as an expression's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from fraud.decision import Seen
from fraud.facts import FraudContext
from fraud.rules.parameters import AmountParameters, Parameters
from payments.decisions import Stage
from payments.money import Money

P = TypeVar("P", bound=Parameters)
Judge = Callable[[FraudContext, P], tuple[bool | None, Seen]]


@dataclass(frozen=True, slots=True)
class CodeRule:
    """One function that judges an order: whether it hits (None: it cannot tell), and what it saw."""

    name: str
    label: str
    parameters: type[Parameters]
    judge: Callable[[FraudContext, Any], tuple[bool | None, Seen]]
    stages: frozenset[Stage]


CODE_RULES: dict[str, CodeRule] = {}


def register(
    name: str,
    label: str,
    parameters: type[P],
    *,
    stages: frozenset[Stage] = frozenset({Stage.BEFORE_AUTHORIZATION}),
) -> Callable[[Judge[P]], Judge[P]]:
    """Offer the decorated function as a rule to whoever writes rule sets. Raises `ValueError` for a taken name."""

    def keep(judge: Judge[P]) -> Judge[P]:
        if name in CODE_RULES:
            raise ValueError(f"There is a rule named {name!r} already.")
        CODE_RULES[name] = CodeRule(name, label, parameters, judge, stages)
        return judge

    return keep


@register("high_amount", "High amount, in any currency", AmountParameters)
def judge_amount(context: FraudContext, parameters: AmountParameters) -> tuple[bool, Seen]:
    """An expression names every currency; this knows a default for all the others."""
    limit = parameters.limit(context.currency)
    amount = Money(context.amount, context.currency)
    return amount > limit, Seen(str(amount), f"limit {limit}")
