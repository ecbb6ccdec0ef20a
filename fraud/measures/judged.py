"""How many orders each rule judged: of days that are over from a kept count, of the others from the verdicts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from django.utils import timezone

from fraud.measures.period import Period
from fraud.measures.reading import fetch
from fraud.models import RuleDay

KEPT_DAYS = 90  # the longest period of the pages

# A rule that runs in both screenings judges an order twice; the second is always of an order that had the first, so
# the larger number of the two is the number of orders.
_JUDGED = """
SELECT rule, day, max(orders) FROM (
    SELECT verdict.rule_key AS rule, assessment.stage,
        (assessment.created_at AT TIME ZONE 'UTC')::date AS day, count(*) AS orders
    FROM fraud_assessment assessment JOIN fraud_verdict verdict ON verdict.assessment_id = assessment.id
    WHERE assessment.created_at >= %(since)s AND assessment.created_at < %(until)s
    GROUP BY 1, 2, 3
) by_stage GROUP BY rule, day
"""


def count_judged(period: Period) -> dict[tuple[str, date], int]:
    """Orders by rule and day; those without are left out."""
    days = RuleDay.objects.filter(day__gte=period.since.date(), day__lt=period.until.date())
    kept = {(row.rule, row.day): row.judged for row in days}
    return {**kept, **_count(_without(period.days, kept))}


def keep_judged(*, now: datetime | None = None) -> int:
    """Count the days that are over and not counted yet. Returns how many rows are new."""
    end = Period.last(1, now=now or timezone.now()).since
    days = replace(Period.last(1, now=now), since=end - timedelta(days=KEPT_DAYS), until=end).days
    known = {("", day) for day in RuleDay.objects.filter(day__in=days).values_list("day", flat=True)}
    rows = [RuleDay(rule=rule, day=day, judged=n) for (rule, day), n in _count(_without(days, known)).items()]
    RuleDay.objects.bulk_create(rows, ignore_conflicts=True)
    return len(rows)


def _without(days: Iterable[date], known: Iterable[tuple[str, date]]) -> list[date]:
    done = {day for _, day in known}
    return [day for day in days if day not in done]


def _count(days: list[date]) -> dict[tuple[str, date], int]:
    """In one query over all that lies between the first and the last."""
    if not days:
        return {}
    since, until = (datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (days[0], days[-1]))
    rows = fetch(_JUDGED, Period(since, until + timedelta(days=1)))
    wanted = set(days)
    return {(rule, day): orders for rule, day, orders in rows if day in wanted}
