"""Rules as polars expressions over frames of past orders: null where a rule cannot tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from operator import and_, eq, ge, gt, le, lt, ne, or_

import polars as pl

from fraud.facts import FACTS, FactType
from fraud.language import tree, values
from fraud.language.expression import Expression
from fraud.language.numbers import MAX_SCORE, scale_of, scaled
from fraud.language.shapes import DAY
from fraud.language.sql import from_json
from fraud.language.vocabulary import FRACTIONS

_COMPARE = {"==": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}
_UPPER = [chr(code) for code in range(ord("A"), ord("Z") + 1)]
_LOWER = [letter.lower() for letter in _UPPER]
_DTYPES: Mapping[FactType, pl.DataType] = {
    FactType.NUMBER: pl.Int64(),
    FactType.MONEY: pl.Int64(),
    FactType.TIME: pl.Int64(),
    FactType.TEXT: pl.String(),
    FactType.BOOLEAN: pl.Boolean(),
}


@dataclass(frozen=True, slots=True)
class Column:
    """What a frame needs: its name and type there, and where it comes from in a jsonb context."""

    name: str
    dtype: pl.DataType
    sql: str


def columns(expressions: Iterable[Expression], row: str = "context") -> dict[str, Column]:
    """All that these rules ask for, by name, in a stable order: facts, `card:3600`, `listed.block.email`.

    Select each column's `sql` from the table that has the jsonb column `row`; load "" as null.
    """
    names = {
        name for expression in expressions for node in tree.walk(expression.tree) for name in _needs(node)
    }
    resolve = from_json(row)
    return {name: Column(name, _dtype(name), _column_sql(name, resolve(name))) for name in sorted(names)}


def to_polars(expression: Expression) -> pl.Expr:
    """The rule as a boolean expression over a frame with the columns that `columns` names.

    A rule of constants alone is one literal: `with_columns` and `filter` repeat it for each row, `select` may not.
    """
    return _condition(expression.tree)


def _needs(node: tree.Node) -> tuple[str, ...]:
    match node:
        case tree.Reference(name):
            return (name,)
        case tree.Velocity(key):
            return (key.name,)
        case tree.Listed():
            return (f"listed.{node.name}",)
        case tree.Amounts():
            return ("currency",)
        case tree.DaysSince():
            return ("assessed_at",)
    return ()


def _dtype(name: str) -> pl.DataType:
    if name.startswith("listed."):
        return pl.Boolean()
    if name in FRACTIONS:
        return pl.Float64()
    return _DTYPES[FACTS[name].type] if name in FACTS else pl.Int64()


def _column_sql(name: str, sql: str) -> str:
    return f"{sql}::float8" if name in FRACTIONS else sql


def _condition(node: tree.Node) -> pl.Expr:
    match node:
        case tree.And(operands):
            return reduce(and_, map(_condition, operands))
        case tree.Or(operands):
            return reduce(or_, map(_condition, operands))
        case tree.Not(operand):
            return ~_condition(operand)
        case tree.Compare(operator, left, right):
            scale = scale_of(left, right)
            answer: pl.Expr = _COMPARE[operator](_value(left, scale), _value(right, scale))
            return answer
        case tree.Between(subject, low, high):
            scale = scale_of(subject, low, high)
            found = _value(subject, scale)
            return (found >= _value(low, scale)) & (found <= _value(high, scale))
        case tree.Member(subject, choices, negated):
            scale = scale_of(subject, *choices)
            found = _is_member(_value(subject, scale), choices, scale)
            return ~found if negated else found
        case tree.Known(operand, negated):
            found = _value(operand, scale_of(operand))
            return found.is_null() if negated else found.is_not_null()
        case tree.TextTest(function, subject, needle):
            return _text_test(function, _lower(_value(subject)), values.lower(str(needle.value)))
        case tree.Listed():
            return pl.col(f"listed.{node.name}")
        case tree.Boolean(value):
            return pl.lit(value)
        case tree.Reference(name):
            return pl.col(name)
    raise TypeError(f"{type(node).__name__} is no condition")


def _value(node: tree.Node, scale: int = 1) -> pl.Expr:
    """The node's value, multiplied by the scale if it is a number."""
    match node:
        case tree.Reference(name):
            return _fact(name, scale)
        case tree.Velocity(key):
            is_number = tree.type_of(node) is FactType.NUMBER
            return _times(pl.col(key.name), scale if is_number else 1)
        case tree.Number(value) | tree.Text(value) | tree.Parameter(value=value):
            return _constant(value, scale)
        case tree.Amounts():
            return _limit(node.by_currency)
        case tree.DaysSince(time):
            at = pl.col("assessed_at")
            return _times((pl.when(at != 0).then(at) - pl.col(time.name)) // DAY, scale)
        case tree.Lower(operand):
            return _lower(_value(operand))
        case tree.Arithmetic(operator, left, right):
            one, other = (_value(side, scale).cast(pl.Int128) for side in (left, right))
            return one + other if operator == "+" else one - other
    return _condition(node)


def _fact(name: str, scale: int) -> pl.Expr:
    column = pl.col(name)
    if name in FRACTIONS:
        score = column.fill_nan(None)
        return _millionths(score, scale) if scale != 1 else score
    return _times(column, scale) if FACTS[name].type is FactType.NUMBER else column


def _millionths(score: pl.Expr, scale: int) -> pl.Expr:
    whole = (score * float(scale)).round(0, mode="half_to_even")
    return pl.when(score.abs() <= MAX_SCORE).then(whole).cast(pl.Int128)


def _times(number: pl.Expr, scale: int) -> pl.Expr:
    return number if scale == 1 else number.cast(pl.Int128) * pl.lit(scale, pl.Int128)


def _constant(value: tree.ParameterValue, scale: int) -> pl.Expr:
    if isinstance(value, str | tuple):
        return pl.lit(value)
    number = scaled(value, scale)
    if isinstance(number, Decimal):
        return pl.lit(float(number))
    return pl.lit(number, pl.Int64 if scale == 1 else pl.Int128)


def _limit(by_currency: Mapping[str, int]) -> pl.Expr:
    old, new = list(by_currency), list(by_currency.values())
    return pl.col("currency").replace_strict(old, new, default=None, return_dtype=pl.Int64)


def _is_member(found: pl.Expr, choices: tuple[tree.Node, ...], scale: int) -> pl.Expr:
    constants = [node for node in choices if isinstance(node, tree.Number | tree.Text | tree.Parameter)]
    texts = [text for node in constants if not isinstance(node, tree.Number) for text in tree.texts_of(node)]
    if texts:
        return found.is_in(texts)
    return reduce(or_, (found == _constant(node.value, scale) for node in constants))


def _lower(text: pl.Expr) -> pl.Expr:
    """A to Z only: polars would lower every letter of Unicode."""
    return text.str.replace_many(_UPPER, _LOWER)


def _text_test(function: str, text: pl.Expr, needle: str) -> pl.Expr:
    match function:
        case "starts_with":
            return text.str.starts_with(needle)
        case "ends_with":
            return text.str.ends_with(needle)
    return text.str.contains(needle, literal=True)
