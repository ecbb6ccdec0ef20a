"""How far a share can be trusted: Wilson's interval, and whether two shares differ."""

from __future__ import annotations

import math
from dataclasses import dataclass

TOO_FEW = 10  # of fewer no share is told
Z_95 = 1.959963984540054  # two-sided


@dataclass(frozen=True, slots=True)
class Proportion:
    """`hits` of `n`. Wilson's interval (E. B. Wilson, 1927) stays within 0 to 1 and is fair to small numbers."""

    hits: int
    n: int

    @property
    def is_too_few(self) -> bool:
        return self.n < TOO_FEW

    @property
    def value(self) -> float | None:
        """None of nothing."""
        return self.hits / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        """Within which the true share lies in 95 of 100 cases; (0, 1) of nothing."""
        if not self.n:
            return 0.0, 1.0
        share, square = self.hits / self.n, Z_95 * Z_95
        centre = share + square / (2 * self.n)
        spread = Z_95 * math.sqrt((share * (1 - share) + square / (4 * self.n)) / self.n)
        scale = 1 + square / self.n
        return max((centre - spread) / scale, 0.0), min((centre + spread) / scale, 1.0)


def compare(one: Proportion, other: Proportion) -> float | None:
    """The two-sided p-value of the two-proportion z-test; None where fewer than 5 hits or misses are to be expected."""
    total = one.n + other.n
    pooled = (one.hits + other.hits) / total if total else 0.0
    smallest = min(one.n, other.n) * min(pooled, 1 - pooled)
    if smallest < 5:
        return None
    error = math.sqrt(pooled * (1 - pooled) * (1 / one.n + 1 / other.n))
    return math.erfc(abs(one.hits / one.n - other.hits / other.n) / error / math.sqrt(2))
