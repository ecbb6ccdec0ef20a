"""From rules and facts to one decision: pure, so that every order can be decided again and explained."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from fraud.facts import FraudContext
from fraud.rules import KINDS, Hit, Parameters
from payments.decisions import Decision, Stage


class Outcome(StrEnum):
    """What a hit leads to. Every hit adds its points too."""

    SCORE = "score"
    REVIEW = "review"
    CHALLENGE = "challenge"
    BLOCK = "block"


class Mode(StrEnum):
    OFF = "off"
    SHADOW = "shadow"  # judged and recorded, without effect
    ON = "on"


class ErrorPolicy(StrEnum):
    """What it means that a rule could not tell."""

    HIT = "hit"
    MISS = "miss"
    REVIEW = "review"


class Status(StrEnum):
    """How a rule came out."""

    HIT = "hit"
    MISS = "miss"
    ERROR = "error"
    SNOOZED = "snoozed"  # hit, but the customer is on the allow list
    SHADOW = "shadow"  # would have hit, but the rule is only on trial


@dataclass(frozen=True, slots=True)
class Rule:
    """One configured rule, ready to run."""

    id: int
    name: str
    kind: str
    parameters: Parameters
    points: int = 0
    outcome: Outcome = Outcome.SCORE
    mode: Mode = Mode.ON
    on_error: ErrorPolicy = ErrorPolicy.REVIEW

    def runs_at(self, stage: Stage) -> bool:
        return self.mode is not Mode.OFF and stage in KINDS[self.kind].stages(self.parameters)


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """What one rule said. `outcome` is None when the verdict has no effect; `points` are those that count."""

    rule: Rule
    status: Status
    value: str = ""
    threshold: str = ""
    points: int = 0
    outcome: Outcome | None = None
    microseconds: int = 0

    @property
    def is_reason(self) -> bool:
        return self.outcome is not None

    def describe(self) -> str:
        """For people: `Card velocity: card used on 6 orders (limit 4 in 1 h)`."""
        limit = f" ({self.threshold})" if self.threshold else ""
        return f"{self.rule.name}: {self.value}{limit}"


@dataclass(frozen=True, slots=True)
class FraudResult:
    """The decision, the points that led to it (of both screenings) and the verdict of every rule that ran."""

    decision: Decision
    score: int
    verdicts: tuple[RuleVerdict, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(verdict.describe() for verdict in self.verdicts if verdict.is_reason)


def decide(rules: Sequence[Rule], context: FraudContext, *, wants_review: bool = False) -> FraudResult:
    """Run every rule of the context's stage and combine what they say.

    `context.score` and `wants_review` are what an earlier screening left. Rules on the total score see the
    points of all the others. The hardest answer wins: block, else challenge, else review, else approve; after
    the authorization nobody can be challenged any more, so a challenge becomes a review.
    """
    due = [rule for rule in rules if rule.runs_at(context.stage)]
    verdicts = [run_rule(rule, context) for rule in due if rule.kind != "score"]
    summed = replace(context, score=context.score + sum(verdict.points for verdict in verdicts))
    totals = [run_rule(rule, summed) for rule in due if rule.kind == "score"]
    score = summed.score + sum(verdict.points for verdict in totals)
    outcomes = {verdict.outcome for verdict in (*verdicts, *totals)}
    return FraudResult(_combine(outcomes, context.stage, wants_review), score, (*verdicts, *totals))


def _combine(outcomes: set[Outcome | None], stage: Stage, wants_review: bool) -> Decision:
    if Outcome.BLOCK in outcomes:
        return Decision.BLOCK
    if Outcome.CHALLENGE in outcomes:
        return Decision.CHALLENGE if stage is Stage.BEFORE_AUTHORIZATION else Decision.REVIEW
    if Outcome.REVIEW in outcomes or wants_review:
        return Decision.REVIEW
    return Decision.APPROVE


def run_rule(rule: Rule, context: FraudContext) -> RuleVerdict:
    """One rule's verdict. A rule that fails is no silent pass: its policy says what the failure means."""
    started = time.perf_counter_ns()
    try:
        finding = KINDS[rule.kind].evaluate(context, rule.parameters)
    except Exception as error:
        verdict = _judge_error(rule, context, str(error) or type(error).__name__)
    else:
        verdict = RuleVerdict(rule, Status.MISS, finding.value, finding.threshold)
        if isinstance(finding, Hit):
            verdict = _judge_hit(rule, context, verdict)
    return replace(verdict, microseconds=(time.perf_counter_ns() - started) // 1000)


def _judge_hit(rule: Rule, context: FraudContext, verdict: RuleVerdict) -> RuleVerdict:
    if rule.mode is Mode.SHADOW:
        return replace(verdict, status=Status.SHADOW)
    if context.is_allowed and rule.outcome is not Outcome.BLOCK:
        return replace(verdict, status=Status.SNOOZED)
    return replace(verdict, status=Status.HIT, points=rule.points, outcome=rule.outcome)


def _judge_error(rule: Rule, context: FraudContext, message: str) -> RuleVerdict:
    verdict = RuleVerdict(rule, Status.ERROR, message[:200])
    if rule.mode is Mode.SHADOW or rule.on_error is ErrorPolicy.MISS:
        return verdict
    if context.is_allowed and rule.outcome is not Outcome.BLOCK:
        return verdict
    if rule.on_error is ErrorPolicy.REVIEW:
        return replace(verdict, outcome=Outcome.REVIEW)
    return replace(verdict, points=rule.points, outcome=rule.outcome)
