"""What the outside score and the model would catch at each threshold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fraud.measures.period import Period
from fraud.measures.reading import fetch
from fraud.scores.evaluation import Point, measure_thresholds
from fraud.scores.sources import LABELS, MODEL, OUTSIDE

THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
# Each order by the score of its first screening, which is what a rule could have asked for.
_SCORED = """
SELECT (assessment.context->>'outside_score')::float8, (assessment.context->>'model_score')::float8, label.is_fraud
FROM fraud_assessment assessment LEFT JOIN fraud_effective_label label ON label.order_id = assessment.order_id
WHERE assessment.created_at >= %(since)s AND assessment.created_at < %(until)s AND assessment.stage = 'before'
    AND (assessment.context->>'outside_score' IS NOT NULL OR assessment.context->>'model_score' IS NOT NULL)
"""


@dataclass(frozen=True, slots=True)
class ScoreMeasure:
    """One score over a period: how many orders had it, and a point for each threshold over those with a label."""

    name: str
    orders: int
    points: tuple[Point, ...]


def measure_scores(period: Period) -> list[ScoreMeasure]:
    """Every score that some order of the period had; one query."""
    rows = fetch(_SCORED, period)
    columns = {OUTSIDE: 0, MODEL: 1}
    found = [_measure(LABELS[name], [(row[at], row[2]) for row in rows]) for name, at in columns.items()]
    return [measure for measure in found if measure.orders]


def _measure(name: str, rows: Iterable[tuple[float | None, bool | None]]) -> ScoreMeasure:
    scored = [(score, is_fraud) for score, is_fraud in rows if score is not None]
    labelled = [(score, is_fraud) for score, is_fraud in scored if is_fraud is not None]
    return ScoreMeasure(name, len(scored), tuple(measure_thresholds(labelled, THRESHOLDS)))
