"""Each built-in rule, by tables of facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fraud.facts import FraudContext, ListMatch, MissingFactError
from fraud.rules import KINDS, Finding, Hit, ParameterError
from payments.decisions import Stage

CONTEXT = FraudContext(stage=Stage.BEFORE_AUTHORIZATION, amount=100_000, currency="EUR")
BLOCKED = ListMatch("block", "email", "b***@example.com")


def evaluate(kind: str, parameters: dict[str, Any], **facts: Any) -> Finding:
    rule = KINDS[kind]
    return rule.evaluate(replace(CONTEXT, **facts), rule.parameters.from_json(parameters))


@pytest.mark.parametrize(
    ("kind", "parameters", "facts", "is_hit"),
    [
        ("blocklist", {}, {"list_matches": (BLOCKED,)}, True),
        ("blocklist", {}, {"list_matches": ()}, False),
        ("blocklist", {"list": "review"}, {"list_matches": (BLOCKED,)}, False),
        ("avs", {}, {"avs": "fail"}, True),
        ("avs", {}, {"avs": "unavailable"}, False),
        ("avs", {"hit_on": ["fail", "unavailable"]}, {"avs": "unavailable"}, True),
        ("cvv", {}, {"cvv": "fail"}, True),
        ("cvv", {}, {"cvv": "pass"}, False),
        ("velocity", {"limit": 4}, {"velocity": {"card:3600": 4}}, False),
        ("velocity", {"limit": 4}, {"velocity": {"card:3600": 5}}, True),
        (
            "velocity",
            {"dimension": "ip", "limit": 1, "window_seconds": 60},
            {"velocity": {"ip:60": 2, "ip:3600": 1}},
            True,
        ),
        ("country_mismatch", {}, {"billing_country": "DE", "shipping_country": "DE"}, False),
        ("country_mismatch", {}, {"billing_country": "DE", "shipping_country": "FR"}, True),
        (
            "country_mismatch",
            {"between": ["card", "billing", "ip"]},
            {"card_country": "DE", "billing_country": "DE", "ip_country": "US"},
            True,
        ),
        ("high_amount", {"default": "1000.00"}, {"amount": 100_000}, False),
        ("high_amount", {"default": "1000.00"}, {"amount": 100_001}, True),
        ("high_amount", {"limits": {"JPY": "150000"}}, {"amount": 150_001, "currency": "JPY"}, True),
        ("high_amount", {"default": "1000.00"}, {"amount": 1_000_000, "currency": "KWD"}, False),
        ("high_amount", {"default": "1000.00"}, {"amount": 1_000_001, "currency": "KWD"}, True),
        ("score", {"threshold": 50}, {"score": 49}, False),
        ("score", {"threshold": 50}, {"score": 50}, True),
    ],
)
def test_a_rule_hits_exactly_where_it_should(
    kind: str, parameters: dict[str, Any], facts: dict[str, Any], is_hit: bool
) -> None:
    assert isinstance(evaluate(kind, parameters, **facts), Hit) is is_hit


@pytest.mark.parametrize("kind", ["avs", "cvv", "velocity", "country_mismatch"])
def test_a_missing_fact_is_said_and_not_passed(kind: str) -> None:
    with pytest.raises(MissingFactError):
        evaluate(kind, {})


def test_a_finding_says_what_it_saw_and_its_limit() -> None:
    finding = evaluate("velocity", {"limit": 4}, velocity={"card:3600": 6})
    assert (finding.value, finding.threshold) == ("card used on 6 orders", "limit 4 in 1 h")
    finding = evaluate("high_amount", {"default": "1000"}, amount=150_050)
    assert (finding.value, finding.threshold) == ("1500.50 EUR", "limit 1000.00 EUR")


@pytest.mark.parametrize(
    ("kind", "parameters", "words"),
    [
        ("velocity", {"limt": 3}, "unknown parameter “limt”"),
        ("velocity", {"limit": "4"}, "whole number"),
        ("velocity", {"limit": True}, "whole number"),
        ("velocity", {"limit": 0}, "whole number"),
        ("velocity", {"dimension": "shoe size"}, "must be one of: card, email"),
        ("velocity", {"window_seconds": 10**9}, "from 60 to 86400"),
        ("velocity", [], "must be an object"),
        ("avs", {"hit_on": []}, "at least 1"),
        ("avs", {"hit_on": ["maybe"]}, "must be one of"),
        ("country_mismatch", {"between": ["card"]}, "at least 2"),
        ("high_amount", {"default": 1000.0}, "must be a string"),
        ("high_amount", {"default": "NaN"}, "must be a string"),
        ("high_amount", {"limits": {"EURO": "1"}}, "not an ISO 4217 currency"),
        ("high_amount", {"limits": {"JPY": "10.50"}}, "not a whole number of minor units"),
        ("blocklist", {"list": "allow"}, "must be one of"),
        ("score", {"threshold": -1}, "whole number"),
    ],
)
def test_wrong_parameters_are_refused_in_words(kind: str, parameters: Any, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        KINDS[kind].parameters.from_json(parameters)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_working_defaults_and_a_stage(kind: str) -> None:
    assert KINDS[kind].stages(KINDS[kind].parameters.from_json({}))


def test_a_country_rule_waits_for_the_card_if_it_needs_it() -> None:
    kind = KINDS["country_mismatch"]
    assert kind.stages(kind.parameters.from_json({})) == {Stage.BEFORE_AUTHORIZATION}
    needs_card = kind.parameters.from_json({"between": ["card", "billing"]})
    assert kind.stages(needs_card) == {Stage.AFTER_AUTHORIZATION}
