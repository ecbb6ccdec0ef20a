"""How the pages of rule sets say what a rule does, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fraud.admin.ruleset_forms import MODES, OUTCOMES, POLICIES, show_parameter
from fraud.decision import ErrorPolicy, Mode, Outcome
from fraud.models import Rule
from fraud.rules import CODE_RULES
from fraud.rulesets import Change

FIELDS = {
    "name": "Name",
    "code": "Decided by",
    "expression": "Expression",
    "parameters": "Parameters",
    "outcome": "A hit means",
    "points": "Points",
    "mode": "Flag",
    "share": "Share (%)",
    "on_error": "When it cannot tell",
    "position": "Position",
}
KINDS = {"added": ("Added", "success"), "removed": ("Removed", "danger"), "changed": ("Changed", "info")}
MONOSPACED = frozenset({"expression", "parameters"})
QUIET = {
    "code": "",
    "expression": "",
    "parameters": {},
    "points": 0,
    "share": 100,
}  # not told of a new or gone rule


class Line(NamedTuple):
    """One field's difference; "" where there was, or is, nothing."""

    label: str
    before: str
    after: str
    is_code: bool


class Difference(NamedTuple):
    """What became of one rule."""

    name: str
    key: str
    word: str
    tone: str
    lines: list[Line]


class RuleWords(NamedTuple):
    """A rule as a person reads it."""

    source: str
    parameters: str
    outcome: str
    flag: str
    tone: str
    on_error: str


def show_rule(rule: Rule) -> RuleWords:
    source = rule.expression or say("code", rule.code)
    flag = f"Share: {rule.share} %" if rule.mode == Mode.SHARE else rule.get_mode_display()
    tone = {Mode.ON: "success", Mode.SHARE: "info", Mode.SHADOW: "warning"}.get(Mode(rule.mode), "default")
    outcome, policy = OUTCOMES[Outcome(rule.outcome)], POLICIES[ErrorPolicy(rule.on_error)]
    return RuleWords(source, say("parameters", rule.parameters), outcome, flag, tone, policy)


def show_difference(change: Change) -> Difference:
    """In the order of the form. Of a rule that is new or gone, only what says something."""
    names = [name for name in FIELDS if name in change.fields]
    if change.kind != "changed":
        names = [name for name in names if not _is_quiet(name, change.fields[name])]
    lines = [show_line(name, *change.fields[name]) for name in names]
    return Difference(change.name, change.key, *KINDS[change.kind], lines)


def show_line(name: str, before: Any, after: Any) -> Line:
    return Line(FIELDS[name], say(name, before), say(name, after), name in MONOSPACED)


def say(name: str, value: Any) -> str:
    """A field's value in words."""
    if value is None:
        return ""
    match name:
        case "code":
            known = CODE_RULES.get(value)
            return f"Code: {known.label if known else value}" if value else "The expression"
        case "outcome":
            return OUTCOMES[Outcome(value)]
        case "mode":
            return MODES[Mode(value)]
        case "on_error":
            return POLICIES[ErrorPolicy(value)]
        case "parameters" if isinstance(value, Mapping):
            rows = (show_parameter(*item) for item in value.items())
            return "; ".join(f"{row.name} = {row.value}" for row in rows)
    return str(value)


def _is_quiet(name: str, values: tuple[Any, Any]) -> bool:
    value = values[1] if values[0] is None else values[0]
    return name == "name" or (name in QUIET and value == QUIET[name])
