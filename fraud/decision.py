"""From rules and facts to one decision: pure, so that every order can be decided again and explained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from time import perf_counter_ns
from typing import NamedTuple
from zlib import crc32

from fraud.facts import FraudContext
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
    SHARE = "share"  # in effect for some of the orders, in shadow for the others
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


class Seen(NamedTuple):
    """What a rule saw of an order, in words, beside its limit."""

    value: str
    threshold: str


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One rule, ready to run. `test` gives None when it cannot tell; both callables may raise."""

    key: str
    name: str
    test: Callable[[FraudContext], bool | None]
    explain: Callable[[FraudContext], Seen]
    id: int | None = None
    points: int = 0
    outcome: Outcome = Outcome.SCORE
    mode: Mode = Mode.ON
    share: int = 100  # per cent of the orders, in mode SHARE
    on_error: ErrorPolicy = ErrorPolicy.REVIEW
    stages: frozenset[Stage] = frozenset({Stage.BEFORE_AUTHORIZATION})
    is_total: bool = False  # asks for the points of the others

    def is_on_trial(self, context: FraudContext) -> bool:
        """Whether this order is one of those on which the rule has no effect."""
        if self.mode is Mode.ON:
            return False
        return (
            self.mode is Mode.SHADOW or crc32(f"{self.key}:{context.order_id}".encode()) % 100 >= self.share
        )


class RuleVerdict(NamedTuple):
    """What one rule said. `outcome` is None when the verdict has no effect; `points` are those that count."""

    rule: Rule
    status: Status
    points: int = 0
    outcome: Outcome | None = None
    nanoseconds: int = 0
    error: str = ""

    @property
    def is_reason(self) -> bool:
        return self.outcome is not None

    def explain(self, context: FraudContext) -> Seen:
        """What it saw in the context that it judged. Never raises: a rule that cannot tell says why."""
        if self.error:
            return Seen(self.error, "")
        try:
            return self.rule.explain(context)
        except Exception as error:
            return Seen(describe_error(error), "")

    def describe(self, context: FraudContext) -> str:
        """For people: `Card velocity: card used on 6 orders in 1 h (limit 4)`."""
        value, threshold = self.explain(context)
        return f"{self.rule.name}: {value}" + (f" ({threshold})" if threshold else "")


@dataclass(frozen=True, slots=True)
class FraudResult:
    """The decision, the points that led to it (of both screenings) and the verdict of every rule that ran.

    `context` is the one that was judged, its score included.
    """

    decision: Decision
    score: int
    verdicts: Sequence[RuleVerdict]
    context: FraudContext

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(verdict.describe(self.context) for verdict in self.verdicts if verdict.is_reason)


@dataclass(frozen=True, slots=True)
class RulePlan:
    """Which rules run when: those that judge an order, then those that judge the sum of their points."""

    rules: Sequence[Rule]
    _due: dict[Stage, tuple[tuple[Rule, ...], tuple[Rule, ...]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_due", {stage: self._split(stage) for stage in Stage})

    def _split(self, stage: Stage) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
        due = [rule for rule in self.rules if rule.mode is not Mode.OFF and stage in rule.stages]
        return (
            tuple(rule for rule in due if not rule.is_total),
            tuple(rule for rule in due if rule.is_total),
        )

    def due(self, stage: Stage) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
        """The rules of a stage: on the order, and on the total."""
        return self._due[stage]


def decide(
    plan: RulePlan,
    context: FraudContext,
    *,
    wants_review: bool = False,
    settled: frozenset[str] = frozenset(),
) -> FraudResult:
    """Run every rule of the context's stage and combine what they say.

    `context.score`, `wants_review` and `settled` are what an earlier screening left: its points, a review that
    a challenge overruled, and the keys of the rules that hit (each hits an order once). The hardest answer wins:
    block, else challenge, else review, else approve; after the authorization nobody can be challenged any more,
    so a challenge becomes a review.
    """
    rules, totals = plan.due(context.stage)
    allowed = context.is_allowed
    verdicts = [judge(rule, context, allowed) for rule in rules if rule.key not in settled]
    score = context.score + sum([verdict.points for verdict in verdicts])
    if totals:
        context = context.with_score(score)
        judged = [judge(rule, context, allowed) for rule in totals if rule.key not in settled]
        score += sum([verdict.points for verdict in judged])
        verdicts += judged
    outcomes = {verdict.outcome for verdict in verdicts}
    return FraudResult(combine(outcomes, context.stage, wants_review), score, verdicts, context)


def combine(outcomes: Iterable[Outcome | None], stage: Stage, wants_review: bool = False) -> Decision:
    """The hardest of these outcomes, as a decision."""
    found = set(outcomes)
    if Outcome.BLOCK in found:
        return Decision.BLOCK
    if Outcome.CHALLENGE in found:
        return Decision.CHALLENGE if stage is Stage.BEFORE_AUTHORIZATION else Decision.REVIEW
    if Outcome.REVIEW in found or wants_review:
        return Decision.REVIEW
    return Decision.APPROVE


def judge(rule: Rule, context: FraudContext, allowed: bool) -> RuleVerdict:
    """One rule's verdict. A rule that fails is no silent pass: its policy says what the failure means."""
    problem = ""
    started = perf_counter_ns()
    try:
        found = rule.test(context)
    except Exception as error:
        found, problem = None, describe_error(error)
    took = perf_counter_ns() - started
    if found is False:
        return RuleVerdict(rule, Status.MISS, 0, None, took)
    is_spared = allowed and rule.outcome is not Outcome.BLOCK
    if found is None:
        return _judge_error(rule, context, is_spared, took, problem)
    if rule.is_on_trial(context):
        return RuleVerdict(rule, Status.SHADOW, 0, None, took)
    if is_spared:
        return RuleVerdict(rule, Status.SNOOZED, 0, None, took)
    return RuleVerdict(rule, Status.HIT, rule.points, rule.outcome, took)


def _judge_error(rule: Rule, context: FraudContext, is_spared: bool, took: int, problem: str) -> RuleVerdict:
    if rule.on_error is ErrorPolicy.MISS or is_spared or rule.is_on_trial(context):
        return RuleVerdict(rule, Status.ERROR, 0, None, took, problem)
    if rule.on_error is ErrorPolicy.REVIEW:
        return RuleVerdict(rule, Status.ERROR, 0, Outcome.REVIEW, took, problem)
    return RuleVerdict(rule, Status.ERROR, rule.points, rule.outcome, took, problem)


def describe_error(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:200]
