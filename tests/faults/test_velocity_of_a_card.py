"""Thirty-two orders at once on one card whose limit is four: exactly four pass, with Redis and without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.journeys.shop import Shop, free_url, run_together

pytestmark = [pytest.mark.concurrency, pytest.mark.faults]

LIMIT = "mode = 'on', outcome = 'block', parameters = '{\"limit\": 4}'"


@pytest.fixture(autouse=True)
def limit_of_four(shop: Shop) -> Iterator[None]:
    shop.change_rule("card-velocity", LIMIT)
    yield
    shop.roll_rules_back()


def test_exactly_four_orders_pass_with_redis(shop: Shop) -> None:
    assert place_32(shop, "withredis", url=shop.url) == {"paid": 4, "blocked": 28}


def test_exactly_four_orders_pass_without_redis(shop: Shop) -> None:
    url = free_url()
    closed_port = free_url().rpartition(":")[2]
    web = shop.start_web("web without redis", url=url, REDIS_URL=f"redis://127.0.0.1:{closed_port}/0")
    try:
        assert place_32(shop, "withoutredis", url=url) == {"paid": 4, "blocked": 28}
    finally:
        web.stop(5)


def place_32(shop: Shop, name: str, *, url: str) -> Counter[str]:
    """How many of the orders ended in which state; the gateway was asked for the paid ones alone."""
    card = f"pm_card_de_{name}"
    answers = run_together(
        32, lambda number: shop.place(reference=f"{name}-{number}", payment_method=card, url=url)
    )
    assert {answer.status_code for answer in answers} <= {201, 202, 403}, [answer.text for answer in answers]
    for answer in answers:
        if answer.status_code == 202:  # a slow machine: the order goes on without its caller
            shop.await_state(answer.json()["id"], "paid", "blocked")
    orders = shop.sql("SELECT id, state FROM payments_order WHERE reference LIKE %s", f"{name}-%")
    charges = Counter({"paid": 0, "blocked": 0})
    for order_id, state in orders:
        charges[state] += len(shop.intents(order_id))
    assert charges == {"paid": 4, "blocked": 0}
    return Counter(state for _, state in orders)
