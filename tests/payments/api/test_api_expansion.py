"""`expand[]`, filters and the backfill of events: complete, bounded, and each mistake told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from payments import ids
from payments.kinds import DisputeStage, DisputeState, OperationKind
from payments.models import Customer, Dispute, Event, OperationState, Order, Payment
from tests.factories import (
    ApiKeyFactory,
    AttemptFactory,
    EventFactory,
    OperationFactory,
    OrderFactory,
    PaymentFactory,
)
from tests.payments.threads import run_in_threads
from tests.storefront import Storefront, assert_problem

ALL = "&".join(f"expand[]={name}" for name in ("payment", "refunds", "events", "disputes", "customer"))


def make_order(shop: Storefront, **members: Any) -> Order:
    """A paid order with two captures, a refund of each kind of doubt, a dispute and an event."""
    payment: Payment = PaymentFactory.create(
        order=OrderFactory.create(client=shop.client, state="paid", **members), is_captured=True
    )
    attempt = AttemptFactory.create(payment=payment)
    first = OperationFactory.create(attempt=attempt, amount=8000, releases_rest=False)
    OperationFactory.create(attempt=attempt, amount=4950)
    refund = {"attempt": attempt, "kind": OperationKind.REFUND}
    OperationFactory.create(**refund, amount=1000, capture=first)
    OperationFactory.create(**refund, amount=8000, state=OperationState.PENDING)
    OperationFactory.create(**refund, amount=500, state=OperationState.FAILED)
    Dispute.objects.create(
        payment=payment,
        account=payment.account,
        gateway_reference=f"dp_{payment.pk}",
        stage=DisputeStage.CHARGEBACK,
        state=DisputeState.NEEDS_RESPONSE,
        amount=12950,
        currency="EUR",
        opened_at=timezone.now(),
    )
    EventFactory.create(order=payment.order)
    EventFactory.create(order=payment.order, is_public=False)
    return payment.order


@pytest.fixture
def order(shop: Storefront) -> Order:
    return make_order(shop)


def test_what_belongs_to_an_order_comes_with_it(shop: Storefront, order: Order) -> None:
    Customer.objects.create(
        client=shop.client, storefront_id="cus_42", email="b@example.com", created_at=timezone.now()
    )
    shown = shop.get(f"orders/{order.pk}?{ALL}").json()
    assert [operation["kind"] for operation in shown["payment"]["operations"]] == ["capture"] * 2 + [
        "refund"
    ] * 3
    assert [refund["amount"] for refund in shown["refunds"]] == [1000, 8000, 500]
    assert [event["type"] for event in shown["events"]] == ["order.paid"]
    assert [dispute["state"] for dispute in shown["disputes"]] == ["needs_response"]
    assert shown["customer"]["id"] == "cus_42"
    plain = shop.get(f"orders/{order.pk}").json()
    assert set(plain) == set(shown) - {"refunds", "events", "disputes", "customer"}
    assert {name: shown[name] for name in plain if name != "payment"} == {
        name: plain[name] for name in plain if name != "payment"
    }
    assert shown["payment"] == shop.get(f"payments/{order.payment.pk}").json()


def test_the_captures_tell_what_is_left_to_refund(shop: Storefront, order: Order) -> None:
    """1000 went back of the first capture by name; 8000 by no name, from the oldest on; 500 failed."""
    first, second, *refunds = shop.get(f"payments/{order.payment.pk}").json()["operations"]
    assert (first["final"], first["refundable"]) == (False, 0)
    assert (second["final"], second["refundable"]) == (True, 8000 + 4950 - 9000)
    assert [refund["capture"] for refund in refunds] == [first["id"], None, None]
    assert "final" not in refunds[0]
    assert "refundable" not in refunds[0]
    assert "capture" not in first


def test_a_guest_and_a_forgotten_customer_are_null(
    shop: Storefront, other_shop: Storefront, order: Order
) -> None:
    now = timezone.now()
    Customer.objects.create(
        client=shop.client, storefront_id="cus_42", created_at=now, erasure_requested_at=now
    )
    Customer.objects.create(client=other_shop.client, storefront_id="cus_42", created_at=now)
    assert shop.get(f"orders/{order.pk}?expand[]=customer").json()["customer"] is None


@pytest.mark.parametrize("path", ["orders", "orders/{}"])
@pytest.mark.parametrize("name", ["", "lines", "payment.operations", "refunds.payment", "4242424242424242"])
def test_nothing_else_can_be_expanded(name: str, path: str, shop: Storefront, order: Order) -> None:
    response = shop.get(f"{path.format(order.pk)}?expand[]={name}")
    status, code = (422, "card_data_refused") if name.isdigit() else (400, "invalid_request")
    problem = assert_problem(response, status, code)
    assert name == "" or name.encode() not in response.content
    if code == "invalid_request":
        [error] = problem["errors"]
        assert (error["parameter"], error["code"]) == ("expand[]", "unknown_expansion")


def test_a_page_asks_as_often_as_one_order_does(shop: Storefront, django_assert_num_queries: Any) -> None:
    make_order(shop)
    shop.get("orders")
    with django_assert_num_queries(2 + 5):  # the key and the orders; one for each name
        assert len(shop.get(f"orders?{ALL}").json()["results"]) == 1
    for _ in range(5):
        make_order(shop)
    with django_assert_num_queries(2 + 5):
        page = shop.get(f"orders?{ALL}").json()["results"]
    assert len(page) == 6
    assert all(len(shown["refunds"]) == 3 and shown["disputes"] and shown["events"] for shown in page)


FILTERS = [
    ("customer=cus_b", ["b"]),
    ("amount=200", ["b"]),
    ("amount_min=200", ["b", "c"]),
    ("amount_min=101&amount_max=299", ["b"]),
    ("currency=JPY", ["c"]),
    ("payment_state=succeeded", ["a"]),
    ("created_after=2026-02-01T00:00:00Z", ["b", "c"]),
    ("created_after=2026-02-01T00:00:00Z&created_before=2026-03-01T00:00:00Z", ["b"]),
    ("updated_after=2026-06-02T00:00:00Z", ["c"]),
    ("updated_before=2026-06-01T00:00:01Z", ["a"]),
    ("updated_after=2026-06-01T02:00:00%2B02:00&updated_before=2026-06-03T00:00:00Z", ["a", "b"]),
]


@pytest.fixture
def three(shop: Storefront) -> None:
    for number, (name, currency) in enumerate([("a", "EUR"), ("b", "EUR"), ("c", "JPY")], start=1):
        PaymentFactory.create(
            order__client=shop.client,
            order__reference=name,
            order__customer_id=f"cus_{name}",
            order__amount=100 * number,
            order__currency=currency,
            order__created_at=f"2026-0{number}-15T00:00:00Z",
            order__updated_at=f"2026-06-0{number}T00:00:00Z".replace("03T", "04T").replace("02T00", "01T12"),
            is_captured=name == "a",
        )


@pytest.mark.parametrize(("query", "expected"), FILTERS)
def test_orders_can_be_narrowed(query: str, expected: list[str], shop: Storefront, three: None) -> None:
    found = [shown["reference"] for shown in shop.get(f"orders?{query}").json()["results"]]
    assert sorted(found) == expected


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("orders?amount=1.5", "amount"),
        ("orders?amount=-1", "amount"),
        ("orders?amount_min=1e3", "amount_min"),
        ("orders?amount_max=" + "9" * 19, "amount_max"),
        ("orders?payment_state=paid", "payment_state"),
        ("orders?updated_after=yesterday", "updated_after"),
        ("orders?state=", "state"),
        ("orders?state=paid&state=placed", "state"),
        ("orders?customer=%00", "customer"),
        ("orders/{}?foo=1", "foo"),
        ("payments/{}?expand[]=refunds", "expand[]"),
        ("events?sort=random", "sort"),
        ("events?after=evt_1&sort=oldest", "after"),
        ("events?after=" + ids.new_id("evt"), "after"),
        ("events?since=2026-01-01", "since"),
    ],
)
def test_a_bad_parameter_is_named(path: str, parameter: str, shop: Storefront, order: Order) -> None:
    problem = assert_problem(shop.get(path.format(order.pk)), 400, "invalid_request")
    assert problem["errors"][0]["parameter"] == parameter


# --- going on from the last event ---------------------------------------------------------------------------


def make_events(shop: Storefront, count: int, *, seconds_ago: int = 3600) -> list[str]:
    """Events of so long ago, the oldest first."""
    order, moment = OrderFactory.create(client=shop.client), timezone.now() - timedelta(seconds=seconds_ago)
    made = [
        EventFactory.create(order=order, id=ids.lowest_id("evt", moment + timedelta(milliseconds=number)))
        for number in range(count)
    ]
    return [event.pk for event in made]


def ids_of(page: Any) -> list[str]:
    return [item["id"] for item in page["results"]]


def follow(shop: Storefront, link: str) -> Any:
    return shop.get(link.partition("/api/v1/")[2]).json()


def test_the_oldest_come_first_and_pages_go_on_under_inserts_both_ways(shop: Storefront) -> None:
    events = make_events(shop, 5)
    first = shop.get("events?sort=oldest&page_size=2").json()
    make_events(shop, 2, seconds_ago=7200)  # older ones, which a slow transaction brings
    newer = make_events(shop, 1, seconds_ago=1800)
    second = follow(shop, first["next"])
    third = follow(shop, second["next"])
    assert ids_of(first) + ids_of(second) + ids_of(third) == events + newer
    assert third["next"] is None
    assert ids_of(follow(shop, third["previous"])) == ids_of(second)
    assert ids_of(shop.get(f"events?sort=oldest&after={events[2]}").json()) == [*events[3:], *newer]


def test_a_cursor_of_one_order_is_none_of_the_other(shop: Storefront) -> None:
    make_events(shop, 3)
    cursor = (
        shop.get("events?sort=oldest&page_size=1").json()["next"].partition("cursor=")[2].partition("&")[0]
    )
    assert_problem(shop.get(f"events?cursor={cursor}"), 400, "invalid_cursor")


def test_the_latest_are_held_back_until_none_can_come_before_them(shop: Storefront) -> None:
    settled, fresh = make_events(shop, 1), make_events(shop, 1, seconds_ago=5)
    assert ids_of(shop.get("events?sort=oldest").json()) == settled
    assert ids_of(shop.get("events").json()) == fresh + settled


@pytest.mark.concurrency
@pytest.mark.django_db(transaction=True)
def test_an_event_of_a_slow_transaction_is_not_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its id is older than one that was committed before it; whoever reads on must see both."""
    monkeypatch.setattr("payments.models.event._HORIZON", NO_MARGIN)
    shop = Storefront(ApiKeyFactory.create())
    slow_order, quick_order = (OrderFactory.create(client=shop.client) for _ in range(2))
    seen: list[str] = []

    def read_on() -> None:
        after = f"&after={seen[-1]}" if seen else ""
        seen.extend(ids_of(shop.get(f"events?sort=oldest{after}").json()))

    with transaction.atomic():
        Order.objects.locked(slow_order.pk)
        slow = Event.objects.record(slow_order, "order.paid", data={})
        [quick] = run_in_threads(lambda _: Event.objects.record(quick_order, "order.paid", data={}), 1)
        run_in_threads(lambda _: read_on(), 1)
        assert seen == []
    read_on()
    assert seen == [slow.pk, quick.pk]


# The pages' own margin of a minute would hide what is tested: that an open transaction holds the horizon.
NO_MARGIN = """
SELECT least(now(), min(xact_start)) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
