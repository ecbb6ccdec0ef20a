"""The proof of a million postings beside the plainest question to the same rows: their sum per account."""

from __future__ import annotations

import statistics
from collections import defaultdict

from benchmarks.measure import drop_scratch, run_child, scratch_url, table

PLAIN, PROOF = "a plain sum over the postings", "our proof of the books"
AIM_SECONDS = 10.0  # per million postings
NOTE = """Postings per second, of books of about a million postings (84,000 payments with an authorization, a
capture and a refund each), in one process on a warm cache. The plain sum reads each posting once and groups by account
and currency; the proof also compares entries, accounts, days, events, payments and operations."""


def main(*, rounds: int = 3, payments: int = 84_000) -> None:
    environment = {"DATABASE_URL": scratch_url("bench_ledger")}
    rates: dict[str, list[float]] = defaultdict(list)
    try:
        run_child("benchmarks.ledger_ours", "fill", str(payments), environment=environment)
        for _ in range(rounds):
            for name, rate in run_child(
                "benchmarks.ledger_ours", "prove", str(payments), environment=environment
            ).items():
                rates[name].append(rate)
    finally:
        drop_scratch("bench_ledger")
    table("The ledger's proof", list(rates.items()), base=PLAIN, unit="per s", aims={}, note=NOTE)
    seconds = {name: 1e6 / statistics.median(values) for name, values in rates.items()}
    print(
        f"A million postings: summed in {seconds[PLAIN]:.2f} s, proved in {seconds[PROOF]:.2f} s "
        f"({seconds[PROOF] / seconds[PLAIN]:.1f} times; aim: under {AIM_SECONDS:.0f} s).\n"
    )


if __name__ == "__main__":
    main()
