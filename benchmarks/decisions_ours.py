"""Our side of the decision benchmark: one JSON line of decisions per second."""

from __future__ import annotations

import json
import time
from dataclasses import replace

from fraud.decision import Outcome, Rule, RulePlan, Seen, decide
from fraud.facts import FraudContext
from fraud.language import parse
from fraud.language.closures import compile_expression
from payments.decisions import Decision, Stage

SECONDS = 1.0
RULES = (
    ('in_list("block")', Outcome.BLOCK),
    ('avs == "fail" or cvv == "fail"', Outcome.BLOCK),
    ('velocity("customer", "1h") >= 5', Outcome.BLOCK),
    ("card_country != billing_country", Outcome.CHALLENGE),
    ('amount >= money("1000 USD")', Outcome.CHALLENGE),
)
GOOD = FraudContext(
    stage=Stage.AFTER_AUTHORIZATION,
    amount=4200,
    currency="USD",
    card_country="US",
    billing_country="US",
    avs="pass",
    cvv="pass",
    velocity={"customer:3600": 3},
)
BAD = replace(GOOD, amount=200_000, card_country="FR")


def make_plan() -> RulePlan:
    return RulePlan(
        [
            Rule(
                key=text,
                name=text,
                test=compile_expression(parse(text, {})),
                explain=lambda context: Seen("", ""),
                outcome=outcome,
                points=30,
                stages=frozenset(Stage),
            )
            for text, outcome in RULES
        ]
    )


def rate(plan: RulePlan, context: FraudContext, *, is_timed: bool = False) -> float:
    """Decisions per second, over about a second."""
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        for _ in range(1000):
            decide(plan, context, is_timed=is_timed)
        count += 1000
    return count / (time.perf_counter() - began)


def main() -> None:
    plan = make_plan()
    results = [decide(plan, context) for context in (GOOD, BAD)]
    assert [result.decision for result in results] == [Decision.APPROVE, Decision.REVIEW]
    assert all(len(result.verdicts) == len(RULES) for result in results)
    rates = {
        "ours, approve": rate(plan, GOOD),
        "ours, challenge": rate(plan, BAD),
        "ours by the clock, approve": rate(plan, GOOD, is_timed=True),
        "ours by the clock, challenge": rate(plan, BAD, is_timed=True),
    }
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
