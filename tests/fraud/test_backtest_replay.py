"""A back-test's frame decides every order as the live functions do."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from fraud.backtest.replay import frame_rules, make_replay, needed_columns, replay_frame
from fraud.decision import ErrorPolicy, Mode, Outcome
from fraud.facts import FraudContext, ListMatch
from fraud.models import Rule
from payments.decisions import Stage
from tests.factories.fraud import RuleFactory

EXPRESSIONS = [
    'in_list("block")',
    'in_list("review", "email")',
    'avs == "fail" or cvv == "fail"',
    'velocity("card", "1h") > {limit}',
    "card_country != billing_country",
    'amount > money("1000 EUR", "150000 JPY")',
    "customer_age_days < 2 and not is_guest",
    "score >= {limit}",
    "score > 40 and billing_country != shipping_country",
]


def random_rules(chance: random.Random) -> list[Rule]:
    rules = [
        RuleFactory.build(
            ruleset=None,
            id=number,
            expression=expression,
            parameters={"limit": chance.choice([2, 4, 30])} if "{limit}" in expression else {},
            outcome=chance.choice(list(Outcome)).value
            if "avs" not in expression and "card_c" not in expression
            else "review",
            mode=chance.choice(list(Mode)).value,
            share=chance.choice([0, 30, 100]),
            on_error=chance.choice(list(ErrorPolicy)).value,
            points=chance.choice([0, 10, 30]),
        )
        for number, expression in enumerate(EXPRESSIONS)
    ]
    code = RuleFactory.build(ruleset=None, code="high_amount", expression="", parameters={"default": "500"})
    return [*rules, code]


def random_context(chance: random.Random, number: int) -> FraudContext:
    lists = [
        ListMatch("block", "ip", "x"),
        ListMatch("allow", "email", "x"),
        ListMatch("review", "email", "x"),
    ]
    early = FraudContext(
        stage=Stage.BEFORE_AUTHORIZATION,
        order_id=f"ord_{number}",
        amount=chance.choice([100, 60_000, 100_001, 20_000_000]),
        currency=chance.choice(["EUR", "USD", "JPY", "KWD"]),
        is_guest=chance.choice([True, False, None]),
        customer_age_days=chance.choice([0, 5, None]),
        billing_country=chance.choice(["DE", "FR", ""]),
        shipping_country=chance.choice(["DE", "FR", ""]),
        velocity=chance.choice([{}, {"card:3600": 1}, {"card:3600": 5}]),
        list_matches=tuple(match for match in lists if chance.random() < 0.15),
    )
    if chance.random() < 0.2:
        return early
    answers = {name: chance.choice(["pass", "fail", ""]) for name in ("avs", "cvv")}
    return replace(
        early, stage=Stage.AFTER_AUTHORIZATION, card_country=chance.choice(["DE", "US", ""]), **answers
    )


def make_frame(rules: Sequence[Rule], contexts: Sequence[FraudContext]) -> pl.DataFrame:
    needed = needed_columns(frame_rules(rules))
    rows = [
        {name: read(context, name) for name in (*needed, "order_id", "stage", "amount", "currency")}
        for context in contexts
    ]
    return pl.DataFrame(
        rows,
        schema={name: column.dtype for name, column in needed.items()}
        | {"order_id": pl.String(), "stage": pl.String(), "amount": pl.Int64(), "currency": pl.String()},
    )


def read(context: FraudContext, name: str) -> Any:
    if name.startswith("listed."):
        return name.removeprefix("listed.") in context.listed
    if ":" in name:
        return context.velocity.get(name)
    value = getattr(context, name)
    return None if value == "" else str(value) if name == "stage" else value


def test_frames_and_live_functions_decide_alike() -> None:
    chance = random.Random(7)
    contexts = [random_context(chance, number) for number in range(300)]
    for _ in range(20):
        rules = random_rules(chance)
        judged = replay_frame(frame_rules(rules), make_frame(rules, contexts))
        one_by_one = list(map(make_replay(rules), contexts))
        assert judged["decision"].to_list() == [result.decision.value for result in one_by_one]
        assert judged["score"].to_list() == [result.score for result in one_by_one]
