"""What the metrics say of sagas, doubt and calls, and that asking costs no walk through a whole table."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from config.metrics import MEASURES, OPEN_WORK, QUEUES
from payments.models import OnCallPage, Operation, SagaRun
from payments.models import saga as sagas
from tests.factories.payments import AttemptFactory, OperationFactory, PaidOrderFactory, SagaRunFactory

pytestmark = pytest.mark.django_db
FILL = 4000


def scrape(client: Client) -> dict[str, float]:
    text = client.get("/metrics").content.decode()
    return {
        name: float(value) for name, value in re.findall(r"^(\w+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)
    }


def test_they_say_what_stands_still_and_what_it_could_cost(client: Client) -> None:
    order = PaidOrderFactory()
    hour = timezone.now() - timedelta(hours=1)
    SagaRunFactory(order=order, state="QUARANTINED", created_at=hour)
    SagaRunFactory(order=order, state="FAILED_COMPENSATION", kind="capture")  # the same money, not twice
    SagaRunFactory(state="WAITING")
    SagaRunFactory(state="COMPLETED")
    attempt = AttemptFactory(payment=order.payment)
    OperationFactory(attempt=attempt, state="unknown", created_at=hour)
    OnCallPage.objects.create(cause="x", hour=hour, text="x", created_at=hour)
    found = scrape(client)
    assert found['payments_sagas{kind="checkout",state="QUARANTINED"}'] == 1
    assert found['payments_sagas{kind="capture",state="FAILED_COMPENSATION"}'] == 1
    assert 'payments_sagas{kind="checkout",state="COMPLETED"}' not in found
    assert found['payments_sagas_oldest_seconds{state="QUARANTINED"}'] >= 3600
    assert found["payments_sagas_stuck"] == 2
    assert found['payments_money_at_risk_minor_units{currency="EUR",part="taken"}'] == 12950
    assert found['payments_money_at_risk_minor_units{currency="EUR",part="held"}'] == 0
    assert found["payments_unknown_operations_oldest_seconds"] >= 3600
    assert found["oncall_pages_unsent"] == 1
    assert found["oncall_pages_oldest_unsent_seconds"] >= 3600


def test_nothing_stands_still(client: Client) -> None:
    found = scrape(client)
    assert found["payments_sagas_stuck"] == found["oncall_pages_unsent"] == 0
    assert found["payments_unknown_operations_oldest_seconds"] == 0


# --- what they cost -----------------------------------------------------------------------------------------


def multiply(table: str, *unique: str) -> None:
    """Copies of the table's first row, each with its own values in the columns that are unique."""
    changes = ", ".join(f"'{name}', 'copy' || number" for name in unique)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} SELECT copied.* FROM generate_series(1, %s) AS number, "
            f"(SELECT to_jsonb(row) AS first FROM {table} AS row LIMIT 1) AS rows, "
            f"LATERAL jsonb_populate_record(NULL::{table}, first || jsonb_build_object({changes})) AS copied",
            [FILL],
        )


@pytest.fixture
def filled(db: None) -> None:
    """Thousands of rows that are done, and a few that are not."""
    order = PaidOrderFactory()
    OperationFactory(attempt=AttemptFactory(payment=order.payment))
    SagaRunFactory(order=order, state="COMPLETED", wake_at=None)
    multiply("payments_order", "id", "reference")
    multiply("payments_payment", "id", "order_id")
    multiply("payments_operation", "id", "gateway_key")
    multiply("payments_sagarun", "id", "subject")
    OnCallPage.objects.bulk_create(
        OnCallPage(
            cause=f"c{number}",
            hour=timezone.now(),
            text="x",
            created_at=timezone.now(),
            sent_at=timezone.now(),
        )
        for number in range(FILL)
    )
    OnCallPage.objects.filter(cause="c7").update(sent_at=None)
    Operation.objects.filter(pk="copy7").update(state="unknown")
    SagaRun.objects.filter(pk__in=["copy1", "copy2"]).update(state="QUARANTINED", order="copy7")
    SagaRun.objects.filter(pk__in=["copy3", "copy4"]).update(state="WAITING", wake_at=timezone.now())
    with connection.cursor() as cursor:
        for table in ("order", "payment", "operation", "sagarun", "oncallpage"):
            cursor.execute(f"ANALYZE payments_{table}")


QUERIES = {query.name: query.query for query in (*QUEUES, *OPEN_WORK, *MEASURES)}
QUERIES |= {"stuck_groups": lambda: sagas._STUCK_GROUPS}


WALK = re.compile(r"Seq Scan on payments_(?!gatewayaccount\b)")


def test_no_query_walks_through_a_whole_table(filled: None) -> None:
    """But through that of the gateway accounts, which has a few rows."""
    plans = {name: explain(query) for name, query in QUERIES.items()}
    assert {name: plan for name, plan in plans.items() if WALK.search(plan)} == {}


def test_the_judge_would_see_such_a_walk(filled: None) -> None:
    assert "Seq Scan on payments_sagarun" in explain(
        lambda: "SELECT count(*) FROM payments_sagarun WHERE attempts = 0"
    )


def explain(query: Callable[[], str]) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {query()}")
        return "\n".join(row[0] for row in cursor.fetchall())
