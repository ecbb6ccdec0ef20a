"""Decides past orders again, all at once in a frame, and one by one with the live functions: the same answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from zlib import crc32

import polars as pl

from fraud.decision import ErrorPolicy, FraudResult, Mode, Outcome, RulePlan, combine, decide
from fraud.facts import FraudContext
from fraud.language import parse
from fraud.language.frames import Column, columns, to_polars
from fraud.models import Rule as RuleRow
from fraud.plans import compile_row, parse_row
from fraud.rules import CODE_RULES
from payments.decisions import Decision, Stage

_AFTER = pl.col("stage") == Stage.AFTER_AUTHORIZATION.value
_ALLOWED = parse('in_list("allow")')
_CONTEXT = "assessment.context"


@dataclass(frozen=True, slots=True)
class FrameRule:
    """One rule over a frame: null where it cannot tell."""

    row: RuleRow
    test: pl.Expr
    is_late: bool  # only orders that reached the second screening
    is_total: bool
    columns: dict[str, Column]

    @property
    def hit(self) -> str:
        return f"hit.{self.row.key}"


def frame_rules(rows: Sequence[RuleRow]) -> list[FrameRule]:
    """The rules that run (shadow too), those on the total last. Raises `RuleError`, `LookupError` for a rule
    written as code that knows no frames.
    """
    rules = [_frame_rule(row) for row in rows if row.mode != Mode.OFF]
    return sorted(rules, key=lambda rule: rule.is_total)


def needed_columns(rules: Sequence[FrameRule]) -> dict[str, Column]:
    """What must be loaded for these rules; the score is reckoned, not loaded."""
    needed = columns([_ALLOWED], _CONTEXT)
    for rule in rules:
        needed |= rule.columns
    needed.pop("score", None)
    return needed


def replay_frame(rules: Sequence[FrameRule], history: pl.DataFrame) -> pl.DataFrame:
    """The history with `score`, `decision` and, for each rule, `hit.<key>`: what it said, whatever its effect."""
    judged = history.with_columns(_answer(rule) for rule in rules if not rule.is_total)
    judged = judged.with_columns(score=_points(rules, judged, total=False))
    judged = judged.with_columns(_answer(rule) for rule in rules if rule.is_total)
    outcomes = _outcomes(rules, judged)
    decision = (
        pl.when(outcomes[Outcome.BLOCK])
        .then(pl.lit(Decision.BLOCK.value))
        .when(outcomes[Outcome.CHALLENGE])
        .then(pl.lit(Decision.CHALLENGE.value))
        .when(outcomes[Outcome.REVIEW])
        .then(pl.lit(Decision.REVIEW.value))
        .otherwise(pl.lit(Decision.APPROVE.value))
    )
    return judged.with_columns(decision=decision, score=pl.col("score") + _points(rules, judged, total=True))


def make_replay(rows: Sequence[RuleRow]) -> Callable[[FraudContext], FraudResult]:
    """The same order by order, with the functions that decide live: every rule whose facts its screenings knew.

    Raises `RuleError`.
    """
    rules = [compile_row(row) for row in rows]
    late = RulePlan([replace(rule, stages=frozenset(Stage)) for rule in rules])
    early = RulePlan([rule for rule in rules if Stage.BEFORE_AUTHORIZATION in rule.stages])

    def run(context: FraudContext) -> FraudResult:
        plan = early if context.stage is Stage.BEFORE_AUTHORIZATION else late
        result = decide(plan, context.with_score(0))
        if result.decision is Decision.APPROVE:
            return result
        outcomes = [verdict.outcome for verdict in result.verdicts]
        return result._replace(decision=combine(outcomes, Stage.BEFORE_AUTHORIZATION))

    return run


def _frame_rule(row: RuleRow) -> FrameRule:
    compiled = compile_row(row)
    is_late = Stage.BEFORE_AUTHORIZATION not in compiled.stages
    if row.code:
        known = CODE_RULES[row.code]
        if known.to_polars is None:
            raise LookupError(f"The rule “{row.name}” is written as code that cannot run over a history.")
        parameters = known.parameters.from_json(row.parameters)
        return FrameRule(row, known.to_polars(parameters), is_late, False, {})
    expression = parse_row(row)
    return FrameRule(row, to_polars(expression), is_late, compiled.is_total, columns([expression], _CONTEXT))


def _answer(rule: FrameRule) -> pl.Expr:
    """True, false, or null: it cannot tell. A rule that did not run says false."""
    answer = pl.when(_AFTER).then(rule.test).otherwise(pl.lit(False)) if rule.is_late else rule.test
    return answer.alias(rule.hit)


def _points(rules: Sequence[FrameRule], judged: pl.DataFrame, *, total: bool) -> pl.Expr:
    earned = [
        pl.when(_counts(rule, judged)).then(rule.row.points).otherwise(0)
        for rule in rules
        if rule.row.points and rule.is_total is total
    ]
    return pl.sum_horizontal(pl.lit(0, pl.Int64), *earned).cast(pl.Int64)


def _outcomes(rules: Sequence[FrameRule], judged: pl.DataFrame) -> dict[Outcome, pl.Expr]:
    """For each outcome, the orders that some rule leads to it."""
    found: dict[Outcome, list[pl.Expr]] = {outcome: [pl.lit(False)] for outcome in Outcome}
    for rule in rules:
        found[Outcome(rule.row.outcome)].append(_counts(rule, judged))
        if rule.row.on_error == ErrorPolicy.REVIEW:
            found[Outcome.REVIEW].append(pl.col(rule.hit).is_null() & _in_effect(rule, judged))
    return {outcome: reduce(or_, conditions) for outcome, conditions in found.items()}


def _counts(rule: FrameRule, judged: pl.DataFrame) -> pl.Expr:
    """The orders on which the rule hits with effect; one that cannot tell may count as a hit."""
    is_hit = pl.col(rule.hit).fill_null(rule.row.on_error == ErrorPolicy.HIT)
    return is_hit & _in_effect(rule, judged)


def _in_effect(rule: FrameRule, judged: pl.DataFrame) -> pl.Expr:
    """Not on trial, and not spared by the allow list."""
    if rule.row.mode == Mode.SHADOW:
        return pl.lit(False)
    is_felt = pl.lit(True) if rule.row.outcome == Outcome.BLOCK else ~pl.col("listed.allow")
    return is_felt & _in_share(rule, judged) if rule.row.mode == Mode.SHARE else is_felt


def _in_share(rule: FrameRule, judged: pl.DataFrame) -> pl.Expr:
    """As `fraud.decision.Rule.is_on_trial` chooses, order by order."""
    key, share = rule.row.key, rule.row.share
    chosen = [crc32(f"{key}:{order_id}".encode()) % 100 < share for order_id in judged["order_id"]]
    return pl.lit(pl.Series(chosen, dtype=pl.Boolean))
