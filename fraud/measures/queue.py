"""How the review queue does: how old it is, how fast each analyst decides, and what nobody decided in time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Min, Q

from fraud import policy
from fraud.measures.period import Period
from fraud.measures.reading import fetch
from fraud.measures.statistics import Proportion
from fraud.models import Review

_ANALYSTS = """
SELECT review.decided_by, count(*), count(*) FILTER (WHERE review.state = 'approved'),
    count(*) FILTER (WHERE label.is_fraud IS DISTINCT FROM (review.state = 'rejected') AND label.is_fraud IS NOT NULL),
    percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM review.decided_at - review.created_at)),
    percentile_cont(0.9) WITHIN GROUP (ORDER BY extract(epoch FROM review.decided_at - review.created_at))
FROM fraud_review review LEFT JOIN fraud_effective_label label ON label.order_id = review.order_id
WHERE review.state IN ('approved', 'rejected') AND review.decided_at >= %(since)s AND review.decided_at < %(until)s
GROUP BY 1 ORDER BY 2 DESC, 1
"""


@dataclass(frozen=True, slots=True)
class AnalystMeasure:
    """What one person decided in the period. Times are from the case's opening to the decision."""

    actor: str
    approved: Proportion
    overturned: Proportion
    median: timedelta
    slow: timedelta  # nine of ten took no longer

    @property
    def decided(self) -> int:
        return self.approved.n


@dataclass(frozen=True, slots=True)
class QueueMeasure:
    """How the queue stands now, and what became of the cases that ended in the period."""

    open: int
    late: int  # longer open than `REVIEW_SLA_SECONDS`; who sleeps is not late
    oldest: datetime | None
    in_time: Proportion  # decided by a person, of those that were to be decided
    analysts: tuple[AnalystMeasure, ...]


def measure_queue(period: Period) -> QueueMeasure:
    """In four queries."""
    standing = Review.objects.open().aggregate(open=Count("pk"), oldest=Min("created_at"))
    late = Review.objects.awake().late(policy.sla()).count()
    ended = Review.objects.filter(decided_at__gte=period.since, decided_at__lt=period.until).aggregate(
        decided=Count("pk", filter=Q(state__in=["approved", "rejected"])),
        expired=Count("pk", filter=Q(state="expired")),
    )
    in_time = Proportion(ended["decided"], ended["decided"] + ended["expired"])
    analysts = tuple(
        AnalystMeasure(
            actor,
            Proportion(approved, n),
            Proportion(wrong, n),
            timedelta(seconds=median),
            timedelta(seconds=slow),
        )
        for actor, n, approved, wrong, median, slow in fetch(_ANALYSTS, period)
    )
    return QueueMeasure(standing["open"], late, standing["oldest"], in_time, analysts)
