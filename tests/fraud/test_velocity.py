"""Velocity counts exactly: many orders at once, with Redis, without it, and when it comes and goes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
from django.conf import settings
from django.db import connection
from pytest_django import Settings
from redis import Redis
from redis.exceptions import RedisError

from fraud import velocity
from fraud.models import VelocityEvent
from fraud.screening import RuleScreener
from fraud.velocity import Counts, count_order
from payments.decisions import Decision, Stage
from payments.models import Order
from payments.money import Money
from payments.screening import Screening
from tests.factories.fraud import RuleFactory, put_in_force
from tests.factories.payments import ApiClientFactory, GatewayAccountFactory, OrderFactory, PaymentFactory

pytestmark = [pytest.mark.concurrency, pytest.mark.django_db(transaction=True)]

TOTAL = Money(1000, "EUR")
LIMIT = 4
Answer = TypeVar("Answer")
NOBODY_LISTENS = "redis://127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def fresh_counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(velocity, "REDIS_TIMEOUT_SECONDS", 5.0)  # a busy machine is not a broken Redis
    velocity._client.cache_clear()
    velocity._down_until.clear()
    velocity.begin_epoch()
    yield
    velocity._client.cache_clear()
    velocity._down_until.clear()


def make_orders(number: int) -> list[Order]:
    client = ApiClientFactory()
    return [OrderFactory(client=client) for _ in range(number)]


def count(order: Order, card: str = "tok_1") -> Counts:
    return count_order(order.pk, TOTAL, {"card": card, "email": "buyer@example.com", "ip": ""}, [3600, 86400])


def seen(counts: Counts) -> int:
    return counts.by_window["card:3600"]


def at_once(work: Callable[[Order], Answer], orders: list[Order]) -> list[Answer]:
    """Run all from one starting line, each in a thread with its own connection."""
    line = threading.Barrier(len(orders))

    def run(order: Order) -> Answer:
        try:
            connection.ensure_connection()
            line.wait()
            return work(order)
        finally:
            connection.close()

    with ThreadPoolExecutor(len(orders)) as pool:
        return list(pool.map(run, orders))


def test_an_order_counts_itself_and_the_earlier_ones() -> None:
    first, second = make_orders(2)
    assert seen(count(first)) == 1
    counts = count(second)
    assert counts.source == "redis"
    assert counts.by_window == {"card:3600": 2, "card:86400": 2, "email:3600": 2, "email:86400": 2}


def test_an_order_without_anything_to_count_by_is_not_counted() -> None:
    [order] = make_orders(1)
    assert count_order(order.pk, TOTAL, {"card": "", "email": ""}, [3600]) == Counts({}, "")


def test_another_card_is_counted_apart() -> None:
    first, second = make_orders(2)
    count(first)
    counts = count(second, card="tok_2")
    assert counts.by_window["card:3600"] == 1
    assert counts.by_window["email:3600"] == 2


@pytest.mark.parametrize("url", [None, NOBODY_LISTENS], ids=["with Redis", "without Redis"])
def test_a_retry_counts_once_and_keeps_its_rank(url: str | None, settings: Settings) -> None:
    settings.REDIS_URL = url or settings.REDIS_URL
    first, second = make_orders(2)
    assert [seen(count(order)) for order in (first, second, first, second)] == [1, 2, 1, 2]
    assert VelocityEvent.objects.filter(dimension="card").count() == 2


@pytest.mark.parametrize("url", [None, NOBODY_LISTENS, ""], ids=["with Redis", "Redis stopped", "no Redis"])
def test_of_32_orders_at_once_exactly_the_limit_passes(url: str | None, settings: Settings) -> None:
    settings.REDIS_URL = settings.REDIS_URL if url is None else url
    results = at_once(count, make_orders(32))
    assert sorted(seen(counts) for counts in results) == list(range(1, 33))
    assert sum(seen(counts) <= LIMIT for counts in results) == LIMIT
    assert {counts.source for counts in results} == {"redis" if url is None else "postgresql"}


@pytest.mark.parametrize("url", [None, NOBODY_LISTENS], ids=["with Redis", "Redis stopped"])
def test_of_32_orders_screened_at_once_on_one_card_exactly_4_pass(
    url: str | None, settings: Settings
) -> None:
    settings.REDIS_URL = url or settings.REDIS_URL
    put_in_force(RuleFactory.build(ruleset=None))
    client, account = ApiClientFactory(), GatewayAccountFactory()
    payments = [PaymentFactory(order__client=client, account=account) for _ in range(32)]
    by_order = {payment.order: payment for payment in payments}

    def screen(order: Order) -> Screening:
        return RuleScreener().screen(order, by_order[order], stage=Stage.BEFORE_AUTHORIZATION)

    decisions = [screening.decision for screening in at_once(screen, list(by_order))]
    assert decisions.count(Decision.APPROVE) == 4
    assert decisions.count(Decision.BLOCK) == 28


def test_when_redis_stops_the_count_goes_on_where_it_was(settings: Settings) -> None:
    orders = make_orders(32)
    before = at_once(count, orders[:3])
    settings.REDIS_URL = NOBODY_LISTENS
    after = at_once(count, orders[3:])
    assert sorted(seen(counts) for counts in before + after) == list(range(1, 33))


def test_when_redis_comes_back_it_knows_what_was_counted_without_it(settings: Settings) -> None:
    orders = make_orders(3)
    address = settings.REDIS_URL
    assert seen(count(orders[0])) == 1
    settings.REDIS_URL = NOBODY_LISTENS
    assert seen(count(orders[1])) == 2
    settings.REDIS_URL = address
    counts = count(orders[2])
    assert (seen(counts), counts.source) == (3, "redis")


def test_an_emptied_redis_is_filled_from_the_rows() -> None:
    orders = make_orders(33)
    count(orders[0])
    Redis.from_url(settings.REDIS_URL).flushdb()
    results = at_once(count, orders[1:])
    assert sorted(seen(counts) for counts in results) == list(range(2, 34))


def test_a_redis_that_restarted_from_an_old_snapshot_is_not_trusted() -> None:
    orders = make_orders(3)
    count(orders[0])
    server = Redis.from_url(settings.REDIS_URL)
    count(orders[1])
    for key in server.scan_iter("velocity:*:card:*"):
        server.zrem(key, orders[1].pk)  # the snapshot is older than the second order
    server.script_flush()  # a restart forgets scripts
    assert seen(count(orders[2])) == 3


def test_an_order_that_loses_redis_after_its_row_is_counted_after_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    orders = make_orders(12)
    lost = threading.Event()
    counted = velocity._count_with_redis
    turns = iter(range(100))
    turn = threading.Lock()

    def lose_redis(*args: object) -> Counts:
        with turn:
            number = next(turns)
        if number >= 3:
            lost.set()
            raise RedisError("gone")
        return counted(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(velocity, "_count_with_redis", lose_redis)
    results = at_once(count, orders)
    assert lost.is_set()
    assert sum(seen(counts) <= LIMIT for counts in results) <= LIMIT


def test_keys_are_hashed() -> None:
    [order] = make_orders(1)
    count(order)
    names = list(Redis.from_url(settings.REDIS_URL).scan_iter("velocity:*"))
    assert names
    assert not [name for name in names if b"buyer" in name or b"tok_1" in name]
    assert not VelocityEvent.objects.filter(key_hash__contains="buyer").exists()
