"""How verdicts become one decision: the order of outcomes, the score, errors, shadow and the allow list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud import Decision, FraudContext, FraudResult
from fraud.decision import ErrorPolicy, Mode, Outcome, Rule, RulePlan, Seen, Status
from fraud.decision import decide as decide_plan
from fraud.facts import ListMatch
from payments.decisions import Stage

BEFORE = FraudContext(
    stage=Stage.BEFORE_AUTHORIZATION,
    amount=5000,
    currency="EUR",
    velocity={"card:3600": 5},
    velocity_source="redis",
)
AFTER = frozenset({Stage.AFTER_AUTHORIZATION})
ALLOWED = (ListMatch("allow", "email", "b***@example.com"),)


def make_rule(name: str = "r", *, is_hit: bool | None = True, **fields: Any) -> Rule:
    """A rule that hits, misses, or (None) cannot tell."""
    return Rule(
        name, name, test=lambda context: is_hit, explain=lambda context: Seen("seen", "limit"), **fields
    )


def failing_rule(**fields: Any) -> Rule:
    return replace(make_rule(**fields), test=fail)


def fail(context: FraudContext) -> bool:
    raise LookupError("the device is not known")


def score_rule(threshold: int) -> Rule:
    return replace(
        make_rule("total", is_total=True, outcome=Outcome.REVIEW),
        test=lambda context: context.score >= threshold,
    )


def decide(rules: Sequence[Rule], context: FraudContext, **prior: Any) -> FraudResult:
    return decide_plan(RulePlan(tuple(rules)), context, **prior)


def only(result: FraudResult) -> Status:
    [verdict] = result.verdicts
    return verdict.status


@pytest.mark.parametrize(
    ("outcomes", "decision"),
    [
        ([], Decision.APPROVE),
        ([Outcome.SCORE], Decision.APPROVE),
        ([Outcome.REVIEW], Decision.REVIEW),
        ([Outcome.REVIEW, Outcome.CHALLENGE], Decision.CHALLENGE),
        ([Outcome.CHALLENGE, Outcome.BLOCK, Outcome.REVIEW], Decision.BLOCK),
    ],
)
def test_the_hardest_outcome_wins(outcomes: list[Outcome], decision: Decision) -> None:
    rules = [make_rule(outcome=outcome) for outcome in outcomes]
    assert decide(rules, BEFORE).decision == decision


def test_points_of_both_screenings_reach_the_threshold() -> None:
    rules = [make_rule(points=30), score_rule(50)]
    assert decide(rules, BEFORE).decision == Decision.APPROVE
    result = decide(rules, replace(BEFORE, score=20))
    assert (result.decision, result.score) == (Decision.REVIEW, 50)


def test_a_review_that_a_challenge_overruled_comes_after_the_authorization() -> None:
    after = replace(BEFORE, stage=Stage.AFTER_AUTHORIZATION)
    assert decide([], after, wants_review=True).decision == Decision.REVIEW
    assert decide([], after).decision == Decision.APPROVE


def test_after_the_authorization_a_challenge_becomes_a_review() -> None:
    after = replace(BEFORE, stage=Stage.AFTER_AUTHORIZATION)
    rule = make_rule(stages=AFTER, outcome=Outcome.CHALLENGE)
    assert decide([rule], after).decision == Decision.REVIEW


def test_a_rule_that_is_off_or_of_the_other_stage_says_nothing() -> None:
    rules = [make_rule(mode=Mode.OFF, outcome=Outcome.BLOCK), make_rule(stages=AFTER)]
    assert not decide(rules, BEFORE).verdicts


def test_shadow_is_recorded_without_effect() -> None:
    result = decide([make_rule(mode=Mode.SHADOW, points=90, outcome=Outcome.BLOCK)], BEFORE)
    assert (result.decision, result.score, only(result)) == (Decision.APPROVE, 0, Status.SHADOW)


@pytest.mark.parametrize(
    ("policy", "decision", "score"),
    [
        (ErrorPolicy.HIT, Decision.BLOCK, 10),
        (ErrorPolicy.MISS, Decision.APPROVE, 0),
        (ErrorPolicy.REVIEW, Decision.REVIEW, 0),
    ],
)
def test_a_rule_that_cannot_tell_follows_its_policy(
    policy: ErrorPolicy, decision: Decision, score: int
) -> None:
    fields: dict[str, Any] = {"on_error": policy, "outcome": Outcome.BLOCK, "points": 10}
    for rule in (failing_rule(**fields), make_rule(is_hit=None, **fields)):
        result = decide([rule], BEFORE)
        assert (result.decision, result.score, only(result)) == (decision, score, Status.ERROR)


def test_a_rule_that_fails_says_why() -> None:
    assert decide([failing_rule()], BEFORE).reasons == ("r: the device is not known",)


def test_a_rule_hits_an_order_once() -> None:
    rule = make_rule(points=30, stages=frozenset(Stage))
    after = replace(BEFORE, stage=Stage.AFTER_AUTHORIZATION, score=30)
    assert decide([rule], after, settled=frozenset({"r"})).score == 30


def test_a_share_of_the_orders_is_always_the_same_orders() -> None:
    rule = make_rule(mode=Mode.SHARE, share=30, points=1)
    orders = [replace(BEFORE, order_id=f"ord_{number}") for number in range(1000)]
    scores = [decide([rule], order).score for order in orders]
    assert 240 < sum(scores) < 360
    assert scores == [decide([rule], order).score for order in orders]
    wider = replace(rule, share=60)
    assert all(decide([wider], order).score for order, score in zip(orders, scores, strict=True) if score)


def test_the_allow_list_snoozes_everything_but_a_block() -> None:
    allowed = replace(BEFORE, list_matches=ALLOWED)
    result = decide([make_rule(outcome=Outcome.REVIEW, points=60), score_rule(50)], allowed)
    assert (result.decision, result.score) == (Decision.APPROVE, 0)
    assert result.verdicts[0].status == Status.SNOOZED
    assert decide([make_rule(outcome=Outcome.BLOCK)], allowed).decision == Decision.BLOCK


rules = st.lists(
    st.builds(
        make_rule,
        is_hit=st.booleans(),
        points=st.integers(0, 100),
        outcome=st.sampled_from(Outcome),
        mode=st.sampled_from(Mode),
    )
    | st.builds(failing_rule, on_error=st.sampled_from(ErrorPolicy), outcome=st.sampled_from(Outcome)),
    max_size=8,
)


@given(rules)
def test_the_score_is_the_sum_of_the_verdicts_and_every_rule_has_one(chosen: list[Rule]) -> None:
    result = decide(chosen, BEFORE)
    assert result.score == sum(verdict.points for verdict in result.verdicts)
    assert [verdict.rule for verdict in result.verdicts] == [
        rule for rule in chosen if rule.mode is not Mode.OFF
    ]


@given(rules)
def test_shadow_rules_never_change_anything(chosen: list[Rule]) -> None:
    without = [rule for rule in chosen if rule.mode in (Mode.ON, Mode.SHARE)]
    assert decide(chosen, BEFORE).decision == decide(without, BEFORE).decision
    assert decide(chosen, BEFORE).score == decide(without, BEFORE).score


@given(rules, rules)
def test_no_rule_lets_pass_what_another_stopped(some: list[Rule], more: list[Rule]) -> None:
    first, then = decide(some, BEFORE).decision, decide(some + more, BEFORE).decision
    assert first is Decision.APPROVE or then is not Decision.APPROVE
    assert first is not Decision.BLOCK or then is Decision.BLOCK


@given(rules, st.randoms())
def test_the_order_of_the_rules_does_not_change_the_decision(chosen: list[Rule], random: Any) -> None:
    shuffled = random.sample(chosen, len(chosen))
    assert decide(shuffled, BEFORE).decision == decide(chosen, BEFORE).decision
