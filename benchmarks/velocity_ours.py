"""Child of the velocity benchmark: counts orders in a scratch database, one caller and eight threads."""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from redis import Redis  # noqa: E402

from fraud.facts import DIMENSIONS, Measure, VelocityKey  # noqa: E402
from fraud.velocity import begin_epoch, count_order, counters  # noqa: E402
from fraud.velocity.keys import hash_values  # noqa: E402
from payments import sql  # noqa: E402
from payments.ids import new_id  # noqa: E402
from payments.money import Money  # noqa: E402

TOTAL = Money(12950, "EUR")
BUSY, BUSY_EVENTS = "192.0.2.1", 10_000
MORE = (
    VelocityKey("card", 86400, measure=Measure.SUM),
    VelocityKey("email", 86400, measure=Measure.SUM),
    VelocityKey("ip", 86400, measure=Measure.DISTINCT, of="card"),
    VelocityKey("network", 3600, measure=Measure.DISTINCT, of="email"),
    VelocityKey("card", 3600, "decline"),
)
WEEKS = (VelocityKey("email", 7 * 86400), VelocityKey("customer", 30 * 86400, measure=Measure.SUM))
OF_BUSY = (
    VelocityKey("ip", 86400, measure=Measure.SUM),
    VelocityKey("ip", 86400, measure=Measure.DISTINCT, of="card"),
)
FILL_BUSY = """
INSERT INTO fraud_velocityevent
    (order_id, kind, amount, currency, at, card, email, ip, network, device, customer, address)
SELECT 'ord_' || n, 'attempt', 100, 'EUR', now() - n * interval '6 seconds', md5('card' || n), '', %s, '', '', '', ''
FROM generate_series(1, %s) n
"""
_numbers = iter(range(10**9))
found: dict[str, float] = {}


def measure(name: str, work: Callable[[], object], *, threads: int = 1, calls: int) -> None:
    took: list[list[float]] = [[] for _ in range(threads)]
    line = threading.Barrier(threads + 1)

    def loop(mine: list[float]) -> None:
        for _ in range(10):
            work()
        line.wait()
        for _ in range(calls // threads):
            started = time.perf_counter()
            work()
            mine.append(time.perf_counter() - started)
        connection.close()

    workers = [threading.Thread(target=loop, args=(mine,)) for mine in took]
    for worker in workers:
        worker.start()
    line.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    rate = sum(map(len, took)) / (time.perf_counter() - began)
    every = sorted(seconds * 1e6 for mine in took for seconds in mine)
    found[f"{name} | p50"] = statistics.median(every)
    found[f"{name} | p99"] = every[int(len(every) * 0.99)]
    found[f"{name} | rate"] = rate


def count_one(keys: Iterable[VelocityKey] = (), **same: str) -> None:
    number = next(_numbers)
    values = {name: f"{name} {number}" for name in DIMENSIONS} | {"network": f"network {number // 8}"}
    count_order(new_id("ord"), TOTAL, values | same, keys)


def measure_redis(calls: int) -> None:
    ping = Redis.from_url(settings.REDIS_URL).ping
    measure("an empty trip to PostgreSQL", lambda: sql.fetch_one("SELECT 1", []), calls=calls)
    measure("an empty trip to Redis", ping, calls=calls)
    measure("with Redis, one caller", count_one, calls=calls)
    measure("with Redis, 5 more figures", lambda: count_one(MORE), calls=calls)
    measure("with Redis, 7 more, 2 of them over weeks", lambda: count_one(MORE + WEEKS), calls=calls)
    measure("with Redis, 8 threads", count_one, threads=8, calls=calls)


def measure_busy(name: str) -> None:
    measure(f"{name}, busy key, counts", lambda: count_one(ip=BUSY), calls=300)
    measure(f"{name}, busy key, sum and distinct too", lambda: count_one(OF_BUSY, ip=BUSY), calls=300)


def measure_memory() -> None:
    """By 1,000 orders each in an epoch of its own."""
    client = Redis.from_url(settings.REDIS_URL)
    begin_epoch()
    count_one()
    before, rows_before = client.info("memory")["used_memory"], table_size()
    for _ in range(1000):
        count_one()
    found["bytes"] = (client.info("memory")["used_memory"] - before) / 1000
    found["row"] = (table_size() - rows_before) / 1000


def table_size() -> int:
    row = sql.fetch_one("SELECT pg_total_relation_size('fraud_velocityevent')", [])
    assert row is not None
    return int(row[0])


def main(calls: int) -> None:
    call_command("migrate", verbosity=0)
    counters.TIMEOUT_SECONDS = 5.0  # a busy machine is not a broken Redis
    measure_redis(calls)
    measure_memory()
    sql.run(FILL_BUSY, [hash_values({"ip": BUSY})["ip"], BUSY_EVENTS])
    sql.run("ANALYZE fraud_velocityevent", [])
    begin_epoch()
    measure_busy("with Redis")
    settings.REDIS_URL = ""
    measure("without Redis, one caller", count_one, calls=calls)
    measure("without Redis, 8 threads", count_one, threads=8, calls=calls)
    measure_busy("without Redis")
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
