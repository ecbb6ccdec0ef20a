"""What fraud forgets of a person, and what it must still know of the order then."""

from __future__ import annotations

import pytest

from fraud.facts import FraudContext, ListMatch
from fraud.models import Assessment
from fraud.retention import PERSONAL, FraudData
from payments.decisions import Stage
from tests.factories.fraud import AssessmentFactory

pytestmark = pytest.mark.django_db
FACTS = FraudContext(
    stage=Stage.AFTER_AUTHORIZATION,
    amount=5000,
    currency="EUR",
    customer_id="cus_1",
    customer_email="b***@example.com",
    ip="198.51.100.7",
    device="d_1",
    card_country="DE",
    list_matches=(ListMatch("block", "email", "b***@example.com"),),
    velocity={"card:3600": 2},
).to_dict()


def test_an_erased_order_keeps_the_facts_that_name_nobody() -> None:
    assessment = AssessmentFactory(context=FACTS)
    FraudData().erase_order(assessment.order)
    kept = Assessment.objects.get().context
    assert not set(kept) & set(PERSONAL)
    context = FraudContext.from_dict(kept)
    assert (context.amount, context.card_country, context.velocity) == (5000, "DE", {"card:3600": 2})
