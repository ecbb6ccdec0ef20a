"""A tree as canonical JSON, which is what is stored and hashed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fraud.facts import VelocityKey
from fraud.language import tree, values
from fraud.language.errors import LanguageError

_MAX_DEPTH = 80  # of JSON objects; each node of a rule is at most two


def encode(node: tree.Node) -> dict[str, Any]:
    """One object with one key for each node."""
    match node:
        case tree.And(operands):
            return {"and": [encode(operand) for operand in operands]}
        case tree.Or(operands):
            return {"or": [encode(operand) for operand in operands]}
        case tree.Not(operand):
            return {"not": encode(operand)}
        case tree.Compare(operator, left, right) | tree.Arithmetic(operator, left, right):
            return {operator: [encode(left), encode(right)]}
        case tree.Between(subject, low, high):
            return {"between": [encode(subject), encode(low), encode(high)]}
        case tree.Member(subject, choices, negated):
            return {"not in" if negated else "in": [encode(subject), *map(encode, choices)]}
        case tree.Known(operand, negated):
            return {"unknown" if negated else "known": encode(operand)}
        case tree.TextTest(function, subject, needle):
            return {function: [encode(subject), encode(needle)]}
        case _:
            return _encode_operand(node)


def _encode_operand(node: tree.Node) -> dict[str, Any]:
    match node:
        case tree.Number(value):
            return {"number": str(value)}
        case tree.Text(value):
            return {"text": value}
        case tree.Boolean(value):
            return {"boolean": value}
        case tree.Parameter(name):
            return {"parameter": name}
        case tree.Reference(name):
            return {"fact": name}
        case tree.Velocity(key):
            return {"velocity": key.name}
        case tree.Listed():
            return {"in_list": node.name}
        case tree.Amounts(arguments):
            return {"money": [encode(argument) for argument in arguments]}
        case tree.DaysSince(time):
            return {"days_since": encode(time)}
        case tree.Lower(operand):
            return {"lower": encode(operand)}
    raise TypeError(f"{type(node).__name__} is in no finished tree")


def encode_value(value: tree.ParameterValue) -> dict[str, Any]:
    if isinstance(value, tuple):
        return {"texts": list(value)}
    return {"text": value} if isinstance(value, str) else {"number": str(value)}


def decode_value(data: Any) -> tree.ParameterValue:
    """Raises `LanguageError`."""
    match data:
        case {"number": str(text), **rest} if not rest:
            return _number(text)
        case {"text": str(text), **rest} if not rest:
            return text
        case {"texts": [*texts], **rest} if not rest and all(isinstance(text, str) for text in texts):
            return tuple(texts)
    raise _not_a_rule()


def decode(data: Any, parameters: Mapping[str, tree.ParameterValue]) -> tree.Node:
    """The tree as it claims to be: whoever calls this must hold it against its own text. Raises `LanguageError`."""
    return _decode(data, parameters, _MAX_DEPTH)


def _decode(data: Any, parameters: Mapping[str, tree.ParameterValue], depth: int) -> tree.Node:
    if not isinstance(data, dict) or len(data) != 1 or depth <= 0:
        raise _not_a_rule()
    ((key, value),) = data.items()
    match key, value:
        case "parameter", str() if value in parameters:
            return tree.Parameter(value, parameters[value])
        case _, str() | bool() if key in _LEAVES:
            return _LEAVES[key](value)
        case _, dict() | list() if key in _NODES:
            items = value if isinstance(value, list) else [value]
            return _build(key, [_decode(item, parameters, depth - 1) for item in items])
    raise _not_a_rule()


def _build(key: str, items: list[tree.Node]) -> tree.Node:
    wanted, build = _NODES[key]
    if not items or (wanted and len(items) != wanted):
        raise _not_a_rule()
    return build(*items)


def _number(text: str) -> values.Number:
    try:
        number = values.read_number(text.removeprefix("-"))
    except ValueError:
        raise _not_a_rule() from None
    return -number if text.startswith("-") else number


def _velocity(name: str) -> tree.Node:
    try:
        return tree.Velocity(VelocityKey.parse(name))
    except ValueError:
        raise _not_a_rule() from None


def _listed(name: str) -> tree.Node:
    list_name, _, kind = name.partition(".")
    return tree.Listed(list_name, kind)


def _not_a_rule() -> LanguageError:
    return LanguageError("this is not the stored form of a rule")


_LEAVES: dict[str, Callable[[Any], tree.Node]] = {
    "number": lambda value: tree.Number(_number(str(value))),
    "text": lambda value: tree.Text(str(value)),
    "boolean": lambda value: tree.Boolean(value is True),
    "fact": lambda value: tree.Reference(str(value)),
    "velocity": lambda value: _velocity(str(value)),
    "in_list": lambda value: _listed(str(value)),
}
_NODES: dict[str, tuple[int, Callable[..., tree.Node]]] = {  # how many nodes they take, 0: any number
    "and": (0, lambda *items: tree.And(items)),
    "or": (0, lambda *items: tree.Or(items)),
    "not": (1, tree.Not),
    "known": (1, tree.Known),
    "unknown": (1, lambda operand: tree.Known(operand, negated=True)),
    "between": (3, tree.Between),
    "in": (0, lambda *items: tree.Member(items[0], items[1:])),
    "not in": (0, lambda *items: tree.Member(items[0], items[1:], negated=True)),
    "money": (0, lambda *items: tree.Amounts(items)),
    "days_since": (1, tree.DaysSince),
    "lower": (1, tree.Lower),
    **{name: (2, partial(tree.TextTest, name)) for name in ("starts_with", "ends_with", "contains")},
    **{operator: (2, partial(tree.Compare, operator)) for operator in ("==", "!=", "<", "<=", ">", ">=")},
    **{operator: (2, partial(tree.Arithmetic, operator)) for operator in ("+", "-")},
}
