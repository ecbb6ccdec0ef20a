"""The database stops, the process dies: what was answered with 2xx is in the archive, and the rest comes again."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest
import requests
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.journeys.shop import WEBHOOK_PATH, Shop, free_url, open_shop
from tests.journeys.waiting import wait_until
from webhooks.verifiers import stripe

pytestmark = pytest.mark.faults

TESTS = 6
LOAD, SENDERS, KILLED_EVERY = 300, 8, 25


@pytest.fixture(scope="module")
def shop(servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop of its own, whose database may be stopped."""
    with open_shop("receipts", tmp_path_factory.mktemp("receipts")) as running:
        yield running


@pytest.fixture(scope="module")
def events(shop: Shop) -> list[dict[str, Any]]:
    """Authentic events about paid orders, one for each test; made before anything is broken."""
    paid = {shop.pay()["id"] for _ in range(TESTS)}
    told = shop.call_gateway("events?type=payment_intent.succeeded&limit=100", method="GET")["data"]
    found = [event for event in told if event["data"]["object"].get("metadata", {}).get("order_id") in paid]
    assert len(found) == TESTS
    return found


@pytest.fixture
def event(shop: Shop, events: list[dict[str, Any]]) -> dict[str, Any]:
    """One whose copies under other ids are processed like it.

    Nothing else is under way by then: what a worker had in hand when it was cut off waits for its lease.
    """
    received = "SELECT event_type FROM webhooks_inboundwebhook WHERE state = 'received'"
    wait_until(lambda: not shop.sql(received), what=lambda: shop.sql(received))
    return events.pop()


@pytest.fixture(scope="module")
def mortal(shop: Shop) -> str:
    """The address of a web process that dies where the event's id says so, and comes back."""
    url, folder = free_url(), shop.folder / "mortal"
    folder.mkdir()
    shop.start_web("mortal", url=url, application="tests.faults.mortal_web", MORTAL_FOLDER=str(folder))
    return url


def send(shop: Shop, event: dict[str, Any], event_id: str, *, url: str = "") -> requests.Response:
    body = json.dumps(event | {"id": event_id}).encode()
    signature = stripe.sign(body, secret=shop.webhook_secret, timestamp=int(time.time()))
    headers = {"Content-Type": "application/json", "Stripe-Signature": signature}
    return requests.post((url or shop.url) + WEBHOOK_PATH, data=body, headers=headers, timeout=60)


def send_until_taken(shop: Shop, event: dict[str, Any], event_id: str, *, url: str = "") -> list[int]:
    """As a gateway does: again until it is taken. The statuses, 0 for an answer that never came."""

    def once() -> bool:
        try:
            statuses.append(send(shop, event, event_id, url=url).status_code)
        except requests.RequestException:
            statuses.append(0)
        return statuses[-1] == 200

    statuses: list[int] = []
    wait_until(once, what=lambda: f"{event_id}: {statuses}")
    return statuses


def count_rows(shop: Shop, event_id: str) -> int:
    [(rows,)] = shop.sql("SELECT count(*) FROM webhooks_inboundwebhook WHERE event_id = %s", event_id)
    return int(rows)


def await_processed(shop: Shop, event_id: str) -> None:
    query = "SELECT state, attempts, last_error FROM webhooks_inboundwebhook WHERE event_id = %s"
    look = lambda: [row for row in shop.sql(query, event_id) if row[0] == "processed"]  # noqa: E731
    wait_until(look, what=lambda: shop.sql(query, event_id))


# --- the database -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(shop: Shop) -> Iterator[psycopg.Connection[Any]]:
    """The server that the shop's database is on, from outside of it."""
    address = make_conninfo(settings.DATABASE_URL, dbname="postgres")
    with psycopg.connect(address, autocommit=True) as connection:
        yield connection


def name_of(shop: Shop) -> str:
    return str(conninfo_to_dict(shop.database)["dbname"])


def end_connections(server: psycopg.Connection[Any], shop: Shop) -> None:
    """Who holds a table's lock goes last: what waits for it must end, not go on."""
    others = "FROM pg_stat_activity WHERE datname = %s AND query NOT LIKE 'LOCK TABLE%%'"
    ended = f"SELECT count(pg_terminate_backend(pid)) {others} AND wait_event_type = 'Lock'"
    waiting = f"SELECT count(*) {others} AND wait_event_type = 'Lock'"
    wait_until(
        lambda: (
            server.execute(ended, [name_of(shop)])
            and server.execute(waiting, [name_of(shop)]).fetchone() == (0,)
        ),
        what="whoever waits for a lock ends",
    )
    everybody = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s"
    server.execute(everybody, [name_of(shop)])


@contextmanager
def altered(server: psycopg.Connection[Any], shop: Shop, change: str, back: str) -> Iterator[None]:
    """The shop's database with a setting that every new connection sees, and none but new ones."""
    server.execute(f"ALTER DATABASE {name_of(shop)} {change}".encode())
    end_connections(server, shop)
    try:
        yield
    finally:
        server.execute(f"ALTER DATABASE {name_of(shop)} {back}".encode())
        end_connections(server, shop)


@contextmanager
def locked(shop: Shop) -> Iterator[None]:
    """Nobody can write the archive meanwhile."""
    with suppress(psycopg.OperationalError), psycopg.connect(shop.database) as holder:  # it may be ended
        holder.execute("LOCK TABLE webhooks_inboundwebhook IN ACCESS EXCLUSIVE MODE")
        yield


def is_waiting(server: psycopg.Connection[Any], shop: Shop) -> bool:
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock' "
        "AND query LIKE '%%INSERT INTO webhooks_inboundwebhook%%'"
    )
    row = server.execute(waiting, [name_of(shop)]).fetchone()
    return bool(row and row[0])


def test_a_database_that_stops_during_a_delivery_is_a_503_and_the_retry_is_processed(
    shop: Shop, event: dict[str, Any], server: psycopg.Connection[Any]
) -> None:
    answers: list[requests.Response] = []
    with locked(shop):
        sender = threading.Thread(target=lambda: answers.append(send(shop, event, "evt_stopped_1")))
        sender.start()
        wait_until(lambda: is_waiting(server, shop), what="the delivery waits for its insert")
        with altered(server, shop, "ALLOW_CONNECTIONS false", "ALLOW_CONNECTIONS true"):
            sender.join()
            answers.append(send(shop, event, "evt_stopped_1"))
    assert [answer.status_code for answer in answers] == [503, 503]
    assert {answer.json()["code"] for answer in answers} == {"not_stored"}
    assert {answer.headers["Retry-After"] for answer in answers} == {"10"}
    assert count_rows(shop, "evt_stopped_1") == 0
    assert set(send_until_taken(shop, event, "evt_stopped_1")) <= {503, 200}
    await_processed(shop, "evt_stopped_1")


def test_a_database_that_only_reads_is_a_503(
    shop: Shop, event: dict[str, Any], server: psycopg.Connection[Any]
) -> None:
    read_only = "SET default_transaction_read_only = on", "RESET default_transaction_read_only"
    with altered(server, shop, *read_only):
        assert send(shop, event, "evt_readonly_1").status_code == 503
    assert count_rows(shop, "evt_readonly_1") == 0
    send_until_taken(shop, event, "evt_readonly_1")
    await_processed(shop, "evt_readonly_1")


def test_an_archive_that_does_not_answer_in_time_is_a_503(shop: Shop, event: dict[str, Any]) -> None:
    with locked(shop):
        assert send(shop, event, "evt_locked_1").status_code == 503
    send_until_taken(shop, event, "evt_locked_1")
    assert count_rows(shop, "evt_locked_1") == 1


# --- the process --------------------------------------------------------------------------------------------


def test_killed_after_the_commit_it_is_processed_though_nobody_was_told(
    shop: Shop, mortal: str, event: dict[str, Any]
) -> None:
    with pytest.raises(requests.ConnectionError):
        send(shop, event, "evt_after_1", url=mortal)
    await_processed(shop, "evt_after_1")
    assert send_until_taken(shop, event, "evt_after_1", url=mortal)[-1] == 200
    assert count_rows(shop, "evt_after_1") == 1


def test_killed_before_the_commit_nothing_is_left_and_the_retry_is_processed(
    shop: Shop, mortal: str, event: dict[str, Any]
) -> None:
    with pytest.raises(requests.ConnectionError):
        send(shop, event, "evt_before_1", url=mortal)
    assert count_rows(shop, "evt_before_1") == 0
    send_until_taken(shop, event, "evt_before_1", url=mortal)
    await_processed(shop, "evt_before_1")


def test_nothing_that_was_answered_is_ever_missing(shop: Shop, mortal: str, event: dict[str, Any]) -> None:
    def name(number: int) -> str:
        if number % KILLED_EVERY:
            return f"evt_load_{number}"
        return f"evt_{'after' if number % (2 * KILLED_EVERY) else 'before'}_load_{number}"

    names = [name(number) for number in range(1, LOAD + 1)]
    with ThreadPoolExecutor(SENDERS) as pool:
        log = list(pool.map(lambda event_id: send_until_taken(shop, event, event_id, url=mortal), names))
    seen = Counter(status for statuses in log for status in statuses)
    print(f"\nanswers: {dict(seen)}")
    assert seen[200] == LOAD
    assert seen[0] >= LOAD // KILLED_EVERY, "processes were killed meanwhile"
    kept = shop.sql("SELECT event_id FROM webhooks_inboundwebhook WHERE event_id LIKE '%_load_%'")
    assert sorted(row[0] for row in kept) == sorted(names), "each once, and all that was answered"
    payloads = "SELECT count(*) FROM webhooks_inboundwebhook w LEFT JOIN webhooks_inboundpayload p"
    bare = shop.sql(f"{payloads} ON p.webhook_id = w.id WHERE p.webhook_id IS NULL")
    assert bare == [(0,)]
