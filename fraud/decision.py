"""From rules and facts to one decision: pure, so that every order can be decided again and explained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from itertools import pairwise
from time import perf_counter_ns
from typing import NamedTuple
from zlib import crc32

from fraud.facts import FraudContext
from payments.decisions import Decision, Stage

# What runs for every rule of every order, or of a million in a back-test, is looked up once.
_BEFORE, _APPROVE = Stage.BEFORE_AUTHORIZATION, Decision.APPROVE
_new = tuple.__new__


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


_BLOCK, _CHALLENGE, _REVIEW = Outcome.BLOCK, Outcome.CHALLENGE, Outcome.REVIEW
_ON = Mode.ON


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
    source: str = "expression"  # or the name of its code
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


class FraudResult(NamedTuple):
    """The decision, the points that led to it (of both screenings) and the verdict of every rule that ran.

    `ticks` are the clock's nanoseconds before the first rule and after each, if they were asked for; `context` is
    what was judged, its score included.
    """

    decision: Decision
    score: int
    verdicts: Sequence[RuleVerdict]
    ticks: Sequence[int]
    context: FraudContext

    @property
    def nanoseconds(self) -> list[int]:
        """How long each rule took, beside its verdict; 0 where nobody looked at the clock."""
        return [after - before for before, after in pairwise(self.ticks)] or [0] * len(self.verdicts)

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(verdict.describe(self.context) for verdict in self.verdicts if verdict.is_reason)


@dataclass(frozen=True, slots=True)
class _Failure:
    """What a test answers that raised."""

    error: str


Test = Callable[[FraudContext], bool | _Failure | None]


@dataclass(frozen=True, slots=True)
class _Due:
    """The rules that run together, with what is the same for every order: their tests, misses and plain hits."""

    rules: tuple[Rule, ...]
    tests: tuple[Test, ...] = field(init=False)
    misses: tuple[RuleVerdict, ...] = field(init=False)
    hits: tuple[RuleVerdict, ...] = field(init=False)  # of rules that are on, for who is not allowed

    def __post_init__(self) -> None:
        object.__setattr__(self, "tests", tuple(rule.test for rule in self.rules))
        object.__setattr__(self, "misses", tuple(RuleVerdict(rule, Status.MISS) for rule in self.rules))
        hits = (RuleVerdict(rule, Status.HIT, rule.points, rule.outcome) for rule in self.rules)
        object.__setattr__(self, "hits", tuple(hits))

    def without(self, settled: frozenset[str]) -> _Due:
        return _Due(tuple(rule for rule in self.rules if rule.key not in settled)) if settled else self


@dataclass(frozen=True, slots=True)
class RulePlan:
    """Which rules run when: those that judge an order, then those that judge the sum of their points."""

    rules: Sequence[Rule]
    before: tuple[_Due, _Due] = field(init=False, repr=False)
    after: tuple[_Due, _Due] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "before", self._split(Stage.BEFORE_AUTHORIZATION))
        object.__setattr__(self, "after", self._split(Stage.AFTER_AUTHORIZATION))

    def _split(self, stage: Stage) -> tuple[_Due, _Due]:
        due = [rule for rule in self.rules if rule.mode is not Mode.OFF and stage in rule.stages]
        return (
            _Due(tuple(rule for rule in due if not rule.is_total)),
            _Due(tuple(rule for rule in due if rule.is_total)),
        )


def decide(
    plan: RulePlan,
    context: FraudContext,
    *,
    wants_review: bool = False,
    settled: frozenset[str] = frozenset(),
    is_timed: bool = False,
) -> FraudResult:
    """Run every rule of the context's stage and combine what they say.

    `context.score`, `wants_review` and `settled` are what an earlier screening left: its points, a review that
    a challenge overruled, and the keys of the rules that hit (each hits an order once). The hardest answer wins:
    block, else challenge, else review, else approve; after the authorization nobody can be challenged any more,
    so a challenge becomes a review.
    """
    due, totals = plan.before if context.stage is _BEFORE else plan.after
    if settled:
        due, totals = due.without(settled), totals.without(settled)
    ticks = [perf_counter_ns()] if is_timed else []
    verdicts, others = judge(due, context, ticks)
    if not (others or totals.rules or wants_review):
        return _new(FraudResult, (_APPROVE, context.score, verdicts, ticks, context))
    score = context.score + sum([verdict.points for verdict in others])
    if totals.rules:
        context = context.with_score(score)
        judged, more = judge(totals, context, ticks)
        score += sum([verdict.points for verdict in more])
        verdicts, others = (*verdicts, *judged), (*others, *more)
    decision = combine([verdict.outcome for verdict in others], context.stage, wants_review)
    return _new(FraudResult, (decision, score, verdicts, ticks, context))


def judge(
    due: _Due, context: FraudContext, ticks: list[int]
) -> tuple[Sequence[RuleVerdict], Sequence[RuleVerdict]]:
    """The verdict of each rule, and those that are no misses: a miss is made once for all orders.

    `ticks` that has a tick gets one more after each rule.
    """
    try:
        answers = (
            _ask_by_the_clock(due.tests, context, ticks) if ticks else [test(context) for test in due.tests]
        )
    except Exception:  # the rules are pure: ask them again, each on its own
        answers = _ask_by_the_clock([partial(_try, test) for test in due.tests], context, ticks)
    if answers.count(False) == len(answers):
        return due.misses, ()
    return _judge_others(due, answers, context)


def _ask_by_the_clock(
    tests: Sequence[Test], context: FraudContext, ticks: list[int]
) -> list[bool | _Failure | None]:
    answers = []
    taken = []
    for test in tests:
        answers.append(test(context))
        taken.append(perf_counter_ns())
    if ticks:
        ticks += taken
    return answers


def _try(test: Test, context: FraudContext) -> bool | _Failure | None:
    try:
        return test(context)
    except Exception as error:
        return _Failure(describe_error(error))


def _judge_others(
    due: _Due, answers: Sequence[bool | _Failure | None], context: FraudContext
) -> tuple[Sequence[RuleVerdict], Sequence[RuleVerdict]]:
    verdicts, others = list(due.misses), []
    is_allowed = context.is_allowed
    for index, answer in enumerate(answers):
        if answer is False:
            continue
        rule = due.rules[index]
        if answer is True and rule.mode is _ON and not is_allowed:
            verdict = due.hits[index]
        else:
            is_spared = is_allowed and rule.outcome is not _BLOCK
            verdict = _judge_one(rule, answer, context, is_spared)
        verdicts[index] = verdict
        others.append(verdict)
    return verdicts, others


def _judge_one(
    rule: Rule, answer: bool | _Failure | None, context: FraudContext, is_spared: bool
) -> RuleVerdict:
    if answer is True:
        return _judge_hit(rule, context, is_spared)
    return _judge_failure(rule, context, is_spared, answer.error if answer else "")


def _judge_hit(rule: Rule, context: FraudContext, is_spared: bool) -> RuleVerdict:
    if rule.is_on_trial(context):
        return RuleVerdict(rule, Status.SHADOW)
    if is_spared:
        return RuleVerdict(rule, Status.SNOOZED)
    return RuleVerdict(rule, Status.HIT, rule.points, rule.outcome)


def _judge_failure(rule: Rule, context: FraudContext, is_spared: bool, error: str) -> RuleVerdict:
    """A rule that cannot tell is no silent pass: its policy says what that means."""
    if rule.on_error is ErrorPolicy.MISS or is_spared or rule.is_on_trial(context):
        return RuleVerdict(rule, Status.ERROR, 0, None, error)
    if rule.on_error is ErrorPolicy.REVIEW:
        return RuleVerdict(rule, Status.ERROR, 0, Outcome.REVIEW, error)
    return RuleVerdict(rule, Status.ERROR, rule.points, rule.outcome, error)


def combine(outcomes: Iterable[Outcome | None], stage: Stage, wants_review: bool = False) -> Decision:
    """The hardest of these outcomes, as a decision."""
    found = tuple(outcomes)
    if _BLOCK in found:
        return Decision.BLOCK
    if _CHALLENGE in found:
        return Decision.CHALLENGE if stage is _BEFORE else Decision.REVIEW
    return Decision.REVIEW if wants_review or _REVIEW in found else _APPROVE


def describe_error(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:200]
