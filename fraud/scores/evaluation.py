"""What a score is worth, and whether orders are still like those it was trained on: functions over numbers."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

BINS = 10
FLOOR = 1e-4  # an empty bin would be infinitely far away
STABLE, SHIFTED = 0.1, 0.25  # the usual reading of the index: below, and above


@dataclass(frozen=True, slots=True)
class Point:
    """What a threshold would have caught, of the orders with a label. A ratio of nothing is None."""

    threshold: float
    flagged: int
    caught: int  # flagged, and fraud
    fraud: int
    labelled: int

    @property
    def precision(self) -> float | None:
        """Of what is flagged, the share that is fraud."""
        return self.caught / self.flagged if self.flagged else None

    @property
    def recall(self) -> float | None:
        """Of the fraud, the share that is flagged."""
        return self.caught / self.fraud if self.fraud else None


def measure_thresholds(scored: Iterable[tuple[float, bool]], thresholds: Sequence[float]) -> list[Point]:
    """A point for each threshold, over (score, is fraud); a score at the threshold is flagged."""
    pairs = list(scored)
    fraud = sum(is_fraud for _, is_fraud in pairs)
    flagged = {limit: [is_fraud for score, is_fraud in pairs if score >= limit] for limit in thresholds}
    return [Point(limit, len(hits), sum(hits), fraud, len(pairs)) for limit, hits in flagged.items()]


@dataclass(frozen=True, slots=True)
class Distribution:
    """How scores are spread: `shares[i]` of them lie from `edges[i - 1]` to below `edges[i]`."""

    edges: tuple[float, ...]
    shares: tuple[float, ...]

    @classmethod
    def of_training(cls, scores: Sequence[float], bins: int = BINS) -> Distribution:
        """Edges that part the scores into equal shares, as far as they differ. Raises `ValueError` without scores."""
        ordered = sorted(scores)
        if not ordered:
            raise ValueError("there are no scores to spread")
        cuts = {ordered[len(ordered) * number // bins] for number in range(1, bins)}
        edges = tuple(sorted(cuts - {ordered[0]}))
        return cls(edges, find_shares(ordered, edges))


def find_shares(scores: Sequence[float], edges: Sequence[float]) -> tuple[float, ...]:
    """The share of the scores in each bin. Raises `ValueError` without scores."""
    if not scores:
        raise ValueError("there are no scores to spread")
    counts = [0] * (len(edges) + 1)
    for score in scores:
        counts[bisect_right(edges, score)] += 1
    return tuple(count / len(scores) for count in counts)


def find_stability_index(training: Distribution, scores: Sequence[float]) -> float:
    """The population stability index: 0 when nothing has moved. Raises `ValueError` without scores."""
    now = find_shares(scores, training.edges)
    pairs = [
        (max(before, FLOOR), max(after, FLOOR)) for before, after in zip(training.shares, now, strict=True)
    ]
    return math.fsum((after - before) * math.log(after / before) for before, after in pairs)


def read_stability(index: float) -> str:
    """stable, moving or shifted."""
    if index < STABLE:
        return "stable"
    return "moving" if index < SHIFTED else "shifted"
