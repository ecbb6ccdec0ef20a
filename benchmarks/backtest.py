"""A back-test of a million stored contexts with labels beside the closures that decide live, on a part of them."""

from __future__ import annotations

from collections import defaultdict

from benchmarks.measure import drop_scratch, run_child, scratch_url, table

FRAMES, CLOSURES = "a back-test, from the rows on", "the live functions, facts in memory"
AIM_SECONDS = 5.0  # per million contexts
NOTE = """Orders per second. The back-test reads the facts that the rules ask for out of the stored contexts, joins the
labels, decides every order by five rules and counts. The live functions decide one order after the other, without
reading anything. Both give the same decisions: the run fails otherwise."""


def main(*, rounds: int = 3, contexts: int = 1_000_000) -> None:
    environment = {"DATABASE_URL": scratch_url("bench_backtest")}
    rates: dict[str, list[float]] = defaultdict(list)
    try:
        run_child("benchmarks.backtest_ours", "fill", str(contexts), environment=environment)
        for _ in range(rounds):
            found = run_child("benchmarks.backtest_ours", "run", str(contexts), environment=environment)
            for name, rate in found.items():
                rates[name].append(rate)
    finally:
        drop_scratch("bench_backtest")
    table("Back-test", list(rates.items()), base=CLOSURES, unit="per s", aims={}, note=NOTE)
    best, worst = (1e6 / pick(rates[FRAMES]) for pick in (max, min))
    print(f"A million contexts: {best:.2f} s to {worst:.2f} s (aim: under {AIM_SECONDS:.0f} s).\n")


if __name__ == "__main__":
    main()
