"""The stored form of a rule cannot say what its text could not."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from fraud.language import Expression, LanguageError, parse
from tests.fraud.language.generator import PARAMETERS, make_rule

FACT = {"fact": "is_guest"}
ONE = {"number": "1"}


def stored(rule: Any, **parameters: Any) -> dict[str, Any]:
    return {"version": 1, "parameters": parameters, "rule": rule}


def deep(levels: int) -> dict[str, Any]:
    rule: dict[str, Any] = FACT
    for _ in range(levels):
        rule = {"not": rule}
    return rule


@pytest.mark.parametrize(
    "data",
    [
        None, [], "is_guest", {}, FACT, {"version": 2, "parameters": {}, "rule": FACT},
        {"version": 1, "rule": FACT}, {**stored(FACT), "more": 1}, stored(None), stored({}), stored([FACT]),
        stored({**FACT, "number": "1"}), stored({"eval": "1"}), stored({"fact": "amount or true"}),
        stored({"fact": "__class__"}), stored({"fact": 1}), stored({"fact": ["is_guest"]}), stored({"boolean": 1}),
        stored({"boolean": "true"}), stored({"number": "1"}), stored({"==": [ONE]}), stored({"==": [ONE, ONE, ONE]}),
        stored({"==": [{"number": 1}, ONE]}), stored({"==": [{"number": "01"}, ONE]}),
        stored({"==": [{"number": "1e400"}, ONE]}), stored({"==": [{"number": "NaN"}, ONE]}),
        stored({"==": [{"number": "--1"}, ONE]}), stored({"==": [{"text": True}, {"text": "x"}]}),
        stored({"==": [{"text": "a\x00"}, {"text": "x"}]}), stored({"==": [{"text": "\ud800"}, {"text": "x"}]}),
        stored({"==": [{"fact": "avs"}, {"text": "pas"}]}), stored({"==": [{"fact": "amount"}, ONE]}),
        stored({">": [{"velocity": "card:59"}, ONE]}), stored({">": [{"velocity": "card:3600:attempt"}, ONE]}),
        stored({">": [{"velocity": "card:3600') OR true --"}, ONE]}), stored({">": [{"velocity": "shoe:3600"}, ONE]}),
        stored({">": [{"velocity": 'a"b:3600'}, ONE]}),
        stored({">": [{"velocity": "card:60:attempt:distinct"}, ONE]}),
        stored({"in_list": "black"}), stored({"in_list": "block.email.x"}), stored({"in_list": 'block"'}),
        stored({"and": []}), stored({"and": [FACT]}), stored({"and": [FACT, {"and": [FACT, FACT]}]}),
        stored({"or": [FACT] * 250}), stored({"or": [FACT] * 10_000}), stored(deep(33)), stored(deep(5000)),
        stored({"in": [{"fact": "avs"}]}), stored({"in": [{"fact": "avs"}, {"fact": "cvv"}]}),
        stored({">": [{"fact": "amount"}, {"money": [{"text": "1 USD"}]}]}),
        stored({"money": [{"text": "1.00 USD"}]}),
        stored({">": [{"fact": "amount"}, {"money": [ONE]}]}), stored({"days_since": {"fact": "amount"}}),
        stored({"contains": [{"fact": "card_brand"}, {"fact": "card_brand"}]}), stored({"known": ONE}),
        stored({">": [ONE, {"parameter": "p"}]}), stored({">": [ONE, {"parameter": "p"}]}, p=1),
        stored({">": [ONE, {"parameter": "p"}]}, p={"number": "1", "text": "1"}),
        stored({">": [ONE, {"parameter": "p"}]}, p={"number": "0.50"}),
        stored({">": [ONE, {"parameter": "p"}]}, p={"texts": ["1"]}),
        stored({">": [ONE, {"parameter": "p"}]}, p={"number": "1"}, q={"number": "1"}),
        stored({">": [ONE, {"parameter": "p or true"}]}, **{"p or true": {"number": "1"}}),
        stored({"days_since": [{"fact": "customer_since"}]}), stored({"not": [FACT]}), stored({"lower": ONE}),
    ],
)  # fmt: skip
def test_what_no_text_says_is_refused(data: Any) -> None:
    with pytest.raises(LanguageError):
        Expression.from_json(data)


def test_a_thousand_changed_forms_are_refused_or_canonical() -> None:
    """Whatever is changed in the stored form: it is refused, or it is the exact form of what it now says."""
    random = Random(7)
    for _ in range(1000):
        data = json.loads(json.dumps(parse(make_rule(random, 1), PARAMETERS).to_json()))
        change(random, data)
        try:
            rule = Expression.from_json(data)
        except LanguageError:
            continue
        assert rule.to_json() == data
        assert parse(rule.text, rule.parameters) == rule


def change(random: Random, data: Any) -> None:
    """One value somewhere in it."""
    while isinstance(data, dict | list) and data:
        key = random.choice(list(data)) if isinstance(data, dict) else random.randrange(len(data))
        if not isinstance(data[key], dict | list) or random.random() < 0.2:
            data[key] = random.choice(
                [None, "", "amount", 1, [], {}, FACT, ONE, {"text": "DE"}, "card:60", True]
            )
            return
        data = data[key]
