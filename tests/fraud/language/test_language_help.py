"""What the editor offers, and that the docs speak of all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fraud.facts import DIMENSIONS, EVENT_KINDS, FACTS
from fraud.language import calls, parse
from fraud.language.help import FUNCTIONS, WINDOWS, Function, complete
from fraud.language.vocabulary import LIST_KINDS
from fraud.models import ListEntry

DOCS = (Path(__file__).resolve().parents[3] / "docs" / "rule-language.md").read_text()


def offered(text: str) -> list[str]:
    return [each.text for each in complete(text, len(text), ["limit", "countries"])]


@pytest.mark.parametrize(
    ("text", "first", "start"),
    [
        ("am", "amount", 0),
        ("is_guest and card_f", "card_funding", 13),
        ("amount >= mon", "money(", 10),
        ("is_guest an", "and", 9),
        ("velocity(", '"card"', 9),
        ('velocity("', '"card"', 9),
        ('velocity("card", "', '"10m"', 17),
        ('velocity_distinct("card", "1h", "', '"10m"', 32),
        ('velocity("card", "1h", "de', '"decline"', 23),
        ('in_list("review", ', '"email"', 18),
        ('country("sh', '"shipping"', 8),
        ('avs == "un', '"unavailable"', 7),
        ('card_country in ("DE", "A', '"AD"', 23),
        ('currency not in ("EU', '"EUR"', 17),
        ("orders_before > {", "{countries}", 16),
        ("orders_before > {li", "{limit}", 16),
        ("days_since(", "customer_since", 11),
        ("lower(card_b", "card_brand", 6),
    ],
)
def test_what_can_stand_at_the_cursor(text: str, first: str, start: int) -> None:
    best = complete(text, len(text), ["limit", "countries"])[0]
    assert (best.text, best.start) == (first, start)


@pytest.mark.parametrize("text", ['card_brand == "vi', 'contains(email_domain, "am', "amount >= zz"])
def test_nothing_is_offered_where_anything_can_stand(text: str) -> None:
    assert offered(text) == []


def test_only_what_fits_is_offered_inside_a_call() -> None:
    assert offered("days_since(") == ["customer_since", "first_order_at"]
    assert set(offered('velocity("')) == {f'"{dimension}"' for dimension in DIMENSIONS}


def test_the_text_behind_the_cursor_does_not_count() -> None:
    assert complete('am and avs == "x', 2)[0].text == "amount"


def test_the_help_speaks_of_every_function_with_an_example_that_works() -> None:
    assert {function.name for function in FUNCTIONS} == set(calls.NAMES)
    for function in FUNCTIONS:
        assert function.name in parse(function.example).text or function.name == "country"
    assert all(parse(f'velocity("card", "{window}") > 1') for window in WINDOWS)


def test_every_kind_of_list_entry_can_be_asked_for() -> None:
    assert set(ListEntry.Kind.values) <= set(LIST_KINDS)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_the_docs_explain_the_function(function: Function) -> None:
    assert f"| `{function.signature}` | `{function.example}` |" in DOCS


def test_the_docs_explain_every_fact_and_no_other() -> None:
    table = DOCS.partition("## Facts")[2].partition("\n## ")[0]
    rows = dict(row.strip("| ").split(" | ", 1) for row in table.splitlines() if row.startswith("| `"))
    known = {
        f"`{fact.name}`": f"{fact.type.value} | {fact.stage.value} | {fact.help}" for fact in FACTS.values()
    }
    assert rows == known


@pytest.mark.parametrize("word", [*DIMENSIONS, *EVENT_KINDS, *LIST_KINDS])
def test_the_docs_name_every_word(word: str) -> None:
    assert f"`{word}`" in DOCS
