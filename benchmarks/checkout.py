"""A durable checkout beside DBOS Transact's four-step workflow, on one PostgreSQL, rounds interleaved."""

from __future__ import annotations

from collections import defaultdict

from benchmarks.measure import drop_scratch, run_child, scratch_url, table

AIMS = {"our engine, four outside steps": 5.0}
NOTE = """Each row is durable work per second: DBOS's four trivial steps, our engine with four trivial outside
steps (intent and outcome committed around each), and our whole checkout (order, payment, attempt, two gateway
operations, ledger, events, shipment; the gateway answers at once). One Python process each; 8 threads share its
GIL. Read the ratios: the absolute figures belong to this machine and this hour. Aim: the engine at least 5 times."""


def main(*, rounds: int = 3, count: int = 400) -> None:
    ours, theirs = scratch_url("bench_ours"), scratch_url("bench_dbos")
    rates: dict[str, list[float]] = defaultdict(list)
    try:
        for _ in range(rounds):
            for result in (
                run_child("benchmarks.checkout_dbos", theirs, str(count)),
                run_child("benchmarks.checkout_ours", str(count), environment={"DATABASE_URL": ours}),
            ):
                for name, rate in result.items():
                    rates[name].append(rate)
    finally:
        drop_scratch("bench_ours")
        drop_scratch("bench_dbos")
    for threads in ("1 thread", "8 threads"):
        rows = [
            (name.removesuffix(f", {threads}"), values)
            for name, values in rates.items()
            if name.endswith(threads)
        ]
        table(f"Durable checkout, {threads}", rows, base="DBOS workflow", unit="per s", aims=AIMS)
    print(NOTE)


if __name__ == "__main__":
    main()
