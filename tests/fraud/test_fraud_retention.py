"""What is left of a screening when its personal facts are gone still serves whoever reads it later."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from fraud import lists
from fraud.live import live_plan
from fraud.models import Assessment
from fraud.rehearsal import load_screened, rehearse_plan
from fraud.retention import PERSONAL, FraudData
from fraud.scores.export import read_chunks
from fraud.screening import RuleScreener
from payments.decisions import Decision, Stage
from payments.models import Payment
from payments.screening import Screening
from tests.factories.payments import PaymentFactory

pytestmark = pytest.mark.django_db


def screen(payment: Payment, stage: Stage) -> Screening:
    screening = RuleScreener().screen(payment.order, payment, stage=stage)
    RuleScreener().record(payment.order, payment, screening)
    return screening


def test_a_screening_without_its_person_is_still_screened_again_rehearsed_and_exported() -> None:
    payment = PaymentFactory.create(order__context={"ip": "198.51.100.7", "device": "d_1"})
    lists.add_to_list("review", "email", payment.order.customer_email, reason="look")
    screen(payment, Stage.BEFORE_AUTHORIZATION)
    FraudData().erase_order(payment.order)
    kept = Assessment.objects.get().context
    assert not kept.keys() & set(PERSONAL)
    assert screen(payment, Stage.AFTER_AUTHORIZATION).decision == Decision.REVIEW, "what it wished is kept"
    [screened] = load_screened()
    assert screened.before is not None
    assert screened.before.customer_email == ""
    plan = live_plan().plan
    assert rehearse_plan(plan, plan).looked_at == 1
    now = timezone.now()
    [rows] = read_chunks(since=now - timedelta(days=1), until=now + timedelta(days=1))
    assert [(row["customer_key"], row["lists"]) for row in rows] == [(None, []), (None, [])]
