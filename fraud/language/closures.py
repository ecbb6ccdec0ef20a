"""Rules as nested Python functions, chosen by the shape of each node: the live path, well below a microsecond.

Each takes a `FraudContext` and gives True, False or None (unknown); none of them raises for a fact that is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from operator import attrgetter, eq, ge, gt, le, lt, ne
from typing import Any, TypeGuard

from fraud.facts import FACTS, FactType, FraudContext
from fraud.language import shapes, tree, values
from fraud.language.expression import Expression
from fraud.language.numbers import MAX_SCORE, MILLION, scale_of, scaled
from fraud.language.vocabulary import FRACTIONS

Condition = Callable[[FraudContext], bool | None]
Value = Callable[[FraudContext], Any]
_NOBODY: Any = None  # constants need no context


def compile_expression(expression: Expression) -> Condition:
    """The rule as a function of one order's facts. None means that it cannot tell."""
    return condition_of(expression.tree)


def condition_of(node: tree.Node) -> Condition:
    """The function of a node that is a condition."""
    condition = _shape(node)
    return shapes.always(condition(_NOBODY)) if tree.is_constant(node) else condition


def _shape(node: tree.Node) -> Condition:
    match node:
        case tree.And(operands):
            return _join(operands, absorbing=False)
        case tree.Or(operands):
            return _join(operands, absorbing=True)
        case tree.Not(operand):
            return shapes.opposite(condition_of(operand))
        case tree.Compare():
            return _compare(node)
        case tree.Between(subject, low, high):
            scale = scale_of(subject, low, high)
            return shapes.between(*(value_of(part, scale) for part in (subject, low, high)))
        case tree.Member(subject, choices, negated):
            return _member(subject, choices, negated)
        case tree.Known(operand, negated):
            return (shapes.unknown if negated else shapes.known)(value_of(operand, scale_of(operand)))
        case tree.TextTest(function, subject, needle):
            return shapes.TEXT_TESTS[function](value_of(subject), values.lower(str(needle.value)))
        case tree.Listed():
            return shapes.listed(node.name)
        case tree.Boolean(value):
            return shapes.always(value)
        case tree.Reference(name):
            return attrgetter(name)
    raise TypeError(f"{type(node).__name__} is no condition")


def _join(operands: Sequence[tree.Node], *, absorbing: bool) -> Condition:
    """And (absorbed by False) or or (absorbed by True); constants that change nothing are left out."""
    two, many = (shapes.either, shapes.any_of) if absorbing else (shapes.both, shapes.all_of)
    kept = [operand for operand in operands if operand != tree.Boolean(not absorbing)]
    if tree.Boolean(absorbing) in kept:
        return shapes.always(absorbing)
    conditions = tuple(map(condition_of, kept))
    match conditions:
        case ():
            return shapes.always(not absorbing)
        case (only,):
            return only
        case (first, second):
            return (absorbing and _either_text_equals(kept)) or two(first, second)
        case (first, second, third) if not absorbing:
            return shapes.all_three(first, second, third)
    return many(conditions)


def _either_text_equals(operands: Sequence[tree.Node]) -> Condition | None:
    """Of two texts beside constants one closure, half as dear as two within a third."""
    match operands:
        case (
            tree.Compare("==", tree.Reference() as one, tree.Text(one_limit)),
            tree.Compare("==", tree.Reference() as other, tree.Text(other_limit)),
        ) if one_limit and other_limit:
            return shapes.either_text_equals(attrgetter(one.name, other.name), one_limit, other_limit)
    return None


def _member(subject: tree.Node, choices: Sequence[tree.Node], negated: bool) -> Condition:
    scale = scale_of(subject, *choices)
    constants = _constants(choices, scale)
    if _is_text_fact(subject):
        return (shapes.text_not_member if negated else shapes.text_member)(
            attrgetter(subject.name), constants
        )
    return (shapes.not_member if negated else shapes.member)(value_of(subject, scale), constants)


def _compare(node: tree.Compare) -> Condition:
    scale = scale_of(node.left, node.right)
    operator, left, right = node.operator, node.left, node.right
    if tree.is_constant(left):
        operator, left, right = _MIRRORED[operator], right, left
    if tree.is_constant(right):
        return _compare_with_constant(operator, left, value_of(right, scale)(_NOBODY), scale)
    if isinstance(right, tree.Amounts) and left == tree.Reference("amount"):
        return shapes.AMOUNT_AGAINST_LIMITS[operator](right.by_currency)
    if _is_text_fact(left) and _is_text_fact(right):
        return shapes.TWO_TEXTS[operator](attrgetter(left.name, right.name))
    return shapes.two_values(_FUNCTIONS[operator], value_of(left, scale), value_of(right, scale))


def _compare_with_constant(operator: str, left: tree.Node, limit: Any, scale: int) -> Condition:
    if isinstance(left, tree.Velocity) and scale == 1:
        return shapes.FIGURE_AGAINST_CONSTANT[operator](left.key.name, limit)
    if _is_text_fact(left):
        return shapes.TEXT_AGAINST_CONSTANT[operator](attrgetter(left.name), limit)
    return shapes.VALUE_AGAINST_CONSTANT[operator](value_of(left, scale), limit)


def _is_text_fact(node: tree.Node) -> TypeGuard[tree.Reference]:
    return isinstance(node, tree.Reference) and FACTS[node.name].type is FactType.TEXT


_MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_FUNCTIONS = {"==": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}


def value_of(node: tree.Node, scale: int = 1) -> Value:
    """The node's value, multiplied by the scale if it is a number; None when it is unknown."""
    match node:
        case tree.Reference(name):
            return _fact(name, scale)
        case tree.Velocity(key):
            return shapes.figure(key.name, scale if tree.type_of(node) is FactType.NUMBER else 1)
        case tree.Number(value) | tree.Text(value) | tree.Parameter(value=value):
            return shapes.always(_plain(value, scale))
        case tree.Amounts():
            return shapes.amount_of(node.by_currency)
        case tree.DaysSince(time):
            return shapes.days_since(attrgetter(time.name), scale)
        case tree.Lower(operand):
            return shapes.lowered(value_of(operand))
        case tree.Arithmetic(operator, left, right):
            return (shapes.plus if operator == "+" else shapes.minus)(
                value_of(left, scale), value_of(right, scale)
            )
    return condition_of(node)


def _fact(name: str, scale: int) -> Value:
    get = attrgetter(name)
    match FACTS[name].type:
        case FactType.TEXT:
            return shapes.text(get)
        case FactType.NUMBER if name in FRACTIONS:
            return shapes.millionths(get, MILLION, MAX_SCORE) if scale != 1 else shapes.not_nan(get)
        case FactType.NUMBER if scale != 1:
            return shapes.times(get, scale)
    return get


def _plain(value: tree.ParameterValue, scale: int) -> Any:
    """A constant as it is compared: a fraction as the double that is nearest, which 15 digits tell apart."""
    if isinstance(value, str | tuple):
        return value
    number = scaled(value, scale)
    return float(number) if isinstance(number, Decimal) else number


def _constants(nodes: Sequence[tree.Node], scale: int) -> frozenset[Any]:
    found = (
        _plain(node.value, scale)
        for node in nodes
        if isinstance(node, tree.Number | tree.Text | tree.Parameter)
    )
    return frozenset(item for value in found for item in (value if isinstance(value, tuple) else (value,)))
