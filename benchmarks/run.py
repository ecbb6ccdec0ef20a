"""`make bench`: every benchmark, or those named on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import checkout, receipt

BENCHMARKS = {"checkout": checkout.main, "receipt": receipt.main}

if __name__ == "__main__":
    for name in sys.argv[1:] or BENCHMARKS:
        BENCHMARKS[name]()
