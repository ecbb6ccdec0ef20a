"""An account whose captures are due at once, a day in the past, and a run of it."""

from __future__ import annotations

import pytest

from payments.models import GatewayAccount
from reconciliation.models import Run, RunTrigger
from reconciliation.services import execute_run, start_run
from tests.factories.payments import GatewayAccountFactory
from tests.factories.reconciliation import DAY, Report, RunDay


@pytest.fixture
def account(db: None) -> GatewayAccount:
    return GatewayAccountFactory.create(settlement_lag_days=0)


@pytest.fixture
def report() -> Report:
    return Report(DAY)


@pytest.fixture
def run_day(account: GatewayAccount) -> RunDay:
    """Start and carry out the run of the report's day."""

    def run(report: Report) -> Run:
        started = start_run(account, day=report.day, trigger=RunTrigger.UPLOAD, report=report.chunks())
        return execute_run(started.pk)

    return run
