"""Child of the receipt benchmark: what one delivery costs the database, in numbers instead of time.

Runs in the environment of the application that it is given; prints JSON of delivery -> [statements, transactions].
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import uuid
from collections.abc import Callable, Iterator

import psycopg

from benchmarks.receipt_load import sign

DELIVERIES = 200
SECRET = "whsec_benchmark"


def count_statements() -> Callable[[], int]:
    """Counts what the driver is asked to execute from here on; BEGIN and COMMIT are not asked for by statement."""
    execute = psycopg.Cursor.execute
    numbers = itertools.count()

    def counting(self, *arguments, **options):
        next(numbers)
        return execute(self, *arguments, **options)

    psycopg.Cursor.execute = counting
    return lambda: next(numbers)


def count_transactions() -> int:
    """Committed ones of the database so far, whether or not they wrote; of closed connections for certain."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        query = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        return connection.execute(query).fetchone()[0]


def make_bodies(kind: str, ids: list[str]) -> Iterator[bytes]:
    note = "another" if kind == "conflict" else "first"
    for event_id in ids:
        event = {
            "id": event_id,
            "object": "event",
            "type": "balance.available",
            "created": 1,
            "livemode": False,
            "data": {"object": {"object": "balance", "note": note}},
        }
        yield json.dumps(event).encode()


def main(name: str) -> None:
    path = load_application(name)
    # After the application, which sets Django up.
    from django.db import connections  # noqa: PLC0415
    from django.test import Client  # noqa: PLC0415

    client = Client(SERVER_NAME="127.0.0.1")

    def deliver(bodies: Iterator[bytes]) -> None:
        for body in bodies:
            answer = client.post(
                path, body, content_type="application/json", headers={"Stripe-Signature": sign(body, SECRET)}
            )
            assert answer.status_code == 200, (answer.status_code, answer.content[:500])

    deliver(make_bodies("stored", [f"evt_{uuid.uuid4().hex}"]))
    ids = [f"evt_{uuid.uuid4().hex}" for _ in range(DELIVERIES)]
    statements = count_statements()
    found = {}
    for kind in ("stored", "duplicate", "conflict"):
        connections.close_all()
        before, first = count_transactions(), statements()
        deliver(make_bodies(kind, ids))
        asked = statements() - first - 1  # reading the counter counts, too
        connections.close_all()
        # The two readings of the counter are a transaction each, of which the first is among those counted.
        done = count_transactions() - before - 1
        found[kind] = [asked / DELIVERIES, done / DELIVERIES]
    print(json.dumps(found))


def load_application(name: str) -> str:
    """Sets Django up for the application; the path that takes its webhooks."""
    if name == "ours":
        from config import wsgi  # noqa: F401, PLC0415

        return "/webhooks/stripe/default/"
    from benchmarks import receipt_djstripe  # noqa: PLC0415

    return receipt_djstripe.find_path()


if __name__ == "__main__":
    main(sys.argv[1])
