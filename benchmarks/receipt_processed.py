"""A webhook from its receipt to its effect, beside dj-stripe: the same captures of the same intents, told to both."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psycopg

from benchmarks.measure import ROOT, CpuMeter, drop_scratch, scratch_url
from benchmarks.receipt import (
    OURS,
    PEER,
    PEER_LOCK,
    PEER_VENV,
    Target,
    load,
    our_environment,
    serving_ours,
    serving_peer,
)
from benchmarks.servers import running_sandbox
from config.management.commands.bench import install_locked

WORKERS = 2
NOTE = """Payment intents of one order each, authorized here and captured at the gateway; both are sent the same
`payment_intent.succeeded`, by 8 clients, and the clock stops when the last one has had its effect. dj-stripe processes
within the request: it stores the event, fetches the intent again from the gateway (the sandbox on this machine, whose
CPU is not counted and which answers sooner than Stripe would) and writes its copy. Ours stores the event and answers;
two workers apply it from the body, which is signed: lock, capture, ledger, order, events. CPU in milliseconds per
event: of gunicorn's processes and the workers, and of the database's backends."""


@dataclass(frozen=True)
class Batch:
    """Seconds per event until the answer and until the effect, and of CPU."""

    answered: float
    done: float
    application: float
    database: float


def main(*, rounds: int = 5, count: int = 60) -> None:
    install_locked(PEER_VENV, PEER_LOCK)
    ours, theirs = scratch_url("bench_receipt"), scratch_url("bench_djstripe")
    found: dict[str, list[Batch]] = {OURS: [], PEER: []}
    try:
        with ExitStack() as stack:
            gateway = stack.enter_context(running_sandbox())
            we = stack.enter_context(serving_ours(ours, gateway))
            they = stack.enter_context(serving_peer(theirs, gateway, mode="processed"))
            workers = stack.enter_context(working(ours, gateway))
            for number in range(rounds + 1):  # the first warms both up
                events = prepare(ours, gateway, count if number else count // 2)
                batches = {
                    OURS: process(we, events, workers, "webhooks_inboundwebhook WHERE state = 'processed'"),
                    PEER: process(they, events, [], "djstripe_webhookeventtrigger WHERE processed"),
                }
                for name, batch in batches.items():
                    found[name] += [batch] if number else []
    finally:
        drop_scratch("bench_receipt")
        drop_scratch("bench_djstripe")
    report(found)


@contextmanager
def working(url: str, gateway: str) -> Iterator[list[int]]:
    """Our workers; their process ids."""
    command = [sys.executable, "-m", "benchmarks.receipt_ours", "work"]
    environment = our_environment(url, gateway)
    workers = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE) for _ in range(WORKERS)
    ]
    try:
        yield [worker.pid for worker in workers]
    finally:
        for worker in workers:
            worker.communicate(timeout=60)  # ends its stdin, and with it the worker


def prepare(url: str, gateway: str, count: int) -> list[bytes]:
    """Events of captures that we do not know of yet."""
    command = [sys.executable, "-m", "benchmarks.receipt_ours", "prepare", str(count)]
    environment = our_environment(url, gateway)
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    return done.stdout.splitlines()


def process(target: Target, events: Sequence[bytes], workers: Sequence[int], processed: str) -> Batch:
    """Send them all and wait until `processed` (a table and a condition) has so many rows more."""
    with psycopg.connect(target.url, autocommit=True) as connection:

        def count() -> int:
            return connection.execute(f"SELECT count(*) FROM {processed}").fetchone()[0]

        wanted = count() + len(events)
        meter = CpuMeter(target.url, target.server.pid, *workers)
        turn = load(target, events)
        while count() < wanted:
            if time.time() - turn.started > 120:
                raise TimeoutError(f"{wanted - count()} of {len(events)} events had no effect")
            time.sleep(0.01)
        spent = time.time() - turn.started
        application, database = meter.read()
    each = len(events)
    return Batch(1 / turn.rate, spent / each, application / each, database / each)


def report(found: dict[str, list[Batch]]) -> None:
    def median(name: str, part: str) -> float:
        return statistics.median(getattr(batch, part) for batch in found[name])

    print("\nWebhook, from receipt to effect\n")
    print(f"| {'':10} | answered per s | effects per s | times {PEER} | app CPU ms | database CPU ms |")
    print(f"|{'-' * 12}|---------------:|--------------:|----------------:|-----------:|----------------:|")
    for name in found:
        print(
            f"| {name:10} | {1 / median(name, 'answered'):14.0f} | {1 / median(name, 'done'):13.0f} "
            f"| {median(PEER, 'done') / median(name, 'done'):15.2f} "
            f"| {median(name, 'application') * 1e3:10.2f} | {median(name, 'database') * 1e3:15.2f} |"
        )
    print(f"\n{NOTE}\n")


if __name__ == "__main__":
    main()
