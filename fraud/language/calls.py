"""The functions of the language: each makes one node of its arguments."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from fraud.facts import DIMENSIONS, EVENT_KINDS, Measure, VelocityKey
from fraud.language import tree, values
from fraud.language.errors import LanguageError, quote, suggest
from fraud.language.vocabulary import COUNTRY_SOURCES, LIST_KINDS, LISTS, currencies

Arguments = Sequence[tree.Node]


def build(name: str, arguments: Arguments, column: int) -> tree.Node:
    """The node of `name(arguments)`. Raises `LanguageError`."""
    if name not in _BUILDERS:
        raise LanguageError(f"unknown function {quote(name)}", column, suggest(name, _BUILDERS))
    builder, fewest, most = _BUILDERS[name]
    if not fewest <= len(arguments) <= most:
        wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
        raise LanguageError(f"{name} takes {wanted} arguments, not {len(arguments)}", column)
    if any(isinstance(argument, tree.Broken) for argument in arguments):
        return tree.Broken(column=column)
    return builder(name, arguments, column)


def _velocity(name: str, arguments: Arguments, column: int) -> tree.Node:
    measure = Measure.SUM if name == "velocity_sum" else Measure.COUNT
    dimension = _word(arguments[0], DIMENSIONS, "dimension")
    return tree.Velocity(VelocityKey(dimension, *_window_and_kind(arguments[1:]), measure), column=column)


def _velocity_distinct(name: str, arguments: Arguments, column: int) -> tree.Node:
    dimension, of = (_word(argument, DIMENSIONS, "dimension") for argument in arguments[:2])
    if of == dimension:
        raise LanguageError(f"there is only one {of} for each {dimension}", arguments[1].column)
    key = VelocityKey(dimension, *_window_and_kind(arguments[2:]), Measure.DISTINCT, of)
    return tree.Velocity(key, column=column)


def _window_and_kind(arguments: Arguments) -> tuple[int, str]:
    try:
        seconds = values.read_window(_literal(arguments[0], "window"))
    except ValueError as error:
        raise _at(arguments[0], error) from None
    return seconds, _word(arguments[1], EVENT_KINDS, "kind") if len(arguments) > 1 else "attempt"


def _in_list(name: str, arguments: Arguments, column: int) -> tree.Node:
    kind = _word(arguments[1], LIST_KINDS, "kind") if len(arguments) > 1 else ""
    return tree.Listed(_word(arguments[0], LISTS, "list"), kind, column=column)


def _country(name: str, arguments: Arguments, column: int) -> tree.Node:
    return tree.Reference(f"{_word(arguments[0], COUNTRY_SOURCES, 'country')}_country", column=column)


def _money(name: str, arguments: Arguments, column: int) -> tree.Node:
    amounts, seen = [], set[str]()
    for argument in arguments:
        amounts.append(_exact_amount(argument))
        for text in tree.texts_of(amounts[-1]):
            currency = values.read_amount(text).currency
            if currency in seen:
                raise LanguageError(f"there are two amounts in {currency}", argument.column)
            seen.add(currency)
    return tree.Amounts(tuple(amounts), column=column)


def _exact_amount(argument: tree.Node) -> tree.Text | tree.Parameter:
    """Checked, and a literal with all digits of its currency: `2000.00 USD`."""
    if not isinstance(argument, tree.Text | tree.Parameter) or not tree.texts_of(argument):
        raise LanguageError('money takes amounts with their currency, such as "2000 USD"', argument.column)
    for text in tree.texts_of(argument):
        _check_amount(text, argument.column)
    if isinstance(argument, tree.Parameter):
        return argument
    return tree.Text(str(values.read_amount(argument.value)), column=argument.column)


def _check_amount(text: str, column: int) -> None:
    try:
        values.read_amount(text)
    except ValueError as error:
        digits, _, code = text.partition(" ")
        close = "" if code in currencies() else suggest(code, currencies())
        raise LanguageError(str(error), column, f"{digits} {close}" if close else "") from None


def _days_since(name: str, arguments: Arguments, column: int) -> tree.Node:
    if not isinstance(arguments[0], tree.Reference):
        raise LanguageError("days_since takes a time, such as customer_since", arguments[0].column)
    return tree.DaysSince(arguments[0], column=column)


def _text_test(name: str, arguments: Arguments, column: int) -> tree.Node:
    needle = arguments[1]
    if not isinstance(needle, tree.Text | tree.Parameter) or not isinstance(needle.value, str):
        raise LanguageError(f"{name} looks for one text, written out or a {{parameter}}", needle.column)
    return tree.TextTest(name, arguments[0], needle, column=column)


def _lower(name: str, arguments: Arguments, column: int) -> tree.Node:
    return tree.Lower(arguments[0], column=column)


def _literal(argument: tree.Node, what: str) -> str:
    if not isinstance(argument, tree.Text):
        raise LanguageError(f"the {what} is written out, in quotation marks", argument.column)
    return argument.value


def _word(argument: tree.Node, allowed: Collection[str], what: str) -> str:
    word = _literal(argument, what)
    if word not in allowed:
        raise LanguageError(f"unknown {what} {quote(word)}", argument.column, suggest(word, allowed))
    return word


def _at(argument: tree.Node, error: ValueError) -> LanguageError:
    return LanguageError(str(error), argument.column)


_BUILDERS: dict[str, tuple[Callable[[str, Arguments, int], tree.Node], int, int]] = {
    "velocity": (_velocity, 2, 3),
    "velocity_sum": (_velocity, 2, 3),
    "velocity_distinct": (_velocity_distinct, 3, 4),
    "in_list": (_in_list, 1, 2),
    "money": (_money, 1, 50),
    "country": (_country, 1, 1),
    "days_since": (_days_since, 1, 1),
    "starts_with": (_text_test, 2, 2),
    "ends_with": (_text_test, 2, 2),
    "contains": (_text_test, 2, 2),
    "lower": (_lower, 1, 1),
}
NAMES = tuple(_BUILDERS)
