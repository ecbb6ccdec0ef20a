"""Orders that share something, what a customer did before, and what payments tells of their ends."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from fraud import collector, links
from fraud.collector import collect
from fraud.history import History, read_history
from fraud.links import count_linked, find_linked, record_links
from fraud.models import EntityLink, EventPosition, VelocityEvent
from fraud.outcomes import collect_outcomes
from payments.ids import new_id
from payments.models import ApiClient, Event, Payment
from tests.factories.fraud import LabelFactory
from tests.factories.payments import (
    ApiClientFactory,
    AttemptFactory,
    EventFactory,
    GatewayAccountFactory,
    PaymentFactory,
)

pytestmark = pytest.mark.django_db

BERLIN = {"line1": "Unter den Linden 1", "postal_code": "10117", "country": "DE"}


def make_payment(client: ApiClient | None = None, **fields: object) -> Payment:
    """An order that shares nothing with any other, but for what is given."""
    number = Payment.objects.count()
    order = {
        "order__client": client or ApiClientFactory(),
        "order__customer_id": f"cus_{number}",
        "order__customer_email": f"buyer{number}@example.com",
        "order__context": {"ip": f"198.51.{number}.7", "device": f"d_{number}"},
    }
    account = GatewayAccountFactory(name=f"account of {number}")
    payment: Payment = PaymentFactory(account=account, **{**order, **fields})
    return payment


def link(payment: Payment) -> Payment:
    record_links(payment.order, payment)
    return payment


def find(payment: Payment) -> dict[str, set[str]]:
    return {pk: set(kinds) for pk, kinds in find_linked(payment.order, payment).orders.items()}


# --- links --------------------------------------------------------------------------------------------------


def test_orders_are_found_by_what_they_share() -> None:
    client = ApiClientFactory()
    mine = link(
        make_payment(
            client,
            card_fingerprint="fp_1",
            order__customer_id="cus_x",
            order__customer_email="Eve@example.com",
            order__context={"ip": "203.0.113.5", "device": "d_x"},
            order__shipping=BERLIN,
        )
    )
    assert find(mine) == {}
    same_card = link(make_payment(card_fingerprint="fp_1"))
    same_mail = link(make_payment(order__customer_email=" eve@EXAMPLE.com", order__shipping=BERLIN))
    same_network = link(make_payment(order__context={"ip": "203.0.113.200"}))
    same_number_in_another_shop = link(make_payment(order__customer_id="cus_x"))
    same_customer = link(make_payment(client, order__customer_id="cus_x", order__context={"device": "d_x"}))
    assert find(mine) == {
        same_card.order_id: {"card"},
        same_mail.order_id: {"email", "address"},
        same_network.order_id: {"network"},
        same_customer.order_id: {"customer", "device"},
    }
    assert same_number_in_another_shop.order_id not in find(mine)
    assert list(find_linked(mine.order, mine).orders) == sorted(find(mine), reverse=True)


def test_links_are_written_once_and_the_card_when_it_is_known() -> None:
    payment = make_payment()
    assert record_links(payment.order, payment) == 5
    assert record_links(payment.order, payment) == 0
    payment.card_fingerprint = "fp_1"
    assert record_links(payment.order, payment) == 1
    assert EntityLink.objects.filter(order=payment.order).count() == 6


def test_an_order_is_linked_before_its_own_links_are_written() -> None:
    other = link(make_payment(order__customer_email="eve@example.com"))
    mine = make_payment(order__customer_email="eve@example.com")
    assert find(mine) == {other.order_id: {"email"}}
    LabelFactory(order=other.order, is_fraud=True)
    counted = count_linked(mine.order, mine)
    assert (counted.orders, counted.fraud) == (1, 1)


def test_what_very_many_share_is_common_and_does_not_count(
    monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    monkeypatch.setattr(links, "MOST_PER_KEY", 3)
    office = {"order__context": {"ip": "203.0.113.5"}}
    others = [link(make_payment(**office)) for _ in range(4)]
    friend = link(make_payment(**office, order__customer_email="eve@example.com"))
    mine = make_payment(**office, order__customer_email="eve@example.com")
    found = find_linked(mine.order, mine)
    assert found.common == {"ip", "network"}
    assert set(found.orders) == {friend.order_id}
    assert not {other.order_id for other in others} & set(found.orders)


def test_links_hold_no_personal_value() -> None:
    link(make_payment(order__customer_email="eve@example.com", card_fingerprint="fp_1"))
    for digest in EntityLink.objects.values_list("value_hash", flat=True):
        assert len(digest) == 32
        assert set(digest) <= set("0123456789abcdef")


# --- history ------------------------------------------------------------------------------------------------


def test_the_history_of_a_customer_counts_what_became_of_each_order() -> None:
    client = ApiClientFactory()
    regular = {"order__customer_id": "cus_x"}
    first = link(make_payment(client, **regular, order__created_at=timezone.now() - timedelta(days=9)))
    paid = link(make_payment(client, **regular, is_captured=True, refunded=100))
    declined = link(make_payment(client, **regular))
    AttemptFactory(payment=declined, state="declined")
    link(make_payment(**regular))  # of another shop
    mine = link(make_payment(client, **regular))
    link(make_payment(client, **regular))  # later
    assert read_history(mine.order, mine) == History(
        orders_before=3,
        paid_before=1,
        declined_before=1,
        refunded_before=1,
        chargebacks_before=0,
        first_order_at=first.order.created_at,
    )
    assert paid.captured


def test_a_guest_is_known_by_the_e_mail_address() -> None:
    client = ApiClientFactory()
    guest = {"order__customer_id": "", "order__customer_email": "eve@example.com"}
    link(make_payment(client, **guest))
    link(make_payment(client, order__customer_id="cus_x", order__customer_email="EVE@example.com"))
    mine = make_payment(client, **guest)
    assert read_history(mine.order, mine).orders_before == 2


def test_of_nobody_there_is_no_history() -> None:
    payment = make_payment(order__customer_id="", order__customer_email="")
    assert read_history(payment.order, payment) == History()


# --- the collector ------------------------------------------------------------------------------------------


def tell(payment: Payment, event_type: str, **data: object) -> Event:
    event: Event = EventFactory(order=payment.order, type=event_type, data=data)
    return event


def test_every_event_is_handed_on_once_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "BATCH", 2)
    payment = make_payment()
    events = [tell(payment, "payment.declined") for _ in range(5)]
    tell(payment, "order.paid")
    seen: list[str] = []

    def consume(event: Event) -> None:
        seen.append(event.pk)

    assert collect("test", ["payment.declined"], consume) == 5
    assert collect("test", ["payment.declined"], consume) == 0
    events.append(tell(payment, "payment.declined"))
    assert collect("test", ["payment.declined"], consume) == 1
    assert seen == [event.pk for event in events]
    assert collect("another", ["payment.declined"], consume) == 6


def test_an_event_that_appears_late_and_out_of_order_is_not_missed() -> None:
    payment = make_payment()
    late_id = new_id("evt")  # its transaction commits after that of the next one
    early = tell(payment, "payment.declined")
    seen: list[str] = []
    collect("test", ["payment.declined"], lambda event: seen.append(event.pk))
    EventFactory(id=late_id, order=payment.order, type="payment.declined")
    collect("test", ["payment.declined"], lambda event: seen.append(event.pk))
    assert seen == [early.pk, late_id]


def test_a_run_is_bounded_and_one_that_fails_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "MOST_AT_ONCE", 2)
    payment = make_payment()
    events = [tell(payment, "payment.declined") for _ in range(4)]
    seen: list[str] = []

    def consume(event: Event) -> None:
        if event.pk == events[1].pk and len(seen) == 1:
            seen.append("failed")
            raise RuntimeError("once")
        seen.append(event.pk)

    with pytest.raises(RuntimeError):
        collect("test", ["payment.declined"], consume)
    assert [collect("test", ["payment.declined"], consume) for _ in range(3)] == [2, 1, 0]
    assert seen == [events[0].pk, "failed", *(event.pk for event in events[1:])]


def test_what_is_settled_needs_no_ids() -> None:
    payment = make_payment()
    event = tell(payment, "payment.declined")
    seen: list[str] = []
    collect("test", ["payment.declined"], lambda event: seen.append(event.pk))
    position = EventPosition.objects.get(pk="test")
    assert position.consumed == [event.pk]
    assert position.settled_until <= event.pk


def test_outcomes_are_counted_and_linked() -> None:
    payment = make_payment()
    tell(payment, "order.placed")
    tell(payment, "payment.declined")
    tell(payment, "payment.authorized")
    dispute = {"stage": "inquiry", "amount": 500, "currency": "EUR"}
    tell(payment, "dispute.opened", dispute=dispute)
    assert collect_outcomes() == 4
    kinds = set(VelocityEvent.objects.values_list("kind", flat=True))
    assert kinds == {"decline", "approved"}
    assert EntityLink.objects.filter(order=payment.order).exists()
    escalated = tell(payment, "dispute.updated", dispute={**dispute, "stage": "chargeback"})
    assert collect_outcomes() == 1
    counted = VelocityEvent.objects.get(kind="chargeback")
    assert (counted.amount, counted.at) == (500, escalated.created_at)
    EventPosition.objects.all().delete()  # all comes again
    collect_outcomes()
    assert VelocityEvent.objects.count() == 3
