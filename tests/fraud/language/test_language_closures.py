"""The one null rule: what is not known makes a comparison unknown, and only `is known` answers it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fraud.facts import FraudContext, ListMatch
from fraud.language import parse
from fraud.language.closures import compile_expression
from payments.decisions import Stage

DAY = 86_400
CONTEXT = FraudContext(
    stage=Stage.AFTER_AUTHORIZATION, amount=250_000, currency="USD", assessed_at=100 * DAY, card_country="US",
    avs="fail",
    is_guest=True, is_saved_card=False, orders_before=3, model_score=0.3, customer_since=97 * DAY + 1,
    email_domain="Mail.EXAMPLE", velocity={"card:3600": 4, "card:86400:attempt:sum": 300_000},
    list_matches=(ListMatch("block", "email", "b***@example.com"),),
)  # fmt: skip
PARAMETERS: dict[str, Any] = {
    "limits": ["2000 USD", "1800 EUR"],
    "low": "5 EUR",
    "countries": ["US", "DE"],
    "n": 3,
}


def answer(text: str, **facts: Any) -> bool | None:
    return compile_expression(parse(text, PARAMETERS))(replace(CONTEXT, **facts))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('avs == "fail"', True), ('avs != "fail"', False), ('cvv == "fail"', None), ('cvv != "fail"', None),
        ("cvv is unknown", True), ("cvv is known", False), ("avs is known", True), ("not cvv is known", True),
        ('cvv in ("fail")', None), ('cvv not in ("fail")', None), ("card_country in {countries}", True),
        ("is_guest", True), ("is_same_postcode", None), ("not is_same_postcode", None), ("not is_saved_card", True),
        ("is_same_postcode and false", False), ("is_same_postcode or true", True), ("is_same_postcode == true", None),
        ("is_same_postcode and is_guest", None), ("is_guest and is_same_postcode", None),
        ("is_same_postcode and is_saved_card", False), ("is_saved_card and is_same_postcode", False),
        ("is_same_postcode or is_guest", True), ("is_saved_card or is_same_postcode", None),
        ("is_same_postcode and is_guest and is_saved_card", False),
        ("is_guest and is_guest and is_same_postcode", None),
        ("is_saved_card or is_same_postcode or is_saved_card", None),
        ("is_saved_card or is_same_postcode or is_guest", True),
        ("card_country != billing_country", None), ("card_country == card_country", True),
        ("orders_before between 3 and 3", True), ("orders_before between 4 and paid_before", False),
        ("orders_before between 1 and paid_before", None), ("paid_before between 1 and 0", None),
        ("orders_before - 1 == 2", True), ("orders_before + paid_before == 2", None), ("3 <= orders_before", True),
        ("orders_before < 2.5", False), ("orders_before in (1, {n})", True), ("orders_before - 3 == -0", True),
        ('amount >= money("2500 USD")', True), ('amount > money("2500 USD")', False),
        ('amount > money("1 EUR")', None),
        ("amount > money({limits})", True), ("amount > money({low})", None), ("money({low}) is unknown", True),
        ('amount + money("0.01 USD") > money("2500 USD")', True), ('money("3000 USD") > amount', True),
        ('amount between money("1 USD") and money("2500 USD")', True), ('amount != money("1 JPY")', None),
        ('velocity("card", "1h") >= 4', True), ('velocity("card", "1h") + 1 > 4', True),
        ('velocity("ip", "1h") >= 4', None),
        ('velocity_sum("card", "24h") - amount == money("500 USD")', True), ('velocity("ip", "1h") is unknown', True),
        ('in_list("block")', True), ('in_list("block", "email")', True), ('in_list("block", "ip")', False),
        ('in_list("allow")', False), ("days_since(customer_since) == 2", True),
        ("days_since(first_order_at) == 2", None),
        ('starts_with(email_domain, "MAIL.")', True), ('ends_with(email_domain, "example")', True),
        ('contains(email_domain, ".e")', True), ('contains(card_brand, "x")', None),
        ('lower(email_domain) == "mail.example"', True), ('lower(card_brand) == "x"', None),
        ("true", True), ("1 > 2 or 2 > 3", False), ('"a" == "b"', False), ("0.1 + 0.2 == 0.3", True),
        ("model_score + 0.1 == 0.4", True), ("model_score - 0.1 == 0.2", True), ("model_score == 0.3", True),
        ("true and is_guest", True), ("false and is_same_postcode", False), ("is_same_postcode or not false", True),
    ],
)  # fmt: skip
def test_three_values(text: str, expected: bool | None) -> None:
    assert answer(text) is expected


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -1e300])
def test_a_score_that_cannot_be_reckoned_with_is_unknown(score: float) -> None:
    assert answer("model_score + 0.1 > 0", model_score=score) is None


def test_a_score_that_is_no_number_is_unknown() -> None:
    assert answer("model_score > 0", model_score=float("nan")) is None
    assert answer("model_score > 0", model_score=float("inf")) is True


def test_scores_are_added_up_in_whole_millionths() -> None:
    assert answer("model_score + outside_score == 0.3", model_score=0.1, outside_score=0.2) is True
    assert answer("model_score + 0 == 0.000001", model_score=0.0000014) is True


def test_only_a_to_z_are_lowered() -> None:
    assert answer('lower(email_domain) == "Ümlaut"', email_domain="ÜMLAUT") is True
    assert answer('contains(email_domain, "ü")', email_domain="ÜMLAUT") is False
    assert answer('contains(email_domain, "k")', email_domain="\u212a") is False, "the Kelvin sign is no K"


def test_ages_need_the_time_of_the_screening_and_round_down() -> None:
    assert answer("days_since(customer_since) == 0", assessed_at=0) is None
    assert answer("days_since(customer_since) == -1", customer_since=100 * DAY + 1) is True
