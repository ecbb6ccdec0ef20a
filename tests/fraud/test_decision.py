"""How verdicts become one decision: the order of outcomes, the score, errors, shadow and the allow list."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud import Decision, FraudContext, FraudResult
from fraud.decision import ErrorPolicy, Mode, Outcome, Rule, Status, decide
from fraud.facts import ListMatch
from fraud.rules import KINDS
from payments.decisions import Stage

BEFORE = FraudContext(
    stage=Stage.BEFORE_AUTHORIZATION,
    amount=5000,
    currency="EUR",
    velocity={"card:3600": 5},
    velocity_source="redis",
)
ALLOWED = (ListMatch("allow", "email", "b***@example.com"),)


def make_rule(name: str = "r", *, is_hit: bool = True, kind: str = "velocity", **fields: Any) -> Rule:
    """A velocity rule that hits or misses the context above; one on another dimension cannot tell."""
    parameters = fields.pop("parameters", {"limit": 4 if is_hit else 5})
    return Rule(id=1, name=name, kind=kind, parameters=KINDS[kind].parameters.from_json(parameters), **fields)


def failing_rule(**fields: Any) -> Rule:
    return make_rule(parameters={"dimension": "device"}, **fields)


def score_rule(threshold: int) -> Rule:
    return make_rule("total", kind="score", parameters={"threshold": threshold}, outcome=Outcome.REVIEW)


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
    after = replace(BEFORE, stage=Stage.AFTER_AUTHORIZATION, avs="fail")
    rule = make_rule(kind="avs", parameters={}, outcome=Outcome.CHALLENGE)
    assert decide([rule], after).decision == Decision.REVIEW


def test_a_rule_that_is_off_or_of_the_other_stage_says_nothing() -> None:
    rules = [make_rule(mode=Mode.OFF, outcome=Outcome.BLOCK), make_rule(kind="avs", parameters={})]
    assert decide(rules, BEFORE).verdicts == ()


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
    result = decide([failing_rule(on_error=policy, outcome=Outcome.BLOCK, points=10)], BEFORE)
    assert (result.decision, result.score, only(result)) == (decision, score, Status.ERROR)
    assert "device" in result.verdicts[0].value


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
    without = [rule for rule in chosen if rule.mode is Mode.ON]
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
