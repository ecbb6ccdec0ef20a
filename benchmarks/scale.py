"""What a call costs with ten thousand stored orders and with very many: it should not matter."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence

from benchmarks.measure import ROOT, drop_scratch, run_child, scratch_url

SMALL, LARGE = 10_000, 1_000_000
FLAT = 0.20
CALLS = {
    "place": "place an order, paid at once",
    "capture": "capture a stored order",
    "refund": "refund a stored order",
    "read": "GET an order",
    "list": "GET the first page of orders",
    "fact": "apply a webhook's fact",
    "sweep": "sweep, nothing due",
    "ask": "ask gateways, nothing due",
}
ENVIRONMENT = {
    "GATEWAY_RATE_LIMIT": "10000/second",
    "API_RATE_LIMIT": "10000/second",
    "STRIPE_API_KEY": "sk_test_bench",
    "LOG_LEVEL": "ERROR",
    "PYTHONPATH": str(ROOT),
}
NOTE = """One process per database, the same code and the same gateway, which answers at once inside the process. The
two take turns every few calls, so both saw the same machine. What is read, captured and refunded is picked at random
from all stored orders: pages of the large database that nobody has read for long come from the disk. Read the ratio."""


class Worker:
    """A child that times calls on one database."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.scale_ours"],
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT, "DATABASE_URL": url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def time(self, call: str, times: int) -> list[float]:
        """Seconds of each call."""
        assert self._process.stdin
        assert self._process.stdout
        print(call, times, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the child died at {call}")
        seconds: list[float] = json.loads(answer)
        return seconds

    def stop(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=30)


def main(*, orders: int = LARGE, rounds: int = 12, times: int = 10) -> None:
    names = {SMALL: "bench_scale_small", orders: "bench_scale_large"}
    try:
        urls = {}
        for count, name in names.items():
            urls[count] = scratch_url(name)
            rows = run_child(
                "benchmarks.scale_fill", str(count), environment={**ENVIRONMENT, "DATABASE_URL": urls[count]}
            )
            size = rows.pop("bytes") / 1e9
            print(f"{count:,} orders: {sum(rows.values()):,.0f} rows, {size:.1f} GB", flush=True)
        report(measure(urls, rounds=rounds, times=times), orders)
    finally:
        for name in names.values():
            drop_scratch(name)


def measure(urls: dict[int, str], *, rounds: int, times: int) -> dict[int, dict[str, list[float]]]:
    """Seconds by size and call; the first batch of each is not counted."""
    workers = {count: Worker(url) for count, url in urls.items()}
    found: dict[int, dict[str, list[float]]] = {count: defaultdict(list) for count in urls}
    try:
        for number in range(rounds + 1):
            for call in CALLS:
                turns = list(workers.items())
                for count, worker in turns if number % 2 else reversed(turns):
                    seconds = worker.time(call, times)
                    if number:
                        found[count][call].extend(seconds)
    finally:
        for worker in workers.values():
            worker.stop()
    return found


def report(found: dict[int, dict[str, list[float]]], orders: int) -> None:
    print(f"\nCost of a call at {SMALL:,} and at {orders:,} stored orders, in milliseconds\n")
    print(
        f"| {'':30} | median | p95 at {SMALL:>6,} | median | p95 at {orders:>10,} | ratio | flat within {FLAT:.0%} |"
    )
    print(f"|{'-' * 32}|-------:|--------------:|-------:|------------------:|------:|-----------------|")
    for call, name in CALLS.items():
        small, large = summarize(found[SMALL][call]), summarize(found[orders][call])
        ratio = large[0] / small[0]
        verdict = "yes" if ratio <= 1 + FLAT else "NO"
        print(
            f"| {name:30} | {small[0]:6.2f} | {small[1]:13.2f} | {large[0]:6.2f} | {large[1]:17.2f} "
            f"| {ratio:5.2f} | {verdict:15} |"
        )
    print(f"\n{NOTE}\n")


def summarize(seconds: Sequence[float]) -> tuple[float, float]:
    """Median and 95th percentile, in milliseconds."""
    return statistics.median(seconds) * 1e3, statistics.quantiles(seconds, n=20)[-1] * 1e3


if __name__ == "__main__":
    main()
