"""A webhook's receipt over HTTP, beside dj-stripe's endpoint, a bare Django insert view and pgbench's one insert."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psycopg

from benchmarks.measure import ROOT, CpuMeter, drop_scratch, pgbench_arguments, scratch_url
from benchmarks.servers import Server, running_sandbox, serving
from config import embedded
from config.management.commands.bench import install_locked

SECRET = "whsec_benchmark"
PEER_LOCK = ROOT / "requirements" / "bench-djstripe.txt"
PEER_VENV = embedded.LOCAL / "bench-djstripe"
CLIENTS = 8
ARRIVING = 32  # connections of the open loop: more than the servers have threads, so that they queue there
LOAD = 0.8
OURS, PEER, BARE, LIMIT = "ours", "dj-stripe", "a bare insert view", "pgbench, one insert"
NOTE = f"""{CLIENTS} keep-alive clients in one process; gunicorn with 2 workers of 4 threads for every application; the
same bodies of about 1 KB, signed as Stripe signs; one PostgreSQL, synchronous_commit on; rounds in turns, medians
over them. CPU in microseconds per receipt: of gunicorn's processes, of the database's backends, of the clients. Ours
verifies, tells duplicates and conflicts, looks for card data and archives headers and body; dj-stripe verifies and
stores its trigger row, with processing left to a callback; the bare view has no middleware and inserts the body;
pgbench sends the insert alone, prepared. Aims: ours at least 5 times dj-stripe, at least 0.90 of the bare view."""
LATENCY_NOTE = f"""Requests come at random moments (Poisson), at {LOAD:.0%} of the rate measured just before, over
{ARRIVING} connections; a latency counts from the moment the request was due, not from when it could be sent. Medians
over rounds. Aim: p99 under 10 times the median."""
COUNT_NOTE = """Per delivery, in process, without HTTP: statements as the driver is given them, transactions as
PostgreSQL counts them (reading alone included). Aim: one transaction per stored receipt, at most three statements for
any."""


@dataclass(frozen=True)
class Turn:
    """One application under load for a while; CPU in seconds per receipt."""

    started: float  # Unix time of the first request
    rate: float
    p50: float
    p99: float
    application: float
    database: float
    clients: float


@dataclass(frozen=True)
class Target:
    """An application that takes receipts."""

    server: Server
    path: str
    url: str  # of its database


def main(*, rounds: int = 7, seconds: float = 2.0) -> None:
    install_locked(PEER_VENV, PEER_LOCK)
    ours, theirs = scratch_url("bench_receipt"), scratch_url("bench_djstripe")
    try:
        with running_sandbox() as gateway:
            measure_stored(ours, theirs, gateway, rounds=rounds, seconds=seconds)
            count(ours, theirs, gateway)

    finally:
        drop_scratch("bench_receipt")
        drop_scratch("bench_djstripe")


def measure_stored(ours: str, theirs: str, gateway: str, *, rounds: int, seconds: float) -> None:
    fast: dict[str, list[Turn]] = {name: [] for name in (OURS, PEER, BARE)}
    steady: dict[str, list[Turn]] = {name: [] for name in (OURS, PEER, BARE)}
    limit = []
    with ExitStack() as stack:
        targets = {
            OURS: stack.enter_context(serving_ours(ours, gateway)),
            PEER: stack.enter_context(serving_peer(theirs, gateway, mode="stored")),
            BARE: stack.enter_context(serving_bare(ours)),
        }
        for target in targets.values():
            load(target, make_events(400))
        for _ in range(rounds):
            limit.append(pgbench(ours, seconds))
            for name, target in targets.items():  # in turns, and the others idle
                fast[name].append(load(target, make_events(int(6000 * seconds)), seconds=seconds))
                rate = LOAD * fast[name][-1].rate
                bodies = make_events(int(2 * rate * seconds) + 100)
                steady[name].append(load(target, bodies, seconds=seconds, rate=rate))
    report_rates(fast, limit)
    report_latencies(steady)


# --- the applications ---------------------------------------------------------------------------------------


@contextmanager
def serving_ours(url: str, gateway: str) -> Iterator[Target]:
    environment = our_environment(url, gateway)
    run = [sys.executable, "manage.py", "migrate", "-v0"]
    subprocess.run(run, cwd=ROOT, env=environment, check=True)
    with serving("config.wsgi:application", environment) as server:
        yield Target(server, "/webhooks/stripe/default/", url)


def our_environment(url: str, gateway: str) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": url,
        "PYTHONPATH": str(ROOT),
        "LOG_LEVEL": "WARNING",
        "STRIPE_WEBHOOK_SECRET": SECRET,
        "STRIPE_API_BASE": gateway,
        "STRIPE_API_KEY": "sk_test_bench",
        "GATEWAY_RATE_LIMIT": "10000/second",
    }


@contextmanager
def serving_peer(url: str, gateway: str, *, mode: str) -> Iterator[Target]:
    environment = peer_environment(url, gateway, mode=mode)
    python = PEER_VENV / "bin" / "python"
    made = subprocess.run(
        [python, "-m", "benchmarks.receipt_djstripe"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    with serving("benchmarks.receipt_djstripe:application", environment, python=python) as server:
        yield Target(server, made.stdout.split()[-1], url)


def peer_environment(url: str, gateway: str, *, mode: str) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": url,
        "PYTHONPATH": str(ROOT),
        "STRIPE_API_BASE": gateway,
        "PEER_MODE": mode,
    }


@contextmanager
def serving_bare(url: str) -> Iterator[Target]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE bench_receipt (id uuid PRIMARY KEY, event_id text UNIQUE, body bytea)"
        )
    environment = {**os.environ, "DATABASE_URL": url, "PYTHONPATH": str(ROOT)}
    with serving("benchmarks.receipt_peer:application", environment) as server:
        yield Target(server, "/webhooks/stripe/default/", url)


# --- the load -----------------------------------------------------------------------------------------------


def make_events(count: int) -> list[bytes]:
    """Bodies of about 1 KB that differ in their event id."""
    event = {
        "id": "evt_",
        "object": "event",
        "api_version": "2024-06-20",
        "created": int(time.time()),
        "data": {"object": {"object": "balance", "livemode": False, "note": "x" * 700}},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": "balance.available",
    }
    head, tail = json.dumps(event).split("evt_", 1)
    return [f"{head}evt_{uuid.uuid4().hex}{tail}".encode() for _ in range(count)]


def load(
    target: Target, bodies: Sequence[bytes], *, seconds: float | None = None, rate: float | None = None
) -> Turn:
    """Send until the bodies or the seconds are over; any answer but 200 ends the benchmark."""
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.write(b"\n".join(bodies))
        file.flush()
        command = [sys.executable, "-m", "benchmarks.receipt_load", file.name, "--secret", SECRET]
        command += ["--port", str(target.server.port), "--path", target.path]
        command += ["--seconds", str(seconds)] if seconds else []
        command += (
            ["--rate", str(rate), "--connections", str(ARRIVING)] if rate else ["--connections", str(CLIENTS)]
        )
        meter = CpuMeter(target.url, target.server.pid)
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        application, database = meter.read()
    told = json.loads(done.stdout)
    count = told["done"]
    return Turn(
        started=told["started"],
        rate=count / told["seconds"],
        p50=told["p50"],
        p99=told["p99"],
        application=application / count,
        database=database / count,
        clients=told["cpu"] / count,
    )


def pgbench(url: str, seconds: float) -> float:
    """Transactions per second of one prepared insert of a body of the same size."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(
            "INSERT INTO bench_receipt (id, event_id, body) "
            "VALUES (gen_random_uuid(), gen_random_uuid()::text, convert_to(repeat('x', 1000), 'UTF8'));\n"
        )
        script.flush()
        binary = str(embedded.postgres_binaries() / "pgbench")
        command = [binary, "-n", "-M", "prepared", "-f", script.name, "-c", str(CLIENTS), "-j", "2"]
        command += ["-T", str(max(1, round(seconds))), *pgbench_arguments(url)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    assert found, done.stdout
    return float(found[1])


# --- counting -----------------------------------------------------------------------------------------------


def count(ours: str, theirs: str, gateway: str) -> None:
    """Statements and transactions per delivery, by what becomes of it."""
    peer = peer_environment(theirs, gateway, mode="stored")
    children = {
        OURS: (sys.executable, {**our_environment(ours, gateway), "LOG_LEVEL": "CRITICAL"}),
        PEER: (PEER_VENV / "bin" / "python", peer),
    }
    print("\nStatements and transactions per delivery\n")
    print(f"| {'':12} | {'delivery':10} | statements | transactions |")
    print(f"|{'-' * 14}|{'-' * 12}|-----------:|-------------:|")
    for name, (python, environment) in children.items():
        command = [str(python), "-m", "benchmarks.receipt_count", name]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        for kind, (statements, transactions) in json.loads(done.stdout.splitlines()[-1]).items():
            print(f"| {name:12} | {kind:10} | {statements:10.2f} | {transactions:12.2f} |")
    print(f"\n{COUNT_NOTE}\n")


# --- the tables ---------------------------------------------------------------------------------------------


def report_rates(turns: dict[str, list[Turn]], limit: list[float]) -> None:
    print("\nWebhook receipt, stored\n")
    print(
        f"| {'':20} | per s | {'range':>13} | times dj-stripe | times bare | app us | database us | clients us |"
    )
    print(
        f"|{'-' * 22}|------:|{'-' * 14}:|----------------:|-----------:|-------:|------------:|-----------:|"
    )
    peer, bare = (statistics.median(turn.rate for turn in turns[name]) for name in (PEER, BARE))
    for name, rates in [
        *((name, [turn.rate for turn in found]) for name, found in turns.items()),
        (LIMIT, limit),
    ]:
        median = statistics.median(rates)
        spread = f"{min(rates):.0f}..{max(rates):.0f}"
        print(
            f"| {name:20} | {median:5.0f} | {spread:>13} | {median / peer:15.2f} | {median / bare:10.2f} |",
            end="",
        )
        if name in turns:
            costs = [
                statistics.median(getattr(turn, part) for turn in turns[name]) * 1e6
                for part in ("application", "database", "clients")
            ]
            print(" {:6.0f} | {:11.0f} | {:10.0f} |".format(*costs))
        else:
            print(f" {'':6} | {'':11} | {'':10} |")
    print(f"\n{NOTE}\n")


def report_latencies(turns: dict[str, list[Turn]]) -> None:
    print(f"\nWebhook receipt, at {LOAD:.0%} of the highest rate\n")
    print(f"| {'':20} | per s | median ms | p99 ms | p99 / median |")
    print(f"|{'-' * 22}|------:|----------:|-------:|-------------:|")
    for name, found in turns.items():
        rate, p50, p99, ratio = (
            statistics.median(values)
            for values in zip(
                *((turn.rate, turn.p50, turn.p99, turn.p99 / turn.p50) for turn in found), strict=True
            )
        )
        print(f"| {name:20} | {rate:5.0f} | {p50 * 1e3:9.2f} | {p99 * 1e3:6.2f} | {ratio:12.1f} |")
    print(f"\n{LATENCY_NOTE}\n")


if __name__ == "__main__":
    main()
