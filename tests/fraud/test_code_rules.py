"""Rules written as code: their parameters are checked, and they judge where they should."""

from __future__ import annotations

from typing import Any

import pytest

from fraud.facts import FraudContext
from fraud.rules import CODE_RULES, ParameterError, Parameters, register
from payments.decisions import Stage


def judge(parameters: dict[str, Any], amount: int, currency: str) -> bool | None:
    rule = CODE_RULES["high_amount"]
    context = FraudContext(Stage.BEFORE_AUTHORIZATION, amount, currency)
    return rule.judge(context, rule.parameters.from_json(parameters))[0]


@pytest.mark.parametrize(
    ("parameters", "amount", "currency", "is_hit"),
    [
        ({"default": "1000.00"}, 100_000, "EUR", False),
        ({"default": "1000.00"}, 100_001, "EUR", True),
        ({"limits": {"JPY": "150000"}}, 150_001, "JPY", True),
        ({"default": "1000.00"}, 1_000_000, "KWD", False),
        ({"default": "1000.00"}, 1_000_001, "KWD", True),
    ],
)
def test_a_high_amount_is_above_its_currencys_limit(
    parameters: dict[str, Any], amount: int, currency: str, is_hit: bool
) -> None:
    assert judge(parameters, amount, currency) is is_hit


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ([], "must be an object"),
        ({"limit": 1}, "unknown parameter “limit”"),
        ({"default": 1000}, "“default” is 1000"),
        ({"default": "NaN"}, "“default” is 'NaN'"),
        ({"limits": {"XYZ": "1"}}, "not an ISO 4217 currency"),
        ({"limits": {"JPY": "1.50"}}, "limits.JPY"),
    ],
)
def test_wrong_parameters_are_refused_in_words(parameters: Any, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        CODE_RULES["high_amount"].parameters.from_json(parameters)


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="already"):
        register("high_amount", "Twice", Parameters)(CODE_RULES["high_amount"].judge)
