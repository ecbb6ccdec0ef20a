"""`make bench`: every benchmark, or those named on the command line."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import (
    backtest,
    checkout,
    decisions,
    end_to_end,
    ledger,
    memory,
    receipt,
    receipt_processed,
    rules,
    scale,
    velocity,
)

BENCHMARKS = {
    "backtest": backtest.main,
    "checkout": checkout.main,
    "decisions": decisions.main,
    "end_to_end": end_to_end.main,
    "ledger": ledger.main,
    "memory": memory.main,
    "receipt": receipt.main,
    "receipt_processed": receipt_processed.main,
    "rules": rules.main,
    "scale": scale.main,
    "velocity": velocity.main,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    parser.add_argument("--orders", type=int, default=scale.LARGE, help="of scale's large database")
    options = parser.parse_args()
    chosen = {**BENCHMARKS, "scale": partial(scale.main, orders=options.orders)}
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark called {', '.join(sorted(unknown))}; nothing was run")
    for name in options.names or chosen:
        chosen[name]()
