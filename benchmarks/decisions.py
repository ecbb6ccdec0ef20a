"""Five rules on one order: our decision with every verdict beside two other engines, in turns."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from benchmarks.measure import ROOT, run_child, table
from config import embedded
from config.management.commands.bench import install_locked

PEER_LOCK = ROOT / "requirements" / "bench-fraud.txt"
PEER_VENV = embedded.LOCAL / "bench-fraud"
CASES = ("approve", "challenge")
OURS, CLOCK, LIBRARY, ZEN = "ours", "ours by the clock", "prod_py_utils 1.0.0", "zen-engine 2.1.3"
AIMS = {LIBRARY: 2.0, ZEN: 10.0}
NOTE = """One thread; lists and counts are given: block list, AVS and CVV, velocity, countries, amount. Ours has a
verdict for each of the five rules, by the clock also with a time of its own, as live orders are decided. prod_py_utils
has one for those that hit, without a time, and makes its context anew for each order, as its callers do. zen-engine is
a decision table of five rows that gives one word."""


def main(*, rounds: int = 5) -> None:
    install_locked(PEER_VENV, PEER_LOCK)
    rates: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, rate in run_peers().items():
            rates[name].append(rate)
        for name, rate in run_child("benchmarks.decisions_ours").items():
            rates[name].append(rate)
    for case in CASES:
        show(case, rates)


def show(case: str, rates: dict[str, list[float]]) -> None:
    """Each peer's ratio is told from our side: how many times its decisions we make."""
    rows = [(name, rates[f"{name}, {case}"]) for name in (OURS, CLOCK, LIBRARY, ZEN)]
    table(f"Decisions that end in {case}", rows, base=OURS, unit="per s", aims={}, note=NOTE)
    ours = sorted(rates[f"{OURS}, {case}"])[len(rates[f"{OURS}, {case}"]) // 2]
    for name, aim in AIMS.items():
        theirs = sorted(rates[f"{name}, {case}"])[len(rates[f"{name}, {case}"]) // 2]
        print(f"Ours makes {ours / theirs:.1f} times the decisions of {name} (aim: {aim:.0f}).")


def run_peers() -> dict[str, float]:
    script = Path(__file__).with_name("decisions_peers.py")
    done = subprocess.run(
        [PEER_VENV / "bin" / "python", script], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
