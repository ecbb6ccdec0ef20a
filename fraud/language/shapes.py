"""The functions that compiled rules are made of, one for each shape that occurs often.

An operator is written out in each because a call of `operator.ge` costs as much as the rest of the comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fraud.facts import FraudContext
from fraud.language.values import lower

Condition = Callable[[FraudContext], bool | None]
Value = Callable[[FraudContext], Any]
DAY = 86_400  # seconds


def always(value: Any) -> Callable[[FraudContext], Any]:
    return lambda context: value


# And, or, not: Kleene's three values.


def opposite(condition: Condition) -> Condition:
    def run(context: FraudContext) -> bool | None:
        answer = condition(context)
        return None if answer is None else not answer

    return run


def both(first: Condition, second: Condition) -> Condition:
    def run(context: FraudContext) -> bool | None:
        one = first(context)
        if one is False:
            return False
        other = second(context)
        return other if one or other is False else None

    return run


def either(first: Condition, second: Condition) -> Condition:
    def run(context: FraudContext) -> bool | None:
        one = first(context)
        if one:
            return True
        other = second(context)
        return other if one is False or other else None

    return run


def all_three(first: Condition, second: Condition, third: Condition) -> Condition:
    def run(context: FraudContext) -> bool | None:
        one = first(context)
        if one is False:
            return False
        other = second(context)
        if other is False:
            return False
        last = third(context)
        return last if (one and other) or last is False else None

    return run


def all_of(conditions: Sequence[Condition]) -> Condition:
    def run(context: FraudContext) -> bool | None:
        answer: bool | None = True
        for condition in conditions:
            one = condition(context)
            if one is False:
                return False
            if one is None:
                answer = None
        return answer

    return run


def any_of(conditions: Sequence[Condition]) -> Condition:
    def run(context: FraudContext) -> bool | None:
        answer: bool | None = False
        for condition in conditions:
            one = condition(context)
            if one:
                return True
            if one is None:
                answer = None
        return answer

    return run


def either_text_equals(pair: Value, one_limit: str, other_limit: str) -> Condition:
    """`avs == "fail" or cvv == "fail"`: `pair` gives both texts at once."""

    def run(context: FraudContext) -> bool | None:
        one, other = pair(context)
        if one == one_limit or other == other_limit:
            return True
        return False if one and other else None

    return run


# Values.


def text(get: Value) -> Value:
    return lambda context: get(context) or None


def times(get: Value, scale: int) -> Value:
    return lambda context: None if (found := get(context)) is None else found * scale


def not_nan(get: Value) -> Value:
    return lambda context: None if (found := get(context)) is None or found != found else found


def millionths(get: Value, million: int, most: int) -> Value:
    def run(context: FraudContext) -> int | None:
        found: float | None = get(context)
        if found is None or not abs(found) <= most:  # NaN is not at most anything
            return None
        return round(found * float(million))

    return run


def figure(name: str, scale: int) -> Value:
    return lambda context: None if (found := context.velocity.get(name)) is None else found * scale


def amount_of(by_currency: Mapping[str, int]) -> Value:
    return lambda context: by_currency.get(context.currency)


def days_since(get: Value, scale: int) -> Value:
    def run(context: FraudContext) -> int | None:
        time: int | None = get(context)
        if time is None or not context.assessed_at:
            return None
        return (context.assessed_at - time) // DAY * scale

    return run


def lowered(value: Value) -> Value:
    return lambda context: None if (found := value(context)) is None else lower(found)


def plus(left: Value, right: Value) -> Value:
    def run(context: FraudContext) -> Any:
        one, other = left(context), right(context)
        return None if one is None or other is None else one + other

    return run


def minus(left: Value, right: Value) -> Value:
    def run(context: FraudContext) -> Any:
        one, other = left(context), right(context)
        return None if one is None or other is None else one - other

    return run


# Questions about one value.


def known(value: Value) -> Condition:
    return lambda context: value(context) is not None


def unknown(value: Value) -> Condition:
    return lambda context: value(context) is None


def listed(name: str) -> Condition:
    return lambda context: name in context.listed


def member(value: Value, choices: frozenset[Any]) -> Condition:
    return lambda context: None if (found := value(context)) is None else found in choices


def not_member(value: Value, choices: frozenset[Any]) -> Condition:
    return lambda context: None if (found := value(context)) is None else found not in choices


def text_member(get: Value, choices: frozenset[str]) -> Condition:
    return lambda context: found in choices if (found := get(context)) else None


def text_not_member(get: Value, choices: frozenset[str]) -> Condition:
    return lambda context: found not in choices if (found := get(context)) else None


def between(value: Value, low: Value, high: Value) -> Condition:
    """`low <= value and value <= high`: false as soon as one side is, unknown if one cannot be told."""

    def run(context: FraudContext) -> bool | None:
        found, least, most = value(context), low(context), high(context)
        if found is None:
            return None
        if (least is not None and found < least) or (most is not None and found > most):
            return False
        return None if least is None or most is None else True

    return run


TEXT_TESTS: dict[str, Callable[[Value, str], Condition]] = {
    "starts_with": lambda value, needle: (
        lambda context: None if (found := value(context)) is None else lower(found).startswith(needle)
    ),
    "ends_with": lambda value, needle: (
        lambda context: None if (found := value(context)) is None else lower(found).endswith(needle)
    ),
    "contains": lambda value, needle: (
        lambda context: None if (found := value(context)) is None else needle in lower(found)
    ),
}

# Comparisons, by operator.

VALUE_AGAINST_CONSTANT: dict[str, Callable[[Value, Any], Condition]] = {
    "==": lambda value, limit: lambda context: None if (found := value(context)) is None else found == limit,
    "!=": lambda value, limit: lambda context: None if (found := value(context)) is None else found != limit,
    "<": lambda value, limit: lambda context: None if (found := value(context)) is None else found < limit,
    "<=": lambda value, limit: lambda context: None if (found := value(context)) is None else found <= limit,
    ">": lambda value, limit: lambda context: None if (found := value(context)) is None else found > limit,
    ">=": lambda value, limit: lambda context: None if (found := value(context)) is None else found >= limit,
}

# "" is unknown.
TEXT_AGAINST_CONSTANT: dict[str, Callable[[Value, str], Condition]] = {
    "==": lambda get, literal: lambda context: found == literal if (found := get(context)) else None,
    "!=": lambda get, literal: lambda context: found != literal if (found := get(context)) else None,
}

FIGURE_AGAINST_CONSTANT: dict[str, Callable[[str, Any], Condition]] = {
    "==": lambda name, limit: (
        lambda context: None if (found := context.velocity.get(name)) is None else found == limit
    ),
    "!=": lambda name, limit: (
        lambda context: None if (found := context.velocity.get(name)) is None else found != limit
    ),
    "<": lambda name, limit: (
        lambda context: None if (found := context.velocity.get(name)) is None else found < limit
    ),
    "<=": lambda name, limit: (
        lambda context: None if (found := context.velocity.get(name)) is None else found <= limit
    ),
    ">": lambda name, limit: (
        lambda context: None if (found := context.velocity.get(name)) is None else found > limit
    ),
    ">=": lambda name, limit: (
        lambda context: None if (found := context.velocity.get(name)) is None else found >= limit
    ),
}

# In minor units of the order's currency; unknown where the rule gives no limit in it.
AMOUNT_AGAINST_LIMITS: dict[str, Callable[[Mapping[str, int]], Condition]] = {
    "==": lambda limits: (
        lambda context: None if (limit := limits.get(context.currency)) is None else context.amount == limit
    ),
    "!=": lambda limits: (
        lambda context: None if (limit := limits.get(context.currency)) is None else context.amount != limit
    ),
    "<": lambda limits: (
        lambda context: None if (limit := limits.get(context.currency)) is None else context.amount < limit
    ),
    "<=": lambda limits: (
        lambda context: None if (limit := limits.get(context.currency)) is None else context.amount <= limit
    ),
    ">": lambda limits: (
        lambda context: None if (limit := limits.get(context.currency)) is None else context.amount > limit
    ),
    ">=": lambda limits: (
        lambda context: None if (limit := limits.get(context.currency)) is None else context.amount >= limit
    ),
}


def _texts_equal(pair: Value) -> Condition:
    def run(context: FraudContext) -> bool | None:
        one, other = pair(context)
        return one == other if one and other else None

    return run


def _texts_differ(pair: Value) -> Condition:
    def run(context: FraudContext) -> bool | None:
        one, other = pair(context)
        return one != other if one and other else None

    return run


TWO_TEXTS: dict[str, Callable[[Value], Condition]] = {"==": _texts_equal, "!=": _texts_differ}


def two_values(compare: Callable[[Any, Any], bool], left: Value, right: Value) -> Condition:
    def run(context: FraudContext) -> bool | None:
        one, other = left(context), right(context)
        return None if one is None or other is None else compare(one, other)

    return run
