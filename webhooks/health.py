"""How the webhooks of each gateway account are doing: what came, how fast it was applied, what is stuck or missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import Count, Min, Sum
from django.utils import timezone

from payments.ids import lowest_id
from payments.models import GatewayAccount
from webhooks.models import UNFINISHED_STATES, GapCheck, InboundState, InboundWebhook, RejectedDelivery

WINDOW = timedelta(hours=24)
_SLACK = timedelta(minutes=5)  # between the clock of an id and that of `received_at`


@dataclass(slots=True)
class AccountHealth:
    """One account. Counts are of the last 24 hours, except `open`, which is what stands there now; lags are seconds."""

    account: GatewayAccount
    received: int = 0
    listed: int = 0
    duplicates: int = 0
    conflicts: int = 0
    lag_median: float | None = None
    lag_p95: float | None = None
    last_received: datetime | None = None
    hours: dict[datetime, int] = field(default_factory=dict)
    open: dict[str, int] = field(default_factory=dict)
    oldest_open: datetime | None = None
    rejected: dict[str, int] = field(default_factory=dict)
    gap_check: GapCheck | None = None

    @property
    def troubled(self) -> int:
        return sum(count for state, count in self.open.items() if state != InboundState.RECEIVED)


def measure_accounts(accounts: Sequence[GatewayAccount]) -> list[AccountHealth]:
    """The health of these accounts by five queries, whatever the size of the archive.

    The day's rows are found by the primary key, since ids are time-ordered; open ones and refusals by their indexes.
    """
    found = {account.pk: AccountHealth(account) for account in accounts}
    since = timezone.now() - WINDOW
    _measure_day(found, since)
    _count_hours(found, since)
    _count_open(found)
    _count_rejected(found, since)
    for check in GapCheck.objects.filter(account__in=found):
        found[check.account_id].gap_check = check
    return list(found.values())


_DAY = """
SELECT account_id, count(*) FILTER (WHERE source = 'webhook'), count(*) FILTER (WHERE source = 'gateway_list'),
    sum(duplicates), count(conflict_of_id), max(received_at) FILTER (WHERE source = 'webhook'),
    percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY extract(epoch FROM processed_at - received_at)::float8)
        FILTER (WHERE processed_at IS NOT NULL AND replayed_at IS NULL)
FROM webhooks_inboundwebhook
WHERE id >= %s AND received_at >= %s AND account_id = ANY(%s) GROUP BY account_id
"""
_HOURS = """
SELECT account_id, date_trunc('hour', received_at, 'UTC'), count(*) FROM webhooks_inboundwebhook
WHERE id >= %s AND received_at >= %s AND account_id = ANY(%s) AND source = 'webhook' GROUP BY 1, 2
"""


def _bounds(found: dict[str, AccountHealth], since: datetime) -> list[Any]:
    return [lowest_id("inb", since - _SLACK), since, list(found)]


def _measure_day(found: dict[str, AccountHealth], since: datetime) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_DAY, _bounds(found, since))
        for account, received, listed, duplicates, conflicts, last, lags in cursor.fetchall():
            health = found[account]
            health.received, health.listed, health.duplicates = received, listed, duplicates
            health.conflicts, health.last_received = conflicts, last
            health.lag_median, health.lag_p95 = lags or (None, None)


def _count_hours(found: dict[str, AccountHealth], since: datetime) -> None:
    """Each hour that has begun in the window, also those without any."""
    first = (since + timedelta(hours=1)).replace(minute=0, second=0, microsecond=0)
    hours = [first + timedelta(hours=number) for number in range(24)]
    for health in found.values():
        health.hours = dict.fromkeys(hours, 0)
    with connection.cursor() as cursor:
        cursor.execute(_HOURS, _bounds(found, first))
        for account, hour, count in cursor.fetchall():
            found[account].hours[hour] = count


def _count_open(found: dict[str, AccountHealth]) -> None:
    unfinished = InboundWebhook.objects.filter(state__in=UNFINISHED_STATES, account__in=found)
    groups = unfinished.order_by().values_list("account", "state").annotate(Count("pk"), Min("received_at"))
    for account, state, count, oldest in groups:
        health = found[account]
        health.open[state] = count
        health.oldest_open = min(filter(None, (health.oldest_open, oldest)))


def _count_rejected(found: dict[str, AccountHealth], since: datetime) -> None:
    rejected = RejectedDelivery.objects.filter(hour__gte=since - timedelta(hours=1), last_at__gte=since)
    groups = (
        rejected.filter(account__in=found).order_by().values_list("account", "reason").annotate(Sum("times"))
    )
    for account, reason, times in groups:
        found[account].rejected[reason] = times
