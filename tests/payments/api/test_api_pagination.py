"""Pages: complete, stable while orders come in, and only with cursors that we signed for this caller."""

from __future__ import annotations

from typing import Any

import pytest

from tests.factories import EventFactory, OrderFactory, PaymentFactory
from tests.storefront import Storefront, assert_problem


def make_orders(shop: Storefront, count: int) -> list[str]:
    """Ids, newest first."""
    return sorted(
        (PaymentFactory.create(order__client=shop.client).order_id for _ in range(count)), reverse=True
    )


def follow(shop: Storefront, link: str) -> Any:
    return shop.get(link.partition("/api/v1/")[2]).json()


def ids_of(page: Any) -> list[str]:
    return [item["id"] for item in page["results"]]


def test_the_pages_hold_every_order_once(shop: Storefront) -> None:
    expected = make_orders(shop, 5)
    page = shop.get("orders?page_size=2").json()
    seen = ids_of(page)
    while page["next"]:
        page = follow(shop, page["next"])
        seen += ids_of(page)
    assert seen == expected
    assert page["previous"] is not None


def test_new_orders_do_not_shift_the_next_page(shop: Storefront) -> None:
    expected = make_orders(shop, 4)
    first = shop.get("orders?page_size=2").json()
    make_orders(shop, 3)
    second = follow(shop, first["next"])
    assert ids_of(first) + ids_of(second) == expected
    assert ids_of(follow(shop, second["previous"])) == ids_of(first)


def test_the_filter_goes_with_the_link(shop: Storefront) -> None:
    for state in ("paid", "placed", "paid", "paid"):
        PaymentFactory.create(order=OrderFactory.create(client=shop.client, state=state))
    page = shop.get("orders?page_size=2&state=paid").json()
    assert len(follow(shop, page["next"])["results"]) == 1


def test_an_empty_list_is_a_page(shop: Storefront) -> None:
    assert shop.get("orders").json() == {"next": None, "previous": None, "results": []}


def test_a_page_asks_a_fixed_number_of_queries(shop: Storefront, django_assert_num_queries: Any) -> None:
    make_orders(shop, 6)
    shop.get("orders")
    with django_assert_num_queries(2):  # the key, the orders
        assert len(shop.get("orders").json()["results"]) == 6


def cursor_of(shop: Storefront) -> str:
    make_orders(shop, 2)
    link: str = shop.get("orders?page_size=1").json()["next"]
    return link.partition("cursor=")[2].partition("&")[0]


@pytest.mark.parametrize("cursor", ["", "x", "n.ord_0:forged", "cD0yMDI2", "%00", "n.:", "a" * 3000])
def test_a_foreign_cursor_is_refused(cursor: str, shop: Storefront) -> None:
    assert_problem(shop.get(f"orders?cursor={cursor}"), 400, "invalid_cursor")


def test_an_altered_cursor_is_refused(shop: Storefront) -> None:
    cursor = cursor_of(shop)
    assert shop.get(f"orders?cursor={cursor}").status_code == 200
    assert_problem(shop.get(f"orders?cursor=previous{cursor[4:]}"), 400, "invalid_cursor")
    assert_problem(shop.get(f"orders?cursor={cursor[:-1]}"), 400, "invalid_cursor")


def test_a_cursor_holds_for_its_client_and_its_list_only(shop: Storefront, other_shop: Storefront) -> None:
    cursor = cursor_of(shop)
    assert_problem(other_shop.get(f"orders?cursor={cursor}"), 400, "invalid_cursor")
    assert_problem(shop.get(f"events?cursor={cursor}"), 400, "invalid_cursor")


def test_events_come_with_what_the_webhooks_said(shop: Storefront) -> None:
    event = EventFactory.create(order__client=shop.client)
    [shown] = shop.get(f"events?type=order.paid&order={event.order_id}").json()["results"]
    assert shown == {
        "id": event.pk,
        "type": "order.paid",
        "order": event.order_id,
        "sequence": 1,
        "data": event.data,
        "created_at": event.created_at.isoformat().replace("+00:00", "Z"),
    }
    assert shop.get("events?type=order.declined").json()["results"] == []
