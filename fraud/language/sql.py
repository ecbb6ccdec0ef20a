"""Rules as boolean SQL over the stored contexts (or any columns): NULL where a rule cannot tell."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fraud.facts import FACTS, FactType
from fraud.language import tree, values
from fraud.language.expression import Expression
from fraud.language.numbers import MAX_SCORE, scale_of, scaled
from fraud.language.shapes import DAY
from fraud.language.vocabulary import FRACTIONS

Resolve = Callable[[str], str]  # the SQL of a column that `frames.columns` names, of its type
_ROW = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?\Z")
_OPERATORS = {"==": "=", "!=": "<>"}


@dataclass(frozen=True, slots=True)
class Sql:
    """`text` has one `%s` for each parameter, as psycopg and Django's cursors want it."""

    text: str
    parameters: tuple[Any, ...] = ()


def to_sql(expression: Expression, row: str | Resolve = "context") -> Sql:
    """The rule as a boolean expression.

    `row` is a jsonb column of `FraudContext.to_dict()`; or a function that gives, for the name of a fact
    (`amount`), a figure (`card:3600`) or a list (`listed.block`), SQL of its type: bigint for whole numbers,
    money and times, numeric or float8 for scores, text, boolean. It is trusted.
    """
    return _Writer(row if callable(row) else from_json(row)).condition(expression.tree)


def from_json(row: str) -> Resolve:
    """Columns out of a jsonb column, optionally with its table: `context`, `a.context`. Raises `ValueError`."""
    if not _ROW.match(row):
        raise ValueError(f"{row!r} is not the name of a column")
    return lambda name: _json_column(name, row)


def _json_column(name: str, row: str) -> str:
    list_name = name.removeprefix("listed.")
    if list_name != name:
        return _list_column(list_name, row)
    if ":" in name:
        return f"({row}->'velocity'->>'{name}')::bigint"
    match FACTS[name].type if name in FACTS else FactType.TIME:
        case FactType.TEXT:
            return f"NULLIF({row}->>'{name}', '')"
        case FactType.BOOLEAN:
            return f"({row}->>'{name}')::boolean"
    return f"({row}->>'{name}')::{'numeric' if name in FRACTIONS else 'bigint'}"


def _list_column(name: str, row: str) -> str:
    list_name, _, kind = name.partition(".")
    entry = f'"list":"{list_name}"' + (f',"kind":"{kind}"' if kind else "")
    return f"COALESCE({row}->'list_matches' @> '[{{{entry}}}]', FALSE)"


class _Writer:
    """Writes one expression; every part it returns stands alone, in parentheses where needed."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve

    def condition(self, node: tree.Node) -> Sql:
        match node:
            case tree.And(operands):
                return _join(" AND ", [self.condition(operand) for operand in operands])
            case tree.Or(operands):
                return _join(" OR ", [self.condition(operand) for operand in operands])
            case tree.Not(operand):
                return _fill("(NOT {})", self.condition(operand))
            case tree.Compare(operator, left, right):
                scale = scale_of(left, right)
                sign = _OPERATORS.get(operator, operator)
                return _fill(f"({{}} {sign} {{}})", self.value(left, scale), self.value(right, scale))
            case tree.Between(subject, low, high):
                scale = scale_of(subject, low, high)
                parts = [self.value(part, scale) for part in (subject, low, high)]
                return _fill("({} BETWEEN {} AND {})", *parts)
            case tree.Known(operand, negated):
                question = "IS NULL" if negated else "IS NOT NULL"
                return _fill(f"({{}} {question})", self.value(operand, scale_of(operand)))
            case tree.Member():
                return self._member(node)
            case tree.TextTest(function, subject, needle):
                return self._text_test(function, self.value(subject), values.lower(str(needle.value)))
            case tree.Listed():
                return Sql(self._resolve(f"listed.{node.name}"))
            case tree.Boolean(value):
                return Sql("TRUE" if value else "FALSE")
            case tree.Reference(name):
                return Sql(self._resolve(name))
        raise TypeError(f"{type(node).__name__} is no condition")

    def value(self, node: tree.Node, scale: int = 1) -> Sql:
        """The node's value, multiplied by the scale if it is a number."""
        match node:
            case tree.Reference(name):
                return Sql(_scale_fact(name, self._resolve(name), scale))
            case tree.Velocity(key):
                is_number = tree.type_of(node) is FactType.NUMBER
                return Sql(_times(self._resolve(key.name), scale if is_number else 1))
            case tree.Number(value) | tree.Text(value) | tree.Parameter(value=value):
                return _constant(value, scale)
            case tree.Amounts():
                return Sql(self._limit(node))
            case tree.DaysSince(time):
                return Sql(_times(self._days_since(time.name), scale))
            case tree.Lower(operand):
                return _fill(_LOWER, self.value(operand))
            case tree.Arithmetic(operator, left, right):
                template = f"({{}}::numeric {operator} {{}}::numeric)"
                return _fill(template, self.value(left, scale), self.value(right, scale))
        return self.condition(node)

    def _limit(self, node: tree.Amounts) -> str:
        cases = " ".join(f"WHEN '{currency}' THEN {minor}" for currency, minor in node.by_currency.items())
        return f"(CASE {self._resolve('currency')} {cases} END)"

    def _days_since(self, name: str) -> str:
        seconds = f"NULLIF({self._resolve('assessed_at')}, 0) - {self._resolve(name)}"
        return f"floor(({seconds})::numeric / {DAY})"

    def _member(self, node: tree.Member) -> Sql:
        scale = scale_of(node.subject, *node.choices)
        subject = self.value(node.subject, scale)
        if tree.type_of(node.subject) is FactType.NUMBER:
            choices = _join(", ", [self.value(choice, scale) for choice in node.choices])
            return _fill(f"({{}} {'NOT IN' if node.negated else 'IN'} {{}})", subject, choices)
        constants = (choice for choice in node.choices if isinstance(choice, tree.Text | tree.Parameter))
        texts = [text for constant in constants for text in tree.texts_of(constant)]
        quantifier = "<> ALL" if node.negated else "= ANY"
        return _fill(f"({{}} {quantifier} ({{}}))", subject, Sql("%s::text[]", (texts,)))

    def _text_test(self, function: str, subject: Sql, needle: str) -> Sql:
        text = _fill(_LOWER, subject)
        if function == "ends_with":
            return _fill(f"(right({{}}, {len(needle)}) = {{}})", text, _constant(needle, 1))
        template = "starts_with({}, {})" if function == "starts_with" else "(strpos({}, {}) > 0)"
        return _fill(template, text, _constant(needle, 1))


_LOWER = 'lower({} COLLATE "C")'  # A to Z only, in every database


def _scale_fact(name: str, column: str, scale: int) -> str:
    if scale == 1 or FACTS[name].type is not FactType.NUMBER:
        return column
    if name not in FRACTIONS:
        return _times(column, scale)
    double = f"({column})::float8"
    return f"(CASE WHEN abs({double}) <= {MAX_SCORE} THEN ({double} * {scale}::float8)::bigint END)"


def _times(column: str, scale: int) -> str:
    return column if scale == 1 else f"({column}::numeric * {scale})"


def _constant(value: tree.ParameterValue, scale: int) -> Sql:
    if isinstance(value, str | tuple):
        return Sql("%s::text", (value,))
    number = scaled(value, scale)
    return Sql(f"({number})" if number < 0 else str(number))


def _fill(template: str, *parts: Sql) -> Sql:
    text = template.format(*(part.text for part in parts))
    return Sql(text, tuple(parameter for part in parts for parameter in part.parameters))


def _join(separator: str, parts: Sequence[Sql]) -> Sql:
    return _fill(f"({separator.join(['{}'] * len(parts))})", *parts)
