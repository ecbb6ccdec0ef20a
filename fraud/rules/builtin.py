"""The built-in rules: each looks at the facts and says hit or miss, with what it saw and its limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fraud.facts import FraudContext, MissingFactError
from fraud.rules.parameters import (
    AmountParameters,
    AnswerParameters,
    CountryParameters,
    ListParameters,
    Parameters,
    ScoreParameters,
    VelocityParameters,
)
from payments.decisions import Stage
from payments.money import Money

BEFORE = frozenset({Stage.BEFORE_AUTHORIZATION})
AFTER = frozenset({Stage.AFTER_AUTHORIZATION})
DIMENSION_WORDS = {
    "card": "card",
    "email": "e-mail",
    "ip": "IP address",
    "device": "device",
    "customer": "customer",
}
SOURCE_WORDS = {"billing": "billing", "shipping": "shipping", "ip": "IP", "card": "card"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule saw, in words, beside its limit."""

    value: str
    threshold: str


class Hit(Finding):
    """The rule fits the order."""


class Miss(Finding):
    """The rule does not fit the order."""


@dataclass(frozen=True, slots=True)
class RuleKind:
    """One built-in rule: how it is called, what it may be told, when it runs and how it decides.

    `evaluate` raises `MissingFactError` when it cannot tell.
    """

    name: str
    label: str
    parameters: type[Parameters]
    stages: Callable[[Any], frozenset[Stage]]
    evaluate: Callable[[FraudContext, Any], Finding]


def evaluate_list(context: FraudContext, parameters: ListParameters) -> Finding:
    threshold = f"on the {parameters.list} list"
    found = [match for match in context.list_matches if match.list == parameters.list]
    if not found:
        return Miss("no entry", threshold)
    return Hit(
        ", ".join(f"{DIMENSION_WORDS.get(match.kind, match.kind)} {match.value}" for match in found),
        threshold,
    )


def evaluate_avs(context: FraudContext, parameters: AnswerParameters) -> Finding:
    return _evaluate_answer("AVS", context.avs, parameters)


def evaluate_cvv(context: FraudContext, parameters: AnswerParameters) -> Finding:
    return _evaluate_answer("CVV", context.cvv, parameters)


def _evaluate_answer(name: str, answer: str, parameters: AnswerParameters) -> Finding:
    if not answer:
        raise MissingFactError(f"the issuer gave no {name} answer")
    finding = Hit if answer in parameters.hit_on else Miss
    return finding(f"{name} {answer}", "hit on " + " or ".join(parameters.hit_on))


def evaluate_velocity(context: FraudContext, parameters: VelocityParameters) -> Finding:
    seen = context.count(parameters.dimension, parameters.window_seconds)
    what = f"{DIMENSION_WORDS[parameters.dimension]} used on {seen} order{'' if seen == 1 else 's'}"
    finding = Hit if seen > parameters.limit else Miss
    return finding(what, f"limit {parameters.limit} in {describe_window(parameters.window_seconds)}")


def evaluate_country(context: FraudContext, parameters: CountryParameters) -> Finding:
    seen = {source: context.country(source) for source in parameters.between}
    words = ", ".join(f"{SOURCE_WORDS[source]} {country}" for source, country in seen.items())
    finding = Hit if len(set(seen.values())) > 1 else Miss
    return finding(words, "must be the same")


def evaluate_amount(context: FraudContext, parameters: AmountParameters) -> Finding:
    limit = parameters.limit(context.currency)
    amount = Money(context.amount, context.currency)
    return (Hit if amount > limit else Miss)(str(amount), f"limit {limit}")


def evaluate_score(context: FraudContext, parameters: ScoreParameters) -> Finding:
    finding = Hit if context.score >= parameters.threshold else Miss
    return finding(f"{context.score} points", f"limit {parameters.threshold} points")


def describe_window(seconds: int) -> str:
    """`1 h`, `10 min`, `90 s`."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def country_stages(parameters: CountryParameters) -> frozenset[Stage]:
    """The country of the card is known only from the gateway's answer."""
    return AFTER if "card" in parameters.between else BEFORE


KINDS: dict[str, RuleKind] = {
    kind.name: kind
    for kind in (
        RuleKind("blocklist", "List", ListParameters, lambda _: BEFORE | AFTER, evaluate_list),
        RuleKind("avs", "Address check (AVS)", AnswerParameters, lambda _: AFTER, evaluate_avs),
        RuleKind("cvv", "Card code check (CVV)", AnswerParameters, lambda _: AFTER, evaluate_cvv),
        RuleKind("velocity", "Velocity", VelocityParameters, lambda _: BEFORE, evaluate_velocity),
        RuleKind("country_mismatch", "Country mismatch", CountryParameters, country_stages, evaluate_country),
        RuleKind("high_amount", "High amount", AmountParameters, lambda _: BEFORE, evaluate_amount),
        RuleKind("score", "Total score", ScoreParameters, lambda _: BEFORE | AFTER, evaluate_score),
    )
}
