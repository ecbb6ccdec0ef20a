"""Why a rule answered as it did, in words: the comparisons that mattered, with what they saw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from fraud.facts import FACTS, FactType, FraudContext, Measure, VelocityKey
from fraud.language import tree
from fraud.language.closures import condition_of, value_of
from fraud.language.expression import Expression
from fraud.language.numbers import scale_of
from fraud.language.render import render
from fraud.language.values import format_window
from payments.money import Money

MAX_SHOWN = 200  # characters, as a verdict keeps
_USED = {"attempt": "used", "decline": "declined", "approved": "approved", "chargeback": "disputed"}
_LABELS = {"email": "e-mail", "ip": "IP address", "avs": "AVS", "cvv": "CVV", "three_d_secure": "3-D Secure"}
_PLURALS = {"IP address": "IP addresses", "address": "addresses"}
_FUNCTIONS = {"starts_with": "starts with", "ends_with": "ends with", "contains": "contains"}


@dataclass(frozen=True, slots=True)
class Seen:
    """One comparison: its text, what the order had, what the rule wanted, and how it came out."""

    text: str  # velocity("card", "1h") >= {limit}
    value_text: str  # card used on 6 orders in 1 h
    limit_text: str  # 3; empty where the value says it all
    result: bool | None


Explain = Callable[[FraudContext], tuple[Seen, ...]]
Describe = Callable[[FraudContext], str]


def explain(expression: Expression, context: FraudContext) -> tuple[Seen, ...]:
    """The comparisons that made the answer what it is: of `a or b` that is true, those that are true."""
    return compile_explanation(expression)(context)


def compile_explanation(expression: Expression) -> Explain:
    """`explain` for many orders."""
    return _explain(expression.tree)


def summarize(seen: Iterable[Seen]) -> tuple[str, str]:
    """Value and threshold of a verdict, each at most 200 characters."""
    found = tuple(dict.fromkeys(seen))
    values = dict.fromkeys(each.value_text for each in found)
    limits = dict.fromkeys(each.limit_text for each in found if each.limit_text)
    return _cut("; ".join(values)), _cut("; ".join(limits))


def _explain(node: tree.Node) -> Explain:
    match node:
        case tree.And(operands) | tree.Or(operands):
            return _explain_joined(node, operands)
        case tree.Not(operand):
            return _explain(operand)
        case tree.Compare(_, left, right) if tree.type_of(left) is FactType.BOOLEAN:
            return _explain_all([side for side in (left, right) if not tree.is_constant(side)] or [left])
    return _explain_one(node)


def _explain_joined(node: tree.Node, operands: Sequence[tree.Node]) -> Explain:
    whole = condition_of(node)
    parts = [(condition_of(operand), _explain(operand)) for operand in operands]

    def run(context: FraudContext) -> tuple[Seen, ...]:
        answer = whole(context)
        return tuple(seen for ask, tell in parts if ask(context) is answer for seen in tell(context))

    return run


def _explain_all(nodes: Sequence[tree.Node]) -> Explain:
    parts = [_explain(node) for node in nodes]
    return lambda context: tuple(seen for tell in parts for seen in tell(context))


def _explain_one(node: tree.Node) -> Explain:
    text, condition = render(node), condition_of(node)
    value, limit = _describe_sides(node)
    return lambda context: (Seen(text, _cut(value(context)), _cut(limit(context)), condition(context)),)


def _describe_sides(node: tree.Node) -> tuple[Describe, Describe]:
    match node:
        case tree.Compare():
            return _describe_comparison(node)
        case tree.Between(subject, low, high):
            return _describe(subject), _join(" to ", (low, high))
        case tree.Member(subject, choices):
            return _describe(subject), _join(", ", choices)
        case tree.TextTest(function, subject, needle):
            return _describe(subject), _always(f"{_FUNCTIONS[function]} {needle.value}")
        case tree.Known(operand):
            return _describe(operand), _always("")
    return _describe(node), _always("")


def _describe_comparison(node: tree.Compare) -> tuple[Describe, Describe]:
    left, right, operator = node.left, node.right, node.operator
    if _is_limit(left):
        left, right, operator = right, left, _FLIPPED.get(operator, operator)
    if not _is_limit(right):
        return _join(", ", (left, right)), _always("")
    limit, sign = _describe(right), _SIGNS.get(operator, operator)
    return _describe(left), lambda context: f"{sign} {limit(context)}"


def _is_limit(node: tree.Node) -> bool:
    return isinstance(node, tree.Amounts) or tree.is_constant(node)


def _join(separator: str, nodes: Sequence[tree.Node]) -> Describe:
    parts = [_describe(node) for node in nodes]
    return lambda context: separator.join(part(context) for part in parts)


def _always(text: str) -> Describe:
    return lambda context: text


def _describe(node: tree.Node) -> Describe:
    """The node's value with its name, or a constant alone."""
    match node:
        case tree.Reference(name):
            return _with_label(_label(name), node)
        case tree.DaysSince(time):
            return _with_label(_label(time.name), node, "days ago")
        case tree.Lower(operand):
            return _describe(operand)
        case tree.Arithmetic():
            return _with_label(f"{render(node)} =", node)
        case tree.Velocity(key):
            return _describe_figure(key, value_of(node))
        case tree.Listed():
            return _describe_list(node)
        case tree.Number(value) | tree.Text(value) | tree.Parameter(value=value):
            return _always(", ".join(value) if isinstance(value, tuple) else str(value))
    return _format(node)


def _with_label(label: str, node: tree.Node, unit: str = "") -> Describe:
    value = _format(node)

    def run(context: FraudContext) -> str:
        text = value(context)
        end = "" if text == _UNKNOWN else unit
        return f"{label} {text} {end}".rstrip()

    return run


def _format(node: tree.Node) -> Describe:
    scale, kind = scale_of(node), tree.type_of(node)
    value = value_of(node, scale)
    return lambda context: _format_value(value(context), kind, scale, context)


def _format_value(value: Any, kind: FactType | None, scale: int, context: FraudContext) -> str:
    if value is None:
        return _UNKNOWN
    if kind is FactType.MONEY:
        return _format_money(value, context)
    if kind is FactType.BOOLEAN:
        return "yes" if value else "no"
    return str(value) if scale == 1 else f"{(Decimal(value) / scale).normalize():f}"


def _format_money(minor: int, context: FraudContext) -> str:
    try:
        return str(Money(minor, context.currency))
    except ValueError:  # a sum beyond all bounds, or an order without a currency
        return f"{minor} minor units"


def _describe_figure(key: VelocityKey, value: Callable[[FraudContext], Any]) -> Describe:
    who = _LABELS.get(key.dimension, key.dimension)
    window = format_window(key.seconds)
    end = f"in {window[:-1]} {window[-1]}"

    def run(context: FraudContext) -> str:
        found = value(context)
        if found is None:
            return f"{who} {_UNKNOWN} {end}"
        return f"{who} {_USED[key.kind]} {_count(key, found, context)} {end}"

    return run


def _count(key: VelocityKey, found: int, context: FraudContext) -> str:
    if key.measure is Measure.SUM:
        return f"for {_format_money(found, context)}"
    if key.measure is Measure.COUNT:
        return f"on {found} {'order' if found == 1 else 'orders'}"
    of = _LABELS.get(key.of, key.of)
    return f"with {found} different {of if found == 1 else _PLURALS.get(of, f'{of}s')}"


def _describe_list(node: tree.Listed) -> Describe:
    def run(context: FraudContext) -> str:
        fits = [
            match for match in context.list_matches if node.name in (match.list, f"{match.list}.{match.kind}")
        ]
        if not fits:
            return f"{_label(node.kind)} on no {node.list} list".strip()
        return f"on the {node.list} list: " + ", ".join(
            f"{_label(match.kind)} {match.value}" for match in fits
        )

    return run


def _label(name: str) -> str:
    """`card country` is shown as `card`, since its value is two letters that say what they are."""
    if name in _LABELS:
        return _LABELS[name]
    short = name.removesuffix("_country") if name in FACTS else name
    return short.replace("_", " ").removeprefix("is ")


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


_SIGNS = {"==": "=", "!=": "≠", ">=": "≥", "<=": "≤"}
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_UNKNOWN = "not known"
