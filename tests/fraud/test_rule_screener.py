"""The screener: facts gathered, every verdict a row, the second screening knows the first."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from django.db import DatabaseError
from django.utils import timezone
from pytest_django import Settings

from fraud import lists
from fraud.live import NoRulesError, forget_plan
from fraud.models import Assessment, Review, ReviewState, RuleActivation, Verdict
from fraud.screening import RuleScreener
from payments.decisions import Decision, Stage
from payments.models import Payment
from payments.screening import Screening, get_screener
from tests.factories.fraud import RuleFactory, put_in_force
from tests.factories.payments import PaymentFactory

pytestmark = pytest.mark.django_db
BEFORE, AFTER = Stage.BEFORE_AUTHORIZATION, Stage.AFTER_AUTHORIZATION


@pytest.fixture(autouse=True)
def _without_redis(settings: Settings) -> None:
    settings.REDIS_URL = ""  # what it counts is told in test_velocity


@pytest.fixture
def payment() -> Payment:
    return PaymentFactory()


def screen(payment: Payment, stage: Stage = BEFORE) -> Screening:
    """Screen and record, as the saga does."""
    screener = RuleScreener()
    screening = screener.screen(payment.order, payment, stage=stage)
    screener.record(payment.order, payment, screening)
    return screening


def answer(payment: Payment, **card: Any) -> None:
    payment.card = {"brand": "visa", "last4": "4242", **card}
    payment.save()


def test_it_is_the_screener_of_the_settings() -> None:
    assert isinstance(get_screener(), RuleScreener)


def test_an_ordinary_order_is_approved_by_the_default_rules(payment: Payment) -> None:
    answer(payment, country="DE", avs="pass", cvc="pass")
    assert [screen(payment, stage).decision for stage in Stage] == [Decision.APPROVE, Decision.APPROVE]


def test_every_rule_of_the_stage_leaves_a_verdict(payment: Payment) -> None:
    screen(payment)
    names = set(Verdict.objects.values_list("rule_name", flat=True))
    assert names == {
        "Blocklist",
        "Review list",
        "Card velocity",
        "E-mail velocity",
        "Country mismatch",
        "High amount",
        "Total score",
    }


def test_the_facts_are_kept_as_they_were_and_masked(payment: Payment) -> None:
    screen(payment)
    context = Assessment.objects.get().context
    assert context["customer_email"] == "b***@example.com"
    assert context["velocity"]["card:3600"] == 1
    assert context["velocity_source"] == "postgresql"


def test_a_blocklisted_email_is_blocked_before_the_authorization(payment: Payment) -> None:
    lists.add_to_list("block", "email", payment.order.customer_email.upper(), reason="fraud last week")
    screening = screen(payment)
    assert screening.decision == Decision.BLOCK
    assert screening.reasons == ["Blocklist: on the block list: e-mail b***@example.com"]


def test_a_blocked_card_is_known_once_the_gateway_named_it(payment: Payment) -> None:
    lists.add_to_list("block", "card", "f" * 32, reason="stolen")
    assert screen(payment).decision == Decision.APPROVE
    payment.card_fingerprint = "f" * 32
    assert screen(payment, AFTER).decision == Decision.BLOCK


def test_the_allow_list_holds_for_both_screenings(payment: Payment) -> None:
    lists.add_to_list("allow", "email", payment.order.customer_email, reason="known for years")
    answer(payment, avs="fail", cvc="fail")
    assert [screen(payment, stage).decision for stage in Stage] == [Decision.APPROVE, Decision.APPROVE]


def test_a_high_amount_is_reviewed_after_the_authorization_too(payment: Payment) -> None:
    payment.order.amount = 100_001
    assert [screen(payment, stage).decision for stage in Stage] == [Decision.REVIEW, Decision.REVIEW]


def test_points_before_and_after_are_added(payment: Payment) -> None:
    payment.order.shipping = {"country": "FR"}
    answer(payment, avs="fail", cvc="pass")
    assert screen(payment).decision == Decision.APPROVE
    after = screen(payment, AFTER)
    assert (after.decision, after.score) == (Decision.REVIEW, 60)
    assert after.reasons == [
        "Address check failed: AVS fail (= fail)",
        "Total score: score 60 (≥ 50)",
    ]


def test_a_review_that_a_challenge_overruled_is_not_forgotten(payment: Payment) -> None:
    above = {"ruleset": None, "expression": 'amount > money("1 EUR")', "parameters": {}}
    put_in_force(*(RuleFactory.build(**above, outcome=outcome) for outcome in ("review", "challenge")))
    assert [screen(payment, stage).decision for stage in Stage] == [Decision.CHALLENGE, Decision.REVIEW]


def test_a_velocity_limit_blocks_the_next_order_and_not_the_retry() -> None:
    put_in_force(RuleFactory.build(ruleset=None, parameters={"limit": 2}))
    payments = PaymentFactory.create_batch(3)
    assert [screen(payment).decision for payment in payments] == [
        Decision.APPROVE,
        Decision.APPROVE,
        Decision.BLOCK,
    ]
    assert screen(payments[0]).decision == Decision.APPROVE


def test_a_rule_may_ask_for_what_was_counted_and_for_the_card(payment: Payment) -> None:
    expression = 'velocity("card", "1h") >= 1 and card_country != billing_country'
    put_in_force(RuleFactory.build(ruleset=None, expression=expression, parameters={}))
    answer(payment, country="US")
    assert [screen(payment, stage).decision for stage in Stage] == [Decision.APPROVE, Decision.BLOCK]
    after = Assessment.objects.get(stage=AFTER)
    assert (after.context["velocity"]["card:3600"], after.context["card_country"]) == (1, "US")


def test_a_screener_that_is_down_says_so_instead_of_passing(
    payment: Payment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise DatabaseError("down")

    monkeypatch.setattr("fraud.gathering.count_order", fail)
    with pytest.raises(DatabaseError):
        RuleScreener().screen(payment.order, payment, stage=BEFORE)


def test_a_rule_that_was_held_up_for_seconds_is_recorded_all_the_same(payment: Payment) -> None:
    screening = RuleScreener().screen(payment.order, payment, stage=BEFORE)
    ticks = [3_000_000_000 * number for number in range(len(screening.data.result.ticks))]
    judged = replace(screening.data, result=screening.data.result._replace(ticks=ticks))
    RuleScreener().record(payment.order, payment, replace(screening, data=judged))
    assert set(Verdict.objects.values_list("nanoseconds", flat=True)) == {2**31 - 1}


@pytest.mark.parametrize("is_kept", [True, False])
def test_after_a_screening_that_failed_the_lists_are_asked_for_everything(
    payment: Payment, is_kept: bool
) -> None:
    lists.add_to_list("block", "email", payment.order.customer_email, reason="fraud last week")
    if is_kept:
        failed = Screening(BEFORE, Decision.REVIEW, reasons=["down"])
        RuleScreener().record(payment.order, payment, failed)
    assert screen(payment, AFTER).decision == Decision.BLOCK


def test_no_rules_in_force_is_no_silent_pass(payment: Payment) -> None:
    put_in_force(RuleFactory.build(ruleset=None))
    forget_plan()
    with patch.object(RuleActivation.objects, "in_force", return_value=None), pytest.raises(NoRulesError):
        RuleScreener().screen(payment.order, payment, stage=BEFORE)


def test_a_review_is_opened_once_and_ends_before_the_authorization(payment: Payment) -> None:
    screen(payment)
    payment.authorization_expires_at = timezone.now() + timedelta(days=2)
    for _ in range(2):
        RuleScreener().open_review(payment.order, payment, expires_at=timezone.now() + timedelta(days=5))
    review = Review.objects.get()
    assert review.expires_at == payment.authorization_expires_at - timedelta(hours=1)
    assert (review.assessment, review.amount) == (Assessment.objects.get(), 12950)


def test_a_review_that_the_saga_left_behind_is_closed(payment: Payment) -> None:
    screener = RuleScreener()
    screener.open_review(payment.order, payment, expires_at=timezone.now() + timedelta(days=5))
    screener.close_review(payment.order, reason="canceled")
    review = Review.objects.get()
    assert (review.state, review.note, review.decided_by) == (ReviewState.CLOSED, "canceled", "system")
