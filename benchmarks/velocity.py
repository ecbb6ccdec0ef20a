"""What velocity adds to a checkout, with Redis and without, beside an empty trip to each server."""

from __future__ import annotations

import os

from benchmarks.measure import drop_scratch, run_child, scratch_url

NOTE = """Microseconds of one call. Every order is recorded by seven keys of its own (eight share a network) and
counted over three windows each: 21 figures. An empty trip is SELECT 1 and PING: less than one of each no design can
do that is exact and durable. The busy key has 10,000 events in 24 hours: all its sums and distinct counts read them."""
AIM = 1000.0


def main(*, calls: int = 2000) -> None:
    environment = {"DATABASE_URL": scratch_url("bench_velocity")}
    try:
        found = run_child("benchmarks.velocity_ours", str(calls), environment=environment)
    finally:
        drop_scratch("bench_velocity")
    names = dict.fromkeys(name.rpartition(" | ")[0] for name in found if " | " in name)
    print(f"\nVelocity\n\n| {'':52} |    p50 |    p99 | per s |\n|{'-' * 54}|-------:|-------:|------:|")
    for name in names:
        p50, p99, rate = (found[f"{name} | {what}"] for what in ("p50", "p99", "rate"))
        print(f"| {name:52} | {p50:6.0f} | {p99:6.0f} | {rate:5.0f} |")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(
        f"\n{NOTE}\nBytes per order: {found['bytes']:,.0f} in Redis for 24 hours, {found['row']:,.0f} in PostgreSQL."
    )
    print(f"Aim: p50 under {AIM:.0f} with Redis. Load of the machine: {load}, {os.cpu_count()} cores.\n")


if __name__ == "__main__":
    main()
