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

from payments.gateways.resilience import breaker_states
from payments.models.saga import HELD, TAKEN

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
    """Rows of a table that somebody must still finish, counted by `labels`, which are columns too."""

    name: str
    help: str
    table: str
    labels: tuple[str, ...]
    condition: str

    def query(self) -> str:
        names = ", ".join(self.labels)
        return f"SELECT {names}, count(*) FROM {self.table} WHERE {self.condition} GROUP BY {names}"  # noqa: S608


@dataclass(frozen=True, slots=True)
class Measure:
    """A query of ours whose rows are the values of `labels` and a number."""

    name: str
    help: str
    sql: str
    labels: tuple[str, ...] = ()

    def query(self) -> str:
        return self.sql


_UNFINISHED = "state NOT IN ('COMPLETED', 'COMPENSATED', 'FORCED')"
_STUCK = "state IN ('FAILED_COMPENSATION', 'QUARANTINED')"
_AGE = "extract(epoch FROM clock_timestamp() - min(created_at))::float8"
_ACCOUNT = "account.gateway || '/' || account.name"
_GAP_CHECKS = "webhooks_gapcheck JOIN payments_gatewayaccount AS account ON account.id = account_id"
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
        # What an endpoint itself holds up, by its pause or its order, is no lag of ours.
        due="state = 'pending' AND next_try_at <= clock_timestamp()"
        " AND (leased_until IS NULL OR leased_until <= clock_timestamp()) AND EXISTS ("
        "SELECT FROM webhooks_endpoint e WHERE e.id = endpoint_id AND (e.is_enabled OR is_probe)"
        " AND (e.paused_until IS NULL OR e.paused_until <= clock_timestamp())"
        " AND NOT (e.is_ordered AND e.failing_since IS NOT NULL))",
        since="greatest(next_try_at, leased_until,"
        " (SELECT e.paused_until FROM webhooks_endpoint e WHERE e.id = endpoint_id))",
    ),
)
OPEN_WORK = (
    OpenWork(
        name="payments_sagas",
        help="Sagas that are not finished.",
        table="payments_sagarun",
        labels=("kind", "state"),
        condition=_UNFINISHED,
    ),
    OpenWork(
        name="payments_open_operations",
        help="Money movements whose end is not known.",
        table="payments_operation",
        labels=("state",),
        condition="state IN ('sent', 'pending', 'unknown')",
    ),
    OpenWork(
        name="webhooks_open",
        help="Deliveries from gateways that are not finished.",
        table="webhooks_inboundwebhook",
        labels=("state",),
        condition="state IN ('received', 'parked', 'failed', 'quarantined')",
    ),
    OpenWork(
        name="fraud_reviews",
        help="Orders that wait for an analyst.",
        table="fraud_review",
        labels=("state",),
        condition="state = 'open'",
    ),
    OpenWork(
        name="reconciliation_discrepancies",
        help="Discrepancies that nobody has settled.",
        table="reconciliation_discrepancy",
        labels=("state",),
        condition="state IN ('open', 'assigned')",
    ),
)
MEASURES = (
    Measure(
        name="payments_sagas_oldest_seconds",
        help="Age of the oldest unfinished saga in a state.",
        labels=("state",),
        sql=f"SELECT state, {_AGE} FROM payments_sagarun WHERE {_UNFINISHED} GROUP BY state",  # noqa: S608
    ),
    Measure(
        name="payments_sagas_stuck",
        help="Sagas that nothing moves but an operator.",
        sql=f"SELECT count(*) FROM payments_sagarun WHERE {_STUCK}",  # noqa: S608
    ),
    Measure(
        name="payments_money_at_risk_minor_units",
        help="Held on cards, or taken and not given back, by payments with a stuck saga.",
        labels=("currency", "part"),
        sql=f"""
            WITH at_stake AS (
                SELECT payment.id, payment.currency, max({HELD}) AS held, max({TAKEN}) AS taken
                FROM payments_sagarun AS run JOIN payments_payment AS payment ON payment.order_id = run.order_id
                WHERE run.{_STUCK} GROUP BY payment.id, payment.currency
            )
            SELECT currency, 'held', sum(held)::float8 FROM at_stake GROUP BY currency
            UNION ALL SELECT currency, 'taken', sum(taken)::float8 FROM at_stake GROUP BY currency
        """,  # noqa: S608 - constants only
    ),
    Measure(
        name="payments_unknown_operations_oldest_seconds",
        help="Age of the oldest money movement of which nobody knows the end; 0 when there is none.",
        sql=f"SELECT coalesce({_AGE}, 0) FROM payments_operation WHERE state = 'unknown'",  # noqa: S608
    ),
    Measure(
        name="webhooks_waiting_oldest_seconds",
        help="Age of the oldest delivery of a gateway that was tried and is to be tried again.",
        labels=("state",),
        sql="SELECT state, extract(epoch FROM clock_timestamp() - min(received_at))::float8 "
        "FROM webhooks_inboundwebhook WHERE state IN ('parked', 'failed') GROUP BY state",
    ),
    Measure(
        name="webhooks_conflicts",
        help="Deliveries with a known event id and other content, which nobody has replayed.",
        sql="SELECT count(*) FROM webhooks_inboundwebhook WHERE conflict_of_id IS NOT NULL AND state = 'quarantined'",
    ),
    Measure(
        name="webhooks_missing",
        help="Events that a gateway listed and never sent, of all time.",
        labels=("account",),
        sql=f"SELECT {_ACCOUNT}, missing FROM {_GAP_CHECKS}",  # noqa: S608 - constants only
    ),
    Measure(
        name="webhooks_unchecked_seconds",
        help="How far behind the comparison with a gateway's own list of events is.",
        labels=("account",),
        sql=f"SELECT {_ACCOUNT}, extract(epoch FROM clock_timestamp() - checked_until)::float8 "  # noqa: S608
        f"FROM {_GAP_CHECKS} WHERE checked_until IS NOT NULL AND account.is_active",
    ),
    Measure(
        name="oncall_pages_unsent",
        help="Calls for on-call that not every channel has taken.",
        sql="SELECT count(*) FROM payments_oncallpage WHERE sent_at IS NULL",
    ),
    Measure(
        name="oncall_pages_oldest_unsent_seconds",
        help="Age of the oldest call that not every channel has taken; 0 when there is none.",
        sql=f"SELECT coalesce({_AGE}, 0) FROM payments_oncallpage WHERE sent_at IS NULL",  # noqa: S608
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
        for work in (*OPEN_WORK, *MEASURES):
            yield measure(work)
        yield tell_breakers()


def measure_queue_ages() -> dict[str, float | None]:
    """Seconds that the oldest due item of each queue has waited; None when none is due."""
    ages: dict[str, float | None] = {}
    with connection.cursor() as cursor:
        for queue in QUEUES:
            cursor.execute(queue.query())
            age = cursor.fetchone()[0]
            ages[queue.name] = None if age is None else max(0.0, age)
    return ages


def measure(work: OpenWork | Measure) -> GaugeMetricFamily:
    """One gauge: a sample for each row of its query."""
    family = GaugeMetricFamily(work.name, work.help, labels=work.labels)
    with connection.cursor() as cursor:
        cursor.execute(work.query())
        for *labels, value in cursor.fetchall():
            family.add_metric(labels, value)
    return family


def tell_breakers() -> GaugeMetricFamily:
    """1 for the state that each gateway account is in now, 0 for the others."""
    family = GaugeMetricFamily(
        "payments_gateway_state",
        "State of a gateway account's breaker; switched_off is the kill switch.",
        labels=["gateway", "state"],
    )
    for breaker in breaker_states():
        now = "switched_off" if breaker.by else breaker.state
        for state in ("closed", "open", "half_open", "switched_off"):
            family.add_metric([breaker.name, state], float(state == now))
    return family
