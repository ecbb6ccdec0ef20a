"""Prometheus metrics: the work that waits in the database, and the counters of this process."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import dataclass

from django.conf import settings
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, HttpResponseNotFound
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

LOOPBACK = ("127.0.0.1", "::1", "")  # a Unix socket has no address


@dataclass(frozen=True, slots=True)
class Queue:
    """Rows of a table that are due. `due` is the condition and `since` the time, in SQL of ours."""

    name: str
    table: str
    due: str
    since: str

    def query(self) -> str:
        return (
            f"SELECT extract(epoch FROM clock_timestamp() - min({self.since}))::float8 "  # noqa: S608
            f"FROM {self.table} WHERE {self.due}"
        )


@dataclass(frozen=True, slots=True)
class OpenWork:
    """Rows of a table that somebody must still finish, counted by `label`, which is a column too."""

    name: str
    help: str
    table: str
    label: str
    condition: str

    def query(self) -> str:
        return f"SELECT {self.label}, count(*) FROM {self.table} WHERE {self.condition} GROUP BY 1"  # noqa: S608


QUEUES = (
    Queue(
        name="sagas",
        table="payments_sagarun",
        due="state IN ('PENDING', 'RUNNING', 'WAITING', 'COMPENSATING') AND wake_at <= clock_timestamp()"
        " AND (lease_expires_at IS NULL OR lease_expires_at <= clock_timestamp())",
        since="greatest(wake_at, lease_expires_at)",
    ),
    Queue(
        name="gateway_webhooks",
        table="webhooks_inboundwebhook",
        due="state IN ('received', 'parked', 'failed') AND next_try_at <= clock_timestamp()",
        since="received_at",
    ),
    Queue(
        name="storefront_webhooks",
        table="webhooks_delivery",
        due="state = 'pending' AND next_try_at <= clock_timestamp()",
        since="next_try_at",
    ),
)
OPEN_WORK = (
    OpenWork(
        name="payments_sagas",
        help="Sagas that are not finished.",
        table="payments_sagarun",
        label="state",
        condition="state NOT IN ('COMPLETED', 'COMPENSATED', 'FORCED')",
    ),
    OpenWork(
        name="payments_open_operations",
        help="Money movements whose end is not known.",
        table="payments_operation",
        label="state",
        condition="state IN ('sent', 'pending', 'unknown')",
    ),
    OpenWork(
        name="webhooks_open",
        help="Deliveries from gateways that are not finished.",
        table="webhooks_inboundwebhook",
        label="state",
        condition="state IN ('received', 'parked', 'failed', 'quarantined')",
    ),
    OpenWork(
        name="fraud_reviews",
        help="Orders that wait for an analyst.",
        table="fraud_review",
        label="state",
        condition="state = 'open'",
    ),
    OpenWork(
        name="reconciliation_discrepancies",
        help="Discrepancies that nobody has settled.",
        table="reconciliation_discrepancy",
        label="state",
        condition="state IN ('open', 'assigned')",
    ),
)


@never_cache
@require_safe
def show_metrics(request: HttpRequest) -> HttpResponse:
    """The exposition format. In production only for this machine, or with METRICS_TOKEN as bearer token."""
    if settings.PRODUCTION and not may_read(request):
        return HttpResponseNotFound()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(DatabaseCollector())
    try:
        waiting = generate_latest(registry)
    except DatabaseError:
        return HttpResponse("The database is not available.\n", status=503, content_type="text/plain")
    return HttpResponse(waiting + generate_latest(REGISTRY), content_type=CONTENT_TYPE_LATEST)


def may_read(request: HttpRequest) -> bool:
    """Whether a request comes from this very machine, or brings the token."""
    token: str = settings.METRICS_TOKEN
    offered = request.headers.get("Authorization", "")
    if token and hmac.compare_digest(offered.encode(), f"Bearer {token}".encode()):
        return True
    # A proxy on this machine also connects from the loopback, but says for whom.
    is_proxied = "X-Forwarded-For" in request.headers or "Forwarded" in request.headers
    return request.META.get("REMOTE_ADDR", "") in LOOPBACK and not is_proxied


class DatabaseCollector(Collector):
    """Asks the database at each scrape; every query reads a partial index or a small table."""

    def collect(self) -> Iterator[Metric]:
        ages = GaugeMetricFamily(
            "queue_oldest_due_seconds", "Age of the oldest due item; 0 when none is due.", labels=["queue"]
        )
        for name, age in measure_queue_ages().items():
            ages.add_metric([name], age or 0.0)
        yield ages
        for work in OPEN_WORK:
            yield count_open_work(work)


def measure_queue_ages() -> dict[str, float | None]:
    """Seconds that the oldest due item of each queue has waited; None when none is due."""
    ages: dict[str, float | None] = {}
    with connection.cursor() as cursor:
        for queue in QUEUES:
            cursor.execute(queue.query())
            age = cursor.fetchone()[0]
            ages[queue.name] = None if age is None else max(0.0, age)
    return ages


def count_open_work(work: OpenWork) -> GaugeMetricFamily:
    family = GaugeMetricFamily(work.name, work.help, labels=[work.label])
    with connection.cursor() as cursor:
        cursor.execute(work.query())
        for value, count in cursor.fetchall():
            family.add_metric([value], count)
    return family
