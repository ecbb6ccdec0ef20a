"""The floor's Celery tasks: each loads by id or takes what is due, and calls one service."""

from __future__ import annotations

from celery import shared_task

from payments import idempotency, oncall, services
from payments.proof import prove_ledger as prove


@shared_task
def sweep_sagas() -> int:
    return services.sweep_sagas()


@shared_task
def bury_old_keys() -> int:
    return idempotency.bury_old_keys()


@shared_task
def send_unsent_pages() -> int:
    return oncall.send_unsent_pages()


@shared_task
def prove_ledger() -> int:
    """How many differences the proof found; they are in the log."""
    return len(prove())
