"""Rules over the last orders: what hits, what a whole set would change, and that it ends in time."""

from __future__ import annotations

from typing import Any

import pytest

from fraud.decision import RulePlan
from fraud.facts import FraudContext
from fraud.models import Assessment
from fraud.plans import compile_row
from fraud.rehearsal import load_screened, rehearse_plan, rehearse_rule, replay
from payments.decisions import Decision, Stage
from payments.models import Order
from tests.factories.fraud import AssessmentFactory, RuleFactory

pytestmark = pytest.mark.django_db
LARGE = 'amount > money("10 EUR")'


def screen(order: Order | None = None, **facts: Any) -> Order:
    """One screening of a new order, or of this one."""
    known = {"stage": Stage.BEFORE_AUTHORIZATION, "amount": 5000, "currency": "EUR", **facts}
    context = FraudContext(**known)
    again = {"payment": order.payment, "order": order} if order else {}
    made: Assessment = AssessmentFactory(context=context.to_dict(), stage=context.stage, **again)
    return made.order


def plan(*rules: tuple[str, str]) -> RulePlan:
    """Of expressions with their outcomes."""
    rows = [
        RuleFactory.build(ruleset=None, expression=text, parameters={}, outcome=outcome, points=30)
        for text, outcome in rules
    ]
    return RulePlan([compile_row(row) for row in rows])


def test_an_order_is_looked_at_once_by_its_newest_facts() -> None:
    order = screen()
    screen(order, stage=Stage.AFTER_AUTHORIZATION, avs="fail")
    screen(order, stage=Stage.AFTER_AUTHORIZATION, avs="pass")
    [screened] = load_screened()
    assert (screened.newest.avs, screened.before and screened.before.amount) == ("pass", 5000)


def test_facts_that_are_gone_are_left_out() -> None:
    AssessmentFactory(context={})
    AssessmentFactory(context={"error": ["the screening failed"]})
    AssessmentFactory(
        context={"stage": "before", "amount": 1, "currency": "EUR", "list_matches": [{"odd": 1}]}
    )
    assert list(load_screened()) == []


def test_only_the_last_orders_are_looked_at_the_newest_first() -> None:
    _, second, third = screen(), screen(), screen()
    found = rehearse_rule(lambda context: True, limit=2)
    assert (found.looked_at, [order.pk for order in found.examples]) == (2, [third.pk, second.pk])


def test_a_rule_that_fails_cannot_tell() -> None:
    screen()

    def fail(context: FraudContext) -> bool:
        raise ZeroDivisionError

    assert rehearse_rule(fail).unknown == 1


def test_a_rehearsal_ends_when_its_time_is_over() -> None:
    screen()
    found = rehearse_rule(lambda context: True, seconds=0)
    assert (found.is_cut, found.looked_at, found.hits) == (True, 0, 0)
    assert rehearse_plan(plan(), plan(), seconds=0).is_cut


@pytest.mark.parametrize(
    ("rules", "decision"),
    [
        ([], Decision.APPROVE),
        ([('amount > money("10 EUR")', "challenge")], Decision.CHALLENGE),
        ([('avs == "fail"', "review")], Decision.REVIEW),
        (
            [('amount > money("10 EUR")', "score"), ('avs == "fail"', "score"), ("score >= 60", "block")],
            Decision.BLOCK,
        ),
        ([('amount > money("10 EUR")', "block"), ('avs == "fail"', "review")], Decision.BLOCK),
    ],
)
def test_both_screenings_are_replayed(rules: list[tuple[str, str]], decision: Decision) -> None:
    order = screen()
    screen(order, stage=Stage.AFTER_AUTHORIZATION, avs="fail")
    [screened] = load_screened()
    assert replay(plan(*rules), screened) is decision


def test_two_plans_are_told_apart_with_their_orders() -> None:
    cheap, dear = screen(amount=100), screen(amount=90_000)
    found = rehearse_plan(plan(), plan(('amount > money("500 EUR")', "review")))
    assert (found.looked_at, found.newly(Decision.REVIEW), found.newly(Decision.BLOCK)) == (2, 1, 0)
    assert [(turn.order.pk, turn.before, turn.after) for turn in found.examples] == [
        (dear.pk, Decision.APPROVE, Decision.REVIEW)
    ]
    assert cheap.pk != dear.pk
