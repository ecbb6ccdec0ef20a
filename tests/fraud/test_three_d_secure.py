"""The table of 3-D Secure: its rows, its promises, its docs, and the facts that it is asked with."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from fraud.authentication import choose_authentication, gather_sca_facts, read_policy
from fraud.three_d_secure import (
    IN_SCOPE,
    TABLE,
    Authentication,
    Exemption,
    ScaFacts,
    ScaPolicy,
    Series,
    decide_authentication,
)
from payments.decisions import Decision
from payments.models import Operation, Payment
from payments.money import Money
from tests.factories.customers import SavedPaymentMethodFactory
from tests.factories.payments import OperationFactory, OrderFactory, PaymentFactory

PAGE = Path(__file__).resolve().parents[2] / "docs" / "three-d-secure.md"


def euros(cents: int) -> Money:
    return Money(cents, "EUR")


FACTS = ScaFacts(
    euros(60_00), Decision.APPROVE, issuer_country="FR", unauthenticated_count=0, unauthenticated_amounts=()
)
POLICY = ScaPolicy(True, "DE", frozenset(Exemption), Decimal("0.05"), rates={"USD": Decimal("1.10")})
SMALL = replace(FACTS, amount=euros(30_00))
LARGE = replace(FACTS, amount=euros(800_00))

EXAMPLES: dict[str, tuple[ScaFacts, ScaPolicy]] = {
    "fraud_challenge": (replace(SMALL, decision=Decision.CHALLENGE), POLICY),
    "switched_off": (SMALL, ScaPolicy()),
    "merchant_initiated": (replace(FACTS, is_merchant_initiated=True), POLICY),
    "mail_or_phone": (replace(FACTS, is_mail_or_phone=True), POLICY),
    "merchant_elsewhere": (FACTS, replace(POLICY, merchant_country="US")),
    "issuer_elsewhere": (replace(FACTS, issuer_country="US"), POLICY),
    "issuer_insists": (replace(SMALL, issuer_insists=True), POLICY),
    "first_of_series": (replace(SMALL, series=Series.FIRST), POLICY),
    "recurring": (replace(LARGE, series=Series.NEXT, is_authenticated_series=True), POLICY),
    "low_value": (SMALL, POLICY),
    "tra": (FACTS, POLICY),
    "rest_challenged": (LARGE, replace(POLICY, challenges_the_rest=True)),
    "suspected": (replace(SMALL, decision=Decision.REVIEW), POLICY),
    "unknown_rate": (replace(FACTS, amount=Money(500, "CHF")), POLICY),
    "in_scope": (LARGE, POLICY),
}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_each_row_has_an_order_that_it_decides(row: Any) -> None:
    decision = decide_authentication(*EXAMPLES[row.name])
    assert decision == row.decide()
    assert decision.reason
    assert decision.source
    assert decision.to_dict()["row"] == row.name


def test_the_docs_print_the_table_as_it_is() -> None:
    printed = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \|$", PAGE.read_text(), re.MULTILINE)
    answers = {Authentication.EXEMPT: "exempt: {}", Authentication.ISSUER: "left to the issuer"}
    table = [
        (
            row.name,
            answers.get(row.authentication, row.authentication.replace("_", " ")).format(row.exemption),
            row.reason,
            row.source,
        )
        for row in TABLE
    ]
    assert printed == table


class TestLowValue:
    @pytest.mark.parametrize(
        ("facts", "row"),
        [
            (replace(SMALL, amount=euros(30_01)), "in_scope"),
            (replace(SMALL, unauthenticated_count=4, unauthenticated_amounts=(euros(1),) * 4), "low_value"),
            (replace(SMALL, unauthenticated_count=5, unauthenticated_amounts=(euros(1),) * 5), "in_scope"),
            (replace(SMALL, unauthenticated_count=1, unauthenticated_amounts=(euros(70_00),)), "low_value"),
            (replace(SMALL, unauthenticated_count=1, unauthenticated_amounts=(euros(70_01),)), "in_scope"),
            (replace(SMALL, unauthenticated_count=None, unauthenticated_amounts=None), "in_scope"),
            (
                replace(SMALL, unauthenticated_count=1, unauthenticated_amounts=(Money(1, "CHF"),)),
                "in_scope",
            ),
            (replace(SMALL, amount=Money(33_00, "USD")), "low_value"),
            (replace(SMALL, amount=Money(33_01, "USD")), "in_scope"),
        ],
    )
    def test_its_limits(self, facts: ScaFacts, row: str) -> None:
        policy = replace(POLICY, exemptions=frozenset({Exemption.LOW_VALUE}))
        assert decide_authentication(facts, policy).row == row

    def test_the_united_kingdom_counts_in_pounds(self) -> None:
        policy = replace(POLICY, merchant_country="GB", fraud_rate=None)
        assert decide_authentication(replace(SMALL, amount=Money(25_00, "GBP")), policy).row == "low_value"
        assert decide_authentication(replace(SMALL, amount=Money(25_01, "GBP")), policy).row == "in_scope"
        assert decide_authentication(SMALL, policy).row == "unknown_rate"


@pytest.mark.parametrize(
    ("cents", "rate", "is_exempt"),
    [
        (100_00, "0.13", True),
        (100_00, "0.14", False),
        (100_01, "0.13", False),
        (250_00, "0.06", True),
        (250_01, "0.06", False),
        (500_00, "0.01", True),
        (500_01, "0", False),
    ],
)
def test_low_risk_by_the_bands_of_the_fraud_rate(cents: int, rate: str, is_exempt: bool) -> None:
    facts, policy = replace(FACTS, amount=euros(cents)), replace(POLICY, fraud_rate=Decimal(rate))
    assert (decide_authentication(facts, policy).row == "tra") is is_exempt
    assert decide_authentication(replace(facts, score=1), policy).row == "in_scope"
    assert decide_authentication(facts, replace(policy, fraud_rate=None)).row == "in_scope"


# --- promises -----------------------------------------------------------------------------------------------

countries = st.sampled_from(["", "DE", "FR", "GB", "US", "JP"])
amounts = st.builds(Money, st.integers(1, 1_000_00), st.sampled_from(["EUR", "USD", "GBP", "CHF"]))
facts_ = st.builds(
    ScaFacts,
    amount=amounts,
    decision=st.sampled_from(Decision),
    score=st.integers(0, 3),
    issuer_country=countries,
    is_merchant_initiated=st.booleans(),
    is_mail_or_phone=st.booleans(),
    series=st.sampled_from(Series),
    is_authenticated_series=st.booleans(),
    issuer_insists=st.booleans(),
    unauthenticated_amounts=st.none() | st.lists(amounts, max_size=6).map(tuple),
).map(
    lambda facts: replace(
        facts,
        unauthenticated_count=None
        if facts.unauthenticated_amounts is None
        else len(facts.unauthenticated_amounts),
    )
)
policies = st.builds(
    ScaPolicy,
    is_enabled=st.booleans(),
    merchant_country=countries,
    exemptions=st.frozensets(st.sampled_from(Exemption)),
    fraud_rate=st.none() | st.decimals(0, 1, places=2),
    tra_max_score=st.integers(0, 2),
    challenges_the_rest=st.booleans(),
    rates=st.just({"USD": Decimal("1.10"), "GBP": Decimal("0.85")}),
)


@given(facts_, policies)
def test_a_fraud_challenge_is_never_dropped(facts: ScaFacts, policy: ScaPolicy) -> None:
    challenged = decide_authentication(replace(facts, decision=Decision.CHALLENGE), policy)
    assert challenged.requests_challenge
    assert challenged.sca_exemption == ""


@given(facts_, policies)
def test_nobody_is_exempt_above_the_limits_or_under_suspicion(facts: ScaFacts, policy: ScaPolicy) -> None:
    decision = decide_authentication(facts, policy)
    if decision.authentication is not Authentication.EXEMPT:
        assert decision.exemption is None
        return
    amount = policy.convert(facts.amount)
    assert amount is not None
    assert policy.is_enabled
    assert decision.exemption in policy.exemptions
    assert facts.decision is Decision.APPROVE
    assert not facts.issuer_insists
    if decision.exemption is Exemption.TRA:
        assert amount <= 500_00
        assert facts.score <= policy.tra_max_score
    if decision.exemption is Exemption.LOW_VALUE:
        earlier = [policy.convert(one) for one in facts.unauthenticated_amounts or ()]
        assert amount <= 30_00
        assert sum((one for one in earlier if one is not None), amount) <= 100_00
        assert len(earlier) < 5
        assert None not in earlier


@given(facts_, policies)
def test_only_what_is_surely_elsewhere_or_unattended_is_out_of_scope(
    facts: ScaFacts, policy: ScaPolicy
) -> None:
    if decide_authentication(facts, policy).authentication is Authentication.OUT_OF_SCOPE:
        places = {facts.issuer_country, policy.merchant_country} - {""}
        assert facts.is_merchant_initiated or facts.is_mail_or_phone or not places <= IN_SCOPE


# --- the facts ----------------------------------------------------------------------------------------------


def pay(*, secure: str = "", amount: int = 10_00, fingerprint: str = "f" * 32, **changes: Any) -> Payment:
    card = {"three_d_secure": secure, "country": "FR"}
    values = {"authorized": amount, "card_fingerprint": fingerprint, "card": card, **changes}
    payment: Payment = PaymentFactory.create(amount=amount, currency="EUR", **values)
    return payment


@pytest.fixture
def saved() -> Any:
    return SavedPaymentMethodFactory.create(fingerprint="f" * 32)


@pytest.fixture
def next_payment(saved: Any) -> Payment:
    payment: Payment = PaymentFactory.create(amount=10_00, currency="EUR", saved_method=saved, authorized=0)
    return payment


def gather(payment: Payment) -> ScaFacts:
    return gather_sca_facts(payment.order, payment, decision=Decision.APPROVE)


@pytest.mark.django_db
class TestCounters:
    def test_they_count_from_the_last_authentication_of_the_card(self, next_payment: Payment) -> None:
        for secure in ("", "authenticated", "", "attempted"):
            pay(secure=secure)
        pay(authorized=0)
        pay(is_merchant_initiated=True)
        pay(fingerprint="another")
        facts = gather(next_payment)
        assert (facts.unauthenticated_count, facts.issuer_country) == (2, "FR")
        assert facts.unauthenticated_amounts == (euros(10_00), euros(10_00))

    def test_they_read_a_few_rows_by_an_index(self, next_payment: Payment) -> None:
        for _ in range(9):
            pay()
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert gather(next_payment).unauthenticated_count == 6
        assert len(queries) <= 3
        assert "LIMIT 6" in queries[0]["sql"]

    def test_a_new_card_is_counted_by_its_customer(self) -> None:
        order = OrderFactory.create(customer_id="cus_7", customer_email="")
        payment = PaymentFactory.create(order=order, authorized=0)
        pay(order=OrderFactory.create(client=order.client, customer_id="cus_7"))
        pay(order=OrderFactory.create(customer_id="cus_7"))  # another shop's customer
        assert gather(payment).unauthenticated_count == 1
        assert gather(payment).issuer_country == "", "which card it is, nobody knows yet"

    def test_of_a_stranger_nothing_is_known(self) -> None:
        order = OrderFactory.create(customer_id="", customer_email="")
        facts = gather(PaymentFactory.create(order=order, authorized=0))
        assert (facts.unauthenticated_count, facts.unauthenticated_amounts) == (None, None)


@pytest.mark.django_db
def test_a_series_needs_an_authenticated_payment_of_the_same_amount(next_payment: Payment) -> None:
    next_payment.order.context = {"series": "next"}
    pay(secure="authenticated", amount=11_00)
    assert not gather(next_payment).is_authenticated_series
    pay(secure="authenticated", amount=10_00)
    assert gather(next_payment).is_authenticated_series


@pytest.mark.django_db
def test_an_issuer_that_insisted_once_is_heard(next_payment: Payment) -> None:
    operation: Operation = OperationFactory.create(
        payment=next_payment,
        kind="authorize",
        state="declined",
        error={"code": "authentication_required", "message": "soft decline"},
    )
    assert gather(next_payment).issuer_insists
    operation.error = {"code": "card_declined", "message": "no"}
    operation.save()
    assert not gather(next_payment).issuer_insists


@pytest.mark.django_db
def test_it_is_off_until_it_is_switched_on(next_payment: Payment, settings: Settings) -> None:
    order = next_payment.order
    assert choose_authentication(order, next_payment, decision=Decision.APPROVE).row == "switched_off"
    settings.SCA_ENABLED = True
    settings.SCA_MERCHANT_COUNTRY = "de"
    chosen = choose_authentication(order, next_payment, decision=Decision.APPROVE)
    assert (chosen.row, chosen.sca_exemption) == ("low_value", "low_value")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SCA_EXEMPTIONS", ["trusted"]),
        ("SCA_FRAUD_RATE", "low"),
        ("SCA_FRAUD_RATE", "NaN"),
        ("SCA_REFERENCE_RATES", {"USD": "0"}),
    ],
)
def test_a_slip_of_the_pen_exempts_nobody(settings: Settings, name: str, value: object) -> None:
    setattr(settings, name, value)
    with pytest.raises(ImproperlyConfigured, match=name):
        read_policy()
