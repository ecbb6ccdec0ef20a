"""A webhook receipt over HTTP beside a bare Django insert view and beside pgbench's one-insert transaction."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from benchmarks.measure import ROOT, drop_scratch, pgbench_arguments, scratch_url, table
from config import embedded

SECRET = "whsec_benchmark"
CLIENTS = 8
AIMS = {"our webhook receipt": 0.9}
NOTE = """Receipts per second with 8 keep-alive clients, the same gunicorn (2 workers of 4 threads) for both views.
Ours verifies the signature, archives headers and body under a dedup key, and runs request id and security headers;
the bare view has no middleware and inserts the body. pgbench is PostgreSQL's
own limit for the same one-insert transaction, without HTTP. Aim: at least 0.90 of the bare view."""


def main(*, rounds: int = 3, seconds: float = 4.0) -> None:
    url = scratch_url("bench_receipt")
    environment = {**os.environ, "DATABASE_URL": url, "STRIPE_WEBHOOK_SECRET": SECRET, "LOG_LEVEL": "WARNING"}
    environment["PYTHONPATH"] = str(ROOT)
    try:
        prepare(url, environment)
        rates: dict[str, list[float]] = defaultdict(list)
        for _ in range(rounds):
            with serving("benchmarks.receipt_peer:application", environment) as port:
                rates["a bare Django insert view"].append(load(port, seconds))
            with serving("config.wsgi:application", environment) as port:
                rates["our webhook receipt"].append(load(port, seconds))
            rates["pgbench, one insert per transaction"].append(pgbench(url, seconds))
    finally:
        drop_scratch("bench_receipt")
    table(
        "Webhook receipt",
        list(rates.items()),
        base="a bare Django insert view",
        unit="per s",
        aims=AIMS,
        note=NOTE,
    )


def prepare(url: str, environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE bench_receipt (id uuid PRIMARY KEY, event_id text UNIQUE, body bytea)"
        )


@contextmanager
def serving(application: str, environment: dict[str, str]) -> Iterator[int]:
    """gunicorn with this application on a free port, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        application,
        "--bind",
        f"127.0.0.1:{port}",
        "--log-level",
        "error",
    ]
    process = subprocess.Popen(
        [*command, "--workers", "2", "--threads", "4", "--worker-class", "gthread", "--keep-alive", "30"],
        cwd=ROOT,
        env=environment,
    )
    try:
        wait_for(lambda: deliver(http.client.HTTPConnection("127.0.0.1", port, timeout=5), 0) == 200)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(is_ready: Callable[[], bool], *, timeout: float = 60) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        try:
            if is_ready():
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("the server did not answer")


_numbers = itertools.count()


def deliver(connection: http.client.HTTPConnection, client: int) -> int:
    """POST one signed event of about 1 KB."""
    event = {
        "id": f"evt_bench_{os.getpid()}_{next(_numbers)}_{time.time_ns()}",
        "object": "event",
        "type": "balance.available",
        "created": int(time.time()),
        "data": {"object": {"note": "x" * 800}},
    }
    body = json.dumps(event).encode()
    stamp = int(time.time())
    signature = hmac.new(SECRET.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json", "Stripe-Signature": f"t={stamp},v1={signature}"}
    connection.request("POST", "/webhooks/stripe/default/", body, headers)
    response = connection.getresponse()
    response.read()
    return response.status


def load(port: int, seconds: float) -> float:
    """Accepted deliveries per second of CLIENTS keep-alive connections; any other answer ends the benchmark."""
    done, stop = [0] * CLIENTS, threading.Event()
    refused: list[int] = []

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        while not stop.is_set():
            status = deliver(connection, number)
            if status != 200:
                refused.append(status)
                return
            done[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    if refused:
        raise RuntimeError(f"answers other than 200: {refused}")
    return sum(done) / (time.perf_counter() - start)


def pgbench(url: str, seconds: float) -> float:
    """Transactions per second of one insert of the same size."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "insert.sql"
        script.write_text(
            "INSERT INTO bench_receipt (id, event_id, body) "
            "VALUES (gen_random_uuid(), gen_random_uuid()::text, repeat('x', 1000)::bytea);\n"
        )
        command = [
            str(embedded.postgres_binaries() / "pgbench"),
            "-n",
            "-f",
            str(script),
            "-c",
            str(CLIENTS),
            "-j",
            "2",
            "-T",
            str(int(seconds)),
        ]
        done = subprocess.run([*command, *pgbench_arguments(url)], capture_output=True, text=True, check=True)
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    assert found, done.stdout
    return float(found[1])


if __name__ == "__main__":
    main()
