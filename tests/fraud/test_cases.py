"""What a case tells: how often a rule was right, who else used the card, and what became of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from fraud.cases import Reason, build_case, rule_precision
from fraud.labels import label_decision
from fraud.links import LinkCount, count_links, find_links
from fraud.measures import Proportion
from fraud.models import Assessment, EntityLink, Review, Verdict
from payments.models import Dispute, OrderState
from payments.money import Money
from tests.factories.fraud import (
    HeldOrderFactory,
    HeldPaymentFactory,
    LabelFactory,
    ReviewFactory,
    VerdictFactory,
)

pytestmark = pytest.mark.django_db


def decided(state: str, reason: str, **fields: Any) -> Review:
    """A decided review in which `Velocity` hit twice, before and after the authorization."""
    review: Review = ReviewFactory(
        state=state,
        reason_code=reason,
        **{"decided_by": "user:ana", "decided_at": timezone.now() - timedelta(days=1), **fields},
    )
    for _ in range(2):
        VerdictFactory(assessment=review.assessment, rule_name="Velocity")
    label_decision(review)
    return review


def test_precision_counts_each_labelled_order_once() -> None:
    for _ in range(3):
        decided("rejected", "stolen_card")
    decided("rejected", "not_verified")
    for _ in range(3):
        decided("approved", "genuine")
    decided("expired", "", decided_by="system")
    old = decided("rejected", "stolen_card").assessment
    Assessment.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(days=91))
    VerdictFactory(
        assessment=decided("approved", "genuine").assessment, rule_name="Quiet", status="shadow", outcome=""
    )
    found = rule_precision(["Velocity", "Quiet", "Never"])
    assert found == {"Velocity": Proportion(3, 7), "Quiet": None, "Never": None}
    told = {share: Reason(Verdict(), share).record for share in (found["Velocity"], Proportion(9, 12), None)}
    assert list(told.values()) == ["fraud in 3 of 7", "precision 75 % of 12", "never decided before"]


def test_links_are_counted_for_many_orders_at_once() -> None:
    first, second, alone = ReviewFactory(), ReviewFactory(), ReviewFactory()
    stolen = decided("rejected", "stolen_card")
    share("card", "k1", first, second, stolen)
    share("email", "k2", first, second)
    share("network", "k3", first, alone)  # too weak to be a link
    ids = [first.order_id, second.order_id, alone.order_id]
    links = find_links(ids)
    assert links[first.order_id] == {second.order_id: {"card", "email"}, stolen.order_id: {"card"}}
    assert count_links(ids) == {first.order_id: LinkCount(2, 1), second.order_id: LinkCount(2, 1)}


def share(kind: str, value: str, *owners: Any) -> None:
    """The orders of these reviews, or payments, have it in common."""
    at = timezone.now()
    EntityLink.objects.bulk_create(
        EntityLink(kind=kind, value_hash=value, order=owner.order, at=at) for owner in owners
    )


def test_linked_orders_come_with_their_fate() -> None:
    review = ReviewFactory(assessment__payment__card_fingerprint="fp_1")
    money = {"captured": 12950}
    fates = {
        "paid": link(OrderState.PAID, **money),
        "refunded": link(OrderState.PAID, refunded=12950, **money),
        "disputed": link(OrderState.PAID, disputed=12950, **money),
        "blocked": link(OrderState.BLOCKED),
        "fraud": link(OrderState.PAID, **money),
    }
    share("card", "fp_1", review, *(payment for payment in fates.values()))
    LabelFactory(order=fates["fraud"].order, is_fraud=True)
    for fate, state in (("fraud", "lost"), ("paid", "won")):
        Dispute.objects.create(
            payment=fates[fate],
            account=fates[fate].account,
            gateway_reference=fate,
            stage="chargeback",
            state=state,
            amount=12950,
            currency="EUR",
            reason="fraudulent",
            opened_at=timezone.now(),
        )
    case = build_case(review)
    assert {link.fate: link.order.pk for link in case.linked} == {
        fate: payment.order_id for fate, payment in fates.items()
    }
    assert case.linked[0].fate == "fraud"
    assert case.link_count == LinkCount(5, 1)
    assert ("Authorized", Money(12950, "EUR")) in case.money


def link(state: str, **money: int) -> Any:
    return HeldPaymentFactory(order=HeldOrderFactory(state=state), card_fingerprint="fp_1", **money)


@pytest.mark.parametrize(
    ("age", "value", "tone"),
    [
        (timedelta(hours=3), "today", "bad"),
        (timedelta(days=5), "5 d", "plain"),
        (timedelta(days=40), "40 d", "good"),
    ],
)
def test_the_strip_says_how_long_the_customer_is_known(age: timedelta, value: str, tone: str) -> None:
    review = ReviewFactory(assessment__payment__order__customer_created_at=timezone.now() - age)
    checks = {check.label: check for check in build_case(review).checks}
    assert (checks["Customer"].value, checks["Customer"].tone) == (value, tone)
    assert checks["E-mail"].value == "new"
