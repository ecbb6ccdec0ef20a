"""The memory of a worker over fifty thousand sagas: it should stay where it is after its warm-up."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.measure import drop_scratch, run_child, scratch_url
from benchmarks.scale import ENVIRONMENT

SAGAS, WARM_UP, EVERY = 50_000, 5_000, 2_500
FLAT = 0.05
NOTE = """One process places orders and sweeps their sagas, with the whole stack around a gateway that answers at once.
Its resident memory is read after a full garbage collection. First and last are the medians of the first and the last
three samples after the warm-up, the slope that of the straight line through all samples."""


def main(*, sagas: int = SAGAS, warm_up: int = WARM_UP, every: int = EVERY) -> None:
    environment = {**ENVIRONMENT, "DATABASE_URL": scratch_url("bench_memory")}
    try:
        result = run_child("benchmarks.memory_ours", str(sagas), str(every), environment=environment)
    finally:
        drop_scratch("bench_memory")
    samples: Sequence[tuple[int, int]] = result["samples"]  # type: ignore[assignment]
    report([(done, size / 1e6) for done, size in samples if done >= warm_up], int(result["completed"]))


def report(samples: Sequence[tuple[int, float]], completed: int) -> None:
    sizes = [size for _, size in samples]
    first, last = statistics.median(sizes[:3]), statistics.median(sizes[-3:])
    slope = statistics.linear_regression([done for done, _ in samples], sizes).slope * 10_000
    print("\nA worker's memory\n")
    print("| sagas completed | first, MB | last, MB | last / first | MB per 10,000 | flat within 5% |")
    print("|----------------:|----------:|---------:|-------------:|--------------:|----------------|")
    verdict = "yes" if last <= first * (1 + FLAT) else "NO"
    print(
        f"| {completed:15,} | {first:9.1f} | {last:8.1f} | {last / first:12.3f} | {slope:13.2f} | {verdict:14} |"
    )
    print("\n" + ", ".join(f"{done:,}: {size:.1f}" for done, size in samples))
    print(f"\n{NOTE}\n")


if __name__ == "__main__":
    main()
