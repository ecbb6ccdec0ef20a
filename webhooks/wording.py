"""Says in words what a webhook said, what it did, and how two with one id differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

OUTCOMES = {
    "applied": "applied",
    "noop": "changed nothing: it was known",
    "conflict": "does not fit; the payment needs a review",
    "not_yet": "fits nothing known of the payment yet",
    "unknown_payment": "the payment is not known here yet",
}
ABSENT = "–"


def tell_fact(fact: Mapping[str, str]) -> str:
    """One line for people: `capture captured 129.50 EUR pi_1: applied`."""
    outcome = OUTCOMES.get(fact["outcome"], fact["outcome"])
    words = (fact["kind"], fact["status"], fact.get("amount", ""), fact["reference"])
    return f"{' '.join(filter(None, words))}: {outcome}"


def list_differences(one: Any, other: Any) -> list[tuple[str, str, str]]:
    """Where two JSON values differ: the path such as `data.object.amount`, and both values as text."""
    first, second = dict(_flatten(one)), dict(_flatten(other))
    paths = [*first, *(path for path in second if path not in first)]
    pairs = ((path, first.get(path, ABSENT), second.get(path, ABSENT)) for path in paths)
    return [(path, before, after) for path, before, after in pairs if before != after]


def _flatten(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, member in value.items():
            yield from _flatten(member, f"{path}.{name}" if path else str(name))
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        for index, member in enumerate(value):
            yield from _flatten(member, f"{path}[{index}]")
    else:
        yield path, repr(value) if isinstance(value, str) else str(value)
