"""A tree as its one canonical text; parsing it gives the same tree."""

from __future__ import annotations

from fraud.facts import Measure, VelocityKey
from fraud.language import tree, values

_FUNCTIONS = {Measure.COUNT: "velocity", Measure.SUM: "velocity_sum", Measure.DISTINCT: "velocity_distinct"}
_OR, _AND, _NOT, _COMPARISON, _SUM, _OPERAND = range(6)  # what binds tighter is greater


def render(node: tree.Node) -> str:
    """With no more parentheses than the grammar needs."""
    match node:
        case tree.Or(operands):
            return " or ".join(_inside(operand, _AND) for operand in operands)
        case tree.And(operands):
            return " and ".join(_inside(operand, _NOT) for operand in operands)
        case tree.Not(operand):
            return f"not {_inside(operand, _NOT)}"
        case tree.Compare(operator, left, right):
            return f"{_inside(left, _SUM)} {operator} {_inside(right, _SUM)}"
        case tree.Between(subject, low, high):
            return f"{_inside(subject, _SUM)} between {_inside(low, _SUM)} and {_inside(high, _SUM)}"
        case tree.Known(operand, negated):
            return f"{_inside(operand, _SUM)} is {'unknown' if negated else 'known'}"
        case tree.Member(subject, choices, negated):
            return f"{_inside(subject, _SUM)} {'not in' if negated else 'in'} {_render_choices(choices)}"
        case tree.Arithmetic(operator, left, right):
            return f"{_inside(left, _SUM)} {operator} {_inside(right, _OPERAND)}"
        case _:
            return _render_operand(node)


def _render_operand(node: tree.Node) -> str:
    match node:
        case tree.Number(value):
            return str(value)
        case tree.Text(value):
            return _quote(value)
        case tree.Boolean(value):
            return "true" if value else "false"
        case tree.Parameter(name):
            return f"{{{name}}}"
        case tree.Reference(name):
            return name
        case tree.Velocity(key):
            return _render_velocity(key)
        case tree.Listed(list, kind):
            return _call("in_list", *(_quote(word) for word in (list, kind) if word))
        case tree.Amounts(arguments):
            return _call("money", *map(render, arguments))
        case tree.DaysSince(time):
            return _call("days_since", render(time))
        case tree.TextTest(function, subject, needle):
            return _call(function, render(subject), render(needle))
        case tree.Lower(operand):
            return _call("lower", render(operand))
    return "…"  # broken


def _render_velocity(key: VelocityKey) -> str:
    words = [key.dimension, key.of, values.format_window(key.seconds), key.kind]
    if key.kind == "attempt":
        words.pop()
    return _call(_FUNCTIONS[key.measure], *(_quote(word) for word in words if word))


def _render_choices(choices: tuple[tree.Node, ...]) -> str:
    is_list = (
        len(choices) == 1 and isinstance(choices[0], tree.Parameter) and isinstance(choices[0].value, tuple)
    )
    return render(choices[0]) if is_list else f"({', '.join(map(render, choices))})"


def _inside(node: tree.Node, least: int) -> str:
    """In parentheses if it binds looser than its place asks for."""
    text = render(node)
    return text if _binding(node) >= least else f"({text})"


def _binding(node: tree.Node) -> int:
    match node:
        case tree.Or():
            return _OR
        case tree.And():
            return _AND
        case tree.Not():
            return _NOT
        case tree.Compare() | tree.Between() | tree.Known() | tree.Member():
            return _COMPARISON
        case tree.Arithmetic():
            return _SUM
    return _OPERAND


def _call(function: str, *arguments: str) -> str:
    return f"{function}({', '.join(arguments)})"


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
