"""What people are told of a rule's answer."""

from __future__ import annotations

from random import Random

import pytest

from fraud.facts import FraudContext, ListMatch
from fraud.language import parse
from fraud.language.closures import compile_expression
from fraud.language.explain import MAX_SHOWN, Seen, explain, summarize
from payments.decisions import Stage
from tests.fraud.language.generator import PARAMETERS, make_context, make_rule

CONTEXT = FraudContext(
    stage=Stage.AFTER_AUTHORIZATION, amount=250_000, currency="USD", assessed_at=10 * 86_400,
    customer_since=7 * 86_400,
    billing_country="DE", card_country="US", email_domain="mail.example", avs="fail", model_score=0.3, is_guest=False,
    velocity={"card:3600": 6, "email:86400:decline": 1, "ip:86400:attempt:distinct:card": 3,
    "card:86400:attempt:sum": 5000},
    list_matches=(ListMatch("block", "email", "b***@example.com"),),
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value", "limit"),
    [
        ('velocity("card", "1h") >= {limit}', "card used on 6 orders in 1 h", "≥ 2"),
        ('3 < velocity("card", "1h")', "card used on 6 orders in 1 h", "> 3"),
        ('velocity("email", "24h", "decline") > 0', "e-mail declined on 1 order in 24 h", "> 0"),
        ('velocity("device", "24h") > 0', "device not known in 24 h", "> 0"),
        (
            'velocity_distinct("ip", "card", "24h") > 1',
            "IP address used with 3 different cards in 24 h",
            "> 1",
        ),
        ('velocity_sum("card", "24h") > money("9 USD")', "card used for 50.00 USD in 24 h", "> 9.00 USD"),
        ('amount >= money("2000 USD", "1 EUR")', "amount 2500.00 USD", "≥ 2000.00 USD"),
        ('amount >= money("1 EUR")', "amount 2500.00 USD", "≥ not known"),
        ("billing_country != card_country", "billing DE, card US", ""),
        ('card_country in ("US", "DE")', "card US", "US, DE"),
        ("card_country in {countries}", "card US", "DE, FR"),
        ('contains(email_domain, "mail")', "email domain mail.example", "contains mail"),
        ("days_since(customer_since) < 7", "customer since 3 days ago", "< 7"),
        ('in_list("block")', "on the block list: e-mail b***@example.com", ""),
        ('in_list("allow", "card")', "card on no allow list", ""),
        ("model_score + 0.1 > 0.2", "model_score + 0.1 = 0.4", "> 0.2"),
        ("orders_before between 1 and 3", "orders before not known", "1 to 3"),
        ("cvv is unknown", "CVV not known", ""),
        ("is_guest", "guest no", ""),
        ("not is_guest", "guest no", ""),
        ('(avs == "fail") == is_guest', "AVS fail; guest no", "= fail"),
        ('is_guest or avs == "fail" or card_country == "FR"', "AVS fail", "= fail"),
        ('avs == "fail" and not is_guest', "AVS fail; guest no", "= fail"),
        ('avs == "pass" or card_country == "FR"', "AVS fail; card US", "= pass; = FR"),
        ('avs == "fail" and cvv == "fail"', "CVV not known", "= fail"),
        ("true", "yes", ""),
    ],
)
def test_value_and_limit(text: str, value: str, limit: str) -> None:
    assert summarize(explain(parse(text, PARAMETERS), CONTEXT)) == (value, limit)


def test_each_comparison_has_its_own_answer() -> None:
    seen = explain(parse('avs == "fail" and not is_guest'), CONTEXT)
    assert seen == (
        Seen('avs == "fail"', "AVS fail", "= fail", True),
        Seen("is_guest", "guest no", "", False),
    )


def test_every_answer_can_be_explained_within_bounds() -> None:
    random = Random(3)
    for _ in range(300):
        rule, context = parse(make_rule(random), PARAMETERS), make_context(random)
        seen = explain(rule, context)
        assert seen, rule.text
        assert all(len(text) <= MAX_SHOWN for each in seen for text in (each.value_text, each.limit_text))
        assert all(len(text) <= MAX_SHOWN for text in summarize(seen))
        assert compile_expression(rule)(context) is not None or None in [each.result for each in seen]
