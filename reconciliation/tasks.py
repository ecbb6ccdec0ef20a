"""The bell of reconciliation: each task makes one call."""

from __future__ import annotations

from celery import shared_task

from payments.errors import PaymentError
from reconciliation import services


@shared_task
def reconcile_due() -> None:
    services.reconcile_due()


@shared_task
def resume_runs() -> None:
    services.resume_runs()


@shared_task(throws=(PaymentError,))
def execute_run(run_id: str) -> None:
    services.execute_run(run_id)


@shared_task
def recheck_unsettled() -> None:
    services.recheck_unsettled()
