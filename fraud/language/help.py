"""What an editor of rules shows: every function explained, and what can stand at the cursor."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fraud.facts import DIMENSIONS, EVENT_KINDS, FACTS, FactType
from fraud.language.lexer import MAX_LENGTH
from fraud.language.vocabulary import COUNTRY_SOURCES, KEYWORDS, LIST_KINDS, LISTS, possible_values

WINDOWS = ("10m", "1h", "24h", "7d", "30d")
_MOST = 50  # completions


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the language."""

    name: str
    signature: str
    help: str
    example: str


@dataclass(frozen=True, slots=True)
class Completion:
    """Put `text` in place of what stands from `start` (0-based) to the cursor. `kind` is for an icon or a colour."""

    text: str
    kind: str  # fact | function | keyword | word | parameter
    help: str
    start: int


FUNCTIONS = (
    Function(
        "velocity",
        "velocity(dimension, window[, kind])",
        "How many orders in the window had the same card, e-mail, ... as this one, which is counted too.",
        'velocity("card", "1h") >= 4',
    ),
    Function(
        "velocity_sum",
        "velocity_sum(dimension, window[, kind])",
        "What those orders cost together, in this order's currency.",
        'velocity_sum("email", "24h") > money("500 EUR")',
    ),
    Function(
        "velocity_distinct",
        "velocity_distinct(dimension, of, window[, kind])",
        "How many different values of another dimension those orders had.",
        'velocity_distinct("ip", "card", "24h") >= 5',
    ),
    Function(
        "in_list",
        "in_list(list[, kind])",
        "Whether something of this order is on the block, allow or review list.",
        'in_list("review", "email")',
    ),
    Function(
        "money",
        "money(amount, ...)",
        "An amount, one for each currency; unknown for an order in another. Takes parameters too.",
        'amount >= money("2000 USD", "1800 EUR")',
    ),
    Function(
        "country",
        "country(source)",
        "The country of the card, the billing address, the shipping address or the IP address.",
        'country("card") != country("ip")',
    ),
    Function(
        "days_since",
        "days_since(time)",
        "Whole days from that time to the screening, rounded down.",
        "days_since(customer_since) < 7",
    ),
    Function(
        "starts_with",
        "starts_with(text, needle)",
        "Whether the text begins so; A to Z in either case are the same.",
        'starts_with(email_domain, "mail.")',
    ),
    Function(
        "ends_with",
        "ends_with(text, needle)",
        "Whether the text ends so; A to Z in either case are the same.",
        'ends_with(email_domain, ".example")',
    ),
    Function(
        "contains",
        "contains(text, needle)",
        "Whether the text has this in it; A to Z in either case are the same.",
        'contains(email_domain, "temp")',
    ),
    Function(
        "lower",
        "lower(text)",
        "The text with A to Z in lower case; other letters stay.",
        'lower(card_brand) == "visa"',
    ),
)


def _facts_of(kind: FactType) -> tuple[str, ...]:
    return tuple(name for name, fact in FACTS.items() if fact.type is kind)


# What each argument can be: words in quotation marks, or facts by name.
_WORDS: Mapping[str, Sequence[Sequence[str]]] = {
    "velocity": (DIMENSIONS, WINDOWS, EVENT_KINDS),
    "velocity_sum": (DIMENSIONS, WINDOWS, EVENT_KINDS),
    "velocity_distinct": (DIMENSIONS, DIMENSIONS, WINDOWS, EVENT_KINDS),
    "in_list": (LISTS, LIST_KINDS),
    "country": (COUNTRY_SOURCES,),
}
_FACT_ARGUMENTS: Mapping[str, Sequence[str]] = {
    "days_since": _facts_of(FactType.TIME),
    **{name: _facts_of(FactType.TEXT) for name in ("starts_with", "ends_with", "contains", "lower")},
}
_TEXT = r'"(?:[^"\\]|\\.)*"'
_CLOSED = re.compile(_TEXT)
_CALL = re.compile(rf'([a-z_]+)\(\s*((?:{_TEXT}\s*,\s*){{0,4}})(?:"([^"\\]*))?\Z')
_COMPARED = re.compile(r'([a-z_]+)\s*(?:==|!=)\s*(?:"([^"\\]*))?\Z')
_AMONG = re.compile(rf'([a-z_]+)\s+(?:not\s+)?in\s*\(\s*(?:{_TEXT}\s*,\s*){{0,50}}(?:"([^"\\]*))?\Z')
_WORD = re.compile(r"\{?[A-Za-z_0-9]*\Z")
_REACH = 400  # characters before the cursor that are looked at, which bounds the work


def complete(text: str, cursor: int, parameters: Iterable[str] = ()) -> list[Completion]:
    """What can stand at the cursor (0-based), best first; nothing inside a text that may be anything."""
    before = text[:MAX_LENGTH][: max(0, cursor)]
    near = before[-_REACH:]
    words, typed = _expected_words(near)
    if words:
        return _complete_words(words, typed, len(before))
    if typed is not None or _is_inside_text(before):
        return []
    start = _WORD.search(before)
    word = start[0] if start else ""
    return _complete_names(word, near, len(before) - len(word), parameters)


def _expected_words(near: str) -> tuple[Sequence[str], str | None]:
    """The texts that can stand here, and what of one is typed already: with its quotation mark, None without."""
    if (call := _CALL.search(near)) and call[1] in _WORDS:
        position = len(_CLOSED.findall(call[2]))
        choices = _WORDS[call[1]]
        return (choices[position] if position < len(choices) else ()), call[3]
    for pattern in (_COMPARED, _AMONG):
        if (found := pattern.search(near)) and (values := possible_values(found[1])):
            return sorted(values), found[2]
    return (), None


def _is_inside_text(before: str) -> bool:
    return '"' in _CLOSED.sub("", before)


def _complete_words(words: Sequence[str], typed: str | None, cursor: int) -> list[Completion]:
    start = cursor - len(typed) - 1 if typed is not None else cursor
    fits = [word for word in words if word.lower().startswith((typed or "").lower())]
    return [Completion(f'"{word}"', "word", "", start) for word in fits[:_MOST]]


def _complete_names(word: str, near: str, start: int, parameters: Iterable[str]) -> list[Completion]:
    if word.startswith("{"):
        names = sorted(name for name in parameters if name.startswith(word[1:]))
        return [Completion(f"{{{name}}}", "parameter", "", start) for name in names[:_MOST]]
    call = re.search(r"([a-z_]+)\(\Z", near[: len(near) - len(word)])
    allowed = _FACT_ARGUMENTS.get(call[1]) if call else None
    found = [
        Completion(fact.name, "fact", fact.help, start)
        for fact in FACTS.values()
        if allowed is None or fact.name in allowed
    ]
    if allowed is None:
        found += [Completion(f"{each.name}(", "function", each.help, start) for each in FUNCTIONS]
        found += [Completion(keyword, "keyword", "", start) for keyword in KEYWORDS]
    return [each for each in found if each.text.startswith(word.lower())][:_MOST]
