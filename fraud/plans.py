"""Makes the rows of a rule set ready to run, and tells what is wrong with those that cannot be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from fraud.decision import ErrorPolicy, Mode, Outcome, Rule, RulePlan, Seen
from fraud.facts import FraudContext, VelocityKey
from fraud.language import Expression, LanguageError, parse
from fraud.language.closures import compile_expression
from fraud.language.explain import Explain, compile_explanation, summarize
from fraud.models import Rule as RuleRow
from fraud.models import RuleSet
from fraud.rules import CODE_RULES, ParameterError
from payments.decisions import Stage

BEFORE, AFTER = frozenset({Stage.BEFORE_AUTHORIZATION}), frozenset({Stage.AFTER_AUTHORIZATION})
TOO_LATE = "This rule runs after the authorization: it is too late for 3-D Secure."


class RuleError(ValueError):
    """A rule that cannot run; `field` is the column to blame, `column` the place in its text (from 1, 0: none)."""

    def __init__(
        self, message: str, *, field: str = "expression", column: int = 0, suggestion: str = ""
    ) -> None:
        super().__init__(message)
        self.field, self.column, self.suggestion = field, column, suggestion


@dataclass(frozen=True, slots=True)
class LivePlan:
    """A rule set ready to run: what it must be told, and which set it is."""

    plan: RulePlan
    velocity_keys: frozenset[VelocityKey]
    ruleset_id: str = ""
    number: int = 0

    @classmethod
    def of(cls, ruleset: RuleSet) -> LivePlan:
        """Raises `RuleError` for a row that was edited past its check."""
        rows = [row for row in ruleset.rules.all() if row.mode != Mode.OFF]
        rules = tuple(compile_row(row) for row in rows)
        return cls(RulePlan(rules), needed_keys(rows), ruleset.pk, ruleset.number)


def compile_row(row: RuleRow) -> Rule:
    """The row as a rule that runs. Raises `RuleError`, naming the field."""
    rule = _compile_code(row) if row.code else _compile_expression(row)
    if rule.outcome is Outcome.CHALLENGE and Stage.BEFORE_AUTHORIZATION not in rule.stages:
        raise RuleError(TOO_LATE, field="outcome")
    return rule


def parse_row(row: RuleRow) -> Expression:
    """The row's expression with its parameters. Raises `RuleError` with column and suggestion."""
    try:
        return parse(row.expression, row.parameters)
    except LanguageError as error:
        raise RuleError(error.message, column=error.column, suggestion=error.suggestion) from None


def needed_keys(rows: Iterable[RuleRow]) -> frozenset[VelocityKey]:
    """The velocity figures that the expressions ask for."""
    return frozenset(key for row in rows if not row.code for key in parse_row(row).velocity_keys)


def _compile_expression(row: RuleRow) -> Rule:
    expression = parse_row(row)
    return Rule(
        test=compile_expression(expression),
        explain=partial(_explain_by, compile_explanation(expression)),
        stages=_stages_of(expression),
        is_total="score" in expression.facts,
        **_common(row),
    )


def _compile_code(row: RuleRow) -> Rule:
    known = CODE_RULES.get(row.code)
    if known is None:
        raise RuleError(f"There is no rule written as code named “{row.code}”.", field="code")
    try:
        parameters = known.parameters.from_json(row.parameters)
    except (ParameterError, TypeError) as error:
        raise RuleError(str(error), field="parameters") from None
    judge = known.judge
    return Rule(
        test=lambda context: judge(context, parameters)[0],
        explain=lambda context: judge(context, parameters)[1],
        stages=known.stages,
        source=row.code,
        **_common(row),
    )


def _common(row: RuleRow) -> dict[str, Any]:
    return {
        "key": row.key,
        "name": row.name,
        "id": row.pk,
        "points": row.points,
        "outcome": Outcome(row.outcome),
        "mode": Mode(row.mode),
        "share": row.share,
        "on_error": ErrorPolicy(row.on_error),
    }


def _stages_of(expression: Expression) -> frozenset[Stage]:
    """When everything is known; lists and points are looked at again when the card is known."""
    if expression.stage is Stage.AFTER_AUTHORIZATION:
        return AFTER
    return BEFORE | AFTER if expression.lists or "score" in expression.facts else BEFORE


def _explain_by(explanation: Explain, context: FraudContext) -> Seen:
    return Seen(*summarize(explanation(context)))
