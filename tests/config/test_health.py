"""Liveness, readiness and metrics."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client, RequestFactory
from django.utils import timezone

from config.metrics import show_metrics
from payments.models import SagaState
from tests.factories import SagaRunFactory


def test_liveness_asks_no_database() -> None:  # without the db mark a query would fail
    response = Client().get("/healthz")
    assert (response.status_code, response.content) == (200, b"ok")
    assert "no-store" in response["Cache-Control"]


@pytest.mark.django_db
def test_a_migrated_site_is_ready() -> None:
    response = Client().get("/readyz")
    assert response.status_code == 200, response.content
    assert response.json()["status"] == "ok"
    assert response.json()["checks"]["queues"]["oldest_seconds"]["sagas"] is None


@pytest.mark.django_db
def test_the_age_of_the_oldest_due_saga_is_shown() -> None:
    now = timezone.now()
    SagaRunFactory.create(wake_at=now - timedelta(minutes=5))
    SagaRunFactory.create(wake_at=now + timedelta(minutes=5))
    SagaRunFactory.create(wake_at=now - timedelta(hours=5), state=SagaState.COMPLETED)
    age = Client().get("/readyz").json()["checks"]["queues"]["oldest_seconds"]["sagas"]
    assert 300 <= age < 600


@pytest.mark.django_db
def test_a_missing_migration_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.health.MigrationExecutor.migration_plan", lambda *args: ["0099"])
    response = Client().get("/readyz")
    assert response.status_code == 503
    assert response.json()["checks"]["migrations"] == {"ok": False, "reason": "1 migrations are not applied"}


@pytest.mark.django_db
def test_a_lost_database_is_not_ready_and_names_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OperationalError("connection to host=10.0.0.1 user=shop failed")

    monkeypatch.setattr("config.health.connection.cursor", fail)
    response = Client().get("/readyz")
    metrics = Client().get("/metrics")
    assert response.status_code == metrics.status_code == 503
    assert b"10.0.0.1" not in response.content + metrics.content


@pytest.mark.django_db
def test_the_metrics_count_what_waits() -> None:
    SagaRunFactory.create(wake_at=timezone.now() - timedelta(minutes=5))
    SagaRunFactory.create(state=SagaState.FAILED_COMPENSATION, wake_at=None)
    text = Client().get("/metrics").content.decode()
    assert 'payments_sagas{kind="checkout",state="FAILED_COMPENSATION"} 1.0' in text
    assert 'queue_oldest_due_seconds{queue="sagas"} 3' in text
    for name in ("webhooks_open", "fraud_reviews", "reconciliation_discrepancies", "api_refused_bodies"):
        assert f"# HELP {name}" in text


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("environ", "status"),
    [
        ({"REMOTE_ADDR": "127.0.0.1"}, 200),
        ({"REMOTE_ADDR": "203.0.113.9"}, 404),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "203.0.113.9"}, 404),
        ({"REMOTE_ADDR": "203.0.113.9", "HTTP_AUTHORIZATION": "Bearer right-token"}, 200),
        ({"REMOTE_ADDR": "203.0.113.9", "HTTP_AUTHORIZATION": "Bearer wrong-token"}, 404),
        ({"REMOTE_ADDR": "203.0.113.9", "HTTP_AUTHORIZATION": "Bearer "}, 404),
    ],
)
def test_in_production_only_this_machine_or_the_token_reads_metrics(
    environ: dict[str, str], status: int, settings: Any
) -> None:
    settings.PRODUCTION = True
    settings.METRICS_TOKEN = "right-token"
    request = RequestFactory().get("/metrics")
    request.META.update(environ)
    assert show_metrics(request).status_code == status


@pytest.mark.django_db
def test_without_a_token_no_token_opens(settings: Any) -> None:
    settings.PRODUCTION = True
    settings.METRICS_TOKEN = ""
    response = Client().get("/metrics", REMOTE_ADDR="203.0.113.9", HTTP_AUTHORIZATION="Bearer ")
    assert response.status_code == 404
