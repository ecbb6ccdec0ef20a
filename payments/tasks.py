"""The floor's Celery tasks: each loads by id or takes what is due, and calls one service."""

from __future__ import annotations

from celery import shared_task

from payments import oncall, services
from payments import purge as data_life
from payments.proof import prove_ledger as prove

PURGE_SECONDS = 8 * 60.0  # below CELERY_TASK_TIME_LIMIT


@shared_task
def sweep_sagas() -> int:
    return services.sweep_sagas()


@shared_task
def ask_due_operations() -> int:
    return services.ask_due_operations()


@shared_task
def watch_holds() -> int:
    return services.watch_holds()


@shared_task
def watch_disputes() -> int:
    return services.watch_disputes()


@shared_task
def purge() -> int:
    """How many rows and partitions went; what is left, the next night has."""
    return sum(tally.count for tally in data_life.purge(seconds=PURGE_SECONDS))


@shared_task
def bury_old_keys() -> int:
    """Part of `purge` now; schedules that were copied into the database before still name it."""
    return sum(tally.count for tally in data_life.purge(table="payments_idempotencykey"))


@shared_task
def forget_removed_methods() -> int:
    return services.forget_removed_methods()


@shared_task
def continue_erasures() -> int:
    return services.continue_erasures()


@shared_task
def send_unsent_pages() -> int:
    return oncall.send_unsent_pages()


@shared_task
def prove_ledger() -> int:
    """How many differences the proof found; they are in the log."""
    return len(prove())


@shared_task
def rotate_token_keys() -> bool:
    return services.rotate_due_token_keys()
