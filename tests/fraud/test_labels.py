"""Labels: which word counts, what each source says, and that every event labels once, whatever happens."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import combinations, permutations
from typing import Any

import pytest
import time_machine
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from fraud import collector
from fraud.labels import DECISION_LABELS, collect_labels, label_decision, mature_labels, record_label
from fraud.models import (
    PRECEDENCE,
    EffectiveLabel,
    EventPosition,
    Label,
    LabelSource,
    ReasonCode,
    ReviewState,
)
from payments.errors import InvalidRequestError
from payments.gateways.base import FraudWarning
from payments.ids import new_id
from payments.models import Event, Order
from payments.services import FactOutcome, apply_gateway_fact
from tests.factories.fraud import LabelFactory, ReviewFactory
from tests.factories.payments import (
    AttemptFactory,
    EventFactory,
    OperationFactory,
    OrderFactory,
    PaymentFactory,
)

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture
def order() -> Order:
    return OrderFactory()


def effective(order: Order) -> tuple[bool, str] | None:
    found = EffectiveLabel.objects.filter(order=order).first()
    return (found.is_fraud, found.source) if found else None


# --- which counts -------------------------------------------------------------------------------------------

ORDER = ["dispute", "early_warning", "refund_as_fraud", "manual", "decision", "matured"]


@pytest.mark.parametrize(("stronger", "weaker"), list(combinations(ORDER, 2)))
def test_the_stronger_source_counts_however_old_it_is(order: Order, stronger: str, weaker: str) -> None:
    LabelFactory(order=order, source=weaker, is_fraud=False, at=NOON)
    LabelFactory(order=order, source=stronger, is_fraud=True, at=NOON - timedelta(days=9))
    assert effective(order) == (True, stronger)


def test_every_source_has_its_rank() -> None:
    assert list(PRECEDENCE) == list(LabelSource)


@pytest.mark.parametrize(("older", "newer"), [("manual", "api"), ("api", "manual"), ("manual", "manual")])
def test_of_one_rank_the_newest_counts_and_the_old_one_stays(order: Order, older: str, newer: str) -> None:
    LabelFactory(order=order, source=older, is_fraud=True, at=NOON)
    LabelFactory(order=order, source=newer, is_fraud=False, at=NOON + timedelta(seconds=1))
    assert effective(order) == (False, newer)
    assert Label.objects.filter(order=order).count() == 2


def test_the_order_of_writing_does_not_matter(order: Order) -> None:
    said = [("dispute", True, 1), ("dispute", False, 2), ("decision", True, 3), ("early_warning", True, 4)]
    for turn in permutations(said):
        other = OrderFactory(client=order.client)
        for source, is_fraud, hours in turn:
            LabelFactory(order=other, source=source, is_fraud=is_fraud, at=NOON + timedelta(hours=hours))
        assert effective(other) == (False, "dispute")


def test_an_order_of_which_nobody_spoke_has_none(order: Order) -> None:
    assert effective(order) is None


@pytest.mark.parametrize("change", ["UPDATE fraud_label SET is_fraud = false", "DELETE FROM fraud_label"])
def test_what_was_said_cannot_be_changed(change: str) -> None:
    LabelFactory()
    with (
        pytest.raises(DatabaseError, match="append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(change)


# --- by hand and by decision --------------------------------------------------------------------------------


def test_a_person_says_what_an_order_was(order: Order) -> None:
    label = record_label(order, is_fraud=True, source="manual", reason=" police report ", actor="user:ana")
    assert (label.reason, label.actor, label.source) == ("police report", "user:ana", "manual")
    assert effective(order) == (True, "manual")


@pytest.mark.parametrize(
    ("source", "reason"), [("dispute", "x"), ("nonsense", "x"), ("api", " "), ("api", "x" * 201)]
)
def test_what_is_no_label_is_refused(order: Order, source: str, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{order.pk}.*nothing was changed"):
        record_label(order, is_fraud=True, source=source, reason=reason, actor="api:shop")
    assert not Label.objects.exists()


def test_each_reason_of_an_analyst_says_something_or_expressly_nothing() -> None:
    assert set(DECISION_LABELS) == set(ReasonCode)


@pytest.mark.parametrize(("reason", "is_fraud"), DECISION_LABELS.items())
def test_a_decision_labels_by_its_reason(reason: str, is_fraud: bool | None) -> None:
    review = ReviewFactory(
        state=ReviewState.REJECTED, reason_code=reason, decided_by="user:ana", decided_at=NOON
    )
    first, again = label_decision(review), label_decision(review)
    assert first == again
    assert effective(review.order) == (None if is_fraud is None else (is_fraud, "decision"))
    if first:
        assert (first.at, first.actor, first.reason) == (NOON, "user:ana", reason)


@pytest.mark.parametrize("state", [ReviewState.EXPIRED, ReviewState.CLOSED])
def test_a_review_that_nobody_decided_says_nothing(state: str) -> None:
    assert label_decision(ReviewFactory(state=state, reason_code="genuine", decided_at=NOON)) is None


# --- from the outbox ----------------------------------------------------------------------------------------


DISPUTE = {"id": "dp_1", "stage": "chargeback", "state": "needs_response", "reason": "fraudulent"}


def tell_dispute(order: Order, state: str, *, reason: str = "fraudulent", stage: str = "chargeback") -> Event:
    dispute = {**DISPUTE, "stage": stage, "state": state, "reason": reason}
    name = {"needs_response": "opened", "under_review": "updated"}.get(state, "closed")
    event: Event = EventFactory(
        order=order, type=f"dispute.{name}", data={"dispute": dispute}, actor="gateway"
    )
    return event


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ([{"state": "needs_response"}], (True, "dispute")),
        ([{"state": "needs_response"}, {"state": "under_review"}], (True, "dispute")),
        ([{"state": "needs_response"}, {"state": "lost"}], (True, "dispute")),
        ([{"state": "needs_response"}, {"state": "won"}], (False, "dispute")),
        ([{"state": "needs_response"}, {"state": "won"}, {"state": "lost"}], (True, "dispute")),
        ([{"state": "accepted"}], (True, "dispute")),
        (
            [
                {"state": "needs_response", "reason": "not_received"},
                {"state": "lost", "reason": "not_received"},
            ],
            None,
        ),
        ([{"state": "needs_response", "stage": "inquiry"}, {"state": "won", "stage": "inquiry"}], None),
    ],
)
def test_a_dispute_for_fraud_labels(order: Order, told: list[dict[str, Any]], said: object) -> None:
    for event in told:
        tell_dispute(order, **event)
    collect_labels()
    assert effective(order) == said


@pytest.mark.parametrize(("reason", "said"), [("fraudulent", (True, "refund_as_fraud")), ("duplicate", None)])
def test_a_refund_labels_by_its_reason(reason: str, said: object) -> None:
    attempt = AttemptFactory(payment=PaymentFactory(is_captured=True))
    refund = OperationFactory(attempt=attempt, kind="refund", reason=reason)
    order = attempt.payment.order
    EventFactory(order=order, type="refund.created", data={"refund": refund.describe()}, actor="user:fin")
    collect_labels()
    assert effective(order) == said


def test_a_warning_of_the_issuer_labels_once_however_often_it_is_told() -> None:
    payment = PaymentFactory(is_captured=True)
    AttemptFactory(payment=payment, gateway_reference="pi_warned")
    fact = FraudWarning(reference="issfr_1", payment_reference="pi_warned", reason="made_with_stolen_card")
    assert apply_gateway_fact(payment.account, fact) == FactOutcome.APPLIED
    assert apply_gateway_fact(payment.account, fact) == FactOutcome.NOOP
    [event] = Event.objects.filter(order=payment.order)
    assert (event.type, event.is_public) == ("payment.fraud_warned", False)
    assert collect_labels() == 1
    [label] = Label.objects.all()
    assert (label.source, label.is_fraud, label.reason) == ("early_warning", True, "made_with_stolen_card")


def test_a_warning_of_an_unknown_payment_waits() -> None:
    fact = FraudWarning(reference="issfr_1", payment_reference="pi_of_another")
    assert apply_gateway_fact(PaymentFactory().account, fact) == FactOutcome.UNKNOWN_PAYMENT


class CrashError(Exception):
    pass


class TestThePlace:
    def test_each_event_labels_once(self, order: Order) -> None:
        tell_dispute(order, "needs_response")
        assert collect_labels() == 1
        assert collect_labels() == 0
        tell_dispute(order, "won")
        assert collect_labels() == 1
        assert Label.objects.count() == 2

    def test_reading_all_of_it_again_writes_nothing(self, order: Order) -> None:
        tell_dispute(order, "needs_response")
        tell_dispute(order, "lost")
        assert collect_labels() == 2
        EventPosition.objects.all().delete()
        assert collect_labels() == 0
        assert Label.objects.count() == 2

    def test_a_crash_before_the_commit_loses_and_doubles_nothing(self, order: Order) -> None:
        tell_dispute(order, "needs_response")
        with suppress(CrashError), transaction.atomic():
            assert collect_labels() == 1
            raise CrashError
        assert not Label.objects.exists()
        assert collect_labels() == 1

    def test_a_turn_reads_on_while_there_is_more(self, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(collector, "MOST_AT_ONCE", 2)
        for state in ("needs_response", "under_review", "won", "lost", "accepted"):
            tell_dispute(order, state)
        assert [collect_labels(), collect_labels()] == [5, 0]


def test_what_appears_late_and_out_of_order_labels_too(order: Order) -> None:
    late_id = new_id("evt")  # its transaction commits after that of the next one
    tell_dispute(order, "needs_response")
    assert collect_labels() == 1
    EventFactory(id=late_id, order=OrderFactory(), type="dispute.opened", data={"dispute": DISPUTE})
    assert collect_labels() == 1


# --- by time ------------------------------------------------------------------------------------------------


def capture(days_ago: float) -> Order:
    with time_machine.travel(timezone.now() - timedelta(days=days_ago), tick=False):
        payment = PaymentFactory(is_captured=True)
        EventFactory(order=payment.order, type="payment.captured")
    order: Order = payment.order
    return order


def test_what_was_captured_long_ago_and_never_disputed_is_genuine() -> None:
    old, young = capture(90.1), capture(89.9)
    assert mature_labels() == 1
    assert (effective(old), effective(young)) == ((False, "matured"), None)
    label = Label.objects.get()
    assert timedelta(hours=2) < timezone.now() - label.at < timedelta(hours=3)
    assert mature_labels() == 0
    assert mature_labels(now=timezone.now() + timedelta(days=1)) == 1


def test_what_was_disputed_does_not_mature() -> None:
    order = capture(100)
    order.payment.disputes.create(
        account=order.payment.account,
        gateway_reference="dp_x",
        stage="chargeback",
        state="won",
        amount=1,
        currency="EUR",
        opened_at=timezone.now(),
    )
    assert mature_labels() == 0


def test_the_days_are_a_setting(settings: Any) -> None:
    settings.FRAUD_MATURE_DAYS = 30
    order = capture(31)
    assert mature_labels() == 1
    assert Label.objects.get(order=order).reason == "no dispute in 30 days"


def test_an_order_that_is_captured_in_parts_matures_once() -> None:
    order = capture(100)
    with time_machine.travel(timezone.now() - timedelta(days=95), tick=False):
        EventFactory(order=order, type="payment.captured")
    assert mature_labels() == 1
