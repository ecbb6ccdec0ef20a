"""The Celery app and its beat defaults: every cadence of the system on one screen."""

from __future__ import annotations

import os

from celery import Celery, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("countinghouse")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@signals.setup_logging.connect
def keep_logging(**_: object) -> None:
    """Celery's own hook, not Django's: with a receiver it leaves our masking handlers alone."""


# Seconds, or the fields of a crontab in UTC. Copied into the database by `manage.py sync_schedule`; from then on
# the admin owns them.
BEAT_SCHEDULE: dict[str, tuple[str, float | dict[str, str]]] = {
    "sweep sagas": ("payments.tasks.sweep_sagas", 5.0),
    "deliver storefront webhooks": ("webhooks.tasks.deliver_due", 5.0),
    "process gateway webhooks": ("webhooks.tasks.process_due", 5.0),
    "expire reviews": ("fraud.tasks.expire_reviews", 60.0),
    "reconcile yesterday": ("reconciliation.tasks.reconcile_due", {"minute": "30"}),
    "resume reconciliations": ("reconciliation.tasks.resume_runs", 60.0),
    "recheck discrepancies": ("reconciliation.tasks.recheck_unsettled", 60.0),
    "call on-call": ("payments.tasks.send_unsent_pages", 10.0),
    "page about missing money": ("reconciliation.tasks.send_unsent_pages", 60.0),
    "bury old idempotency keys": ("payments.tasks.bury_old_keys", {"hour": "3", "minute": "15"}),
    "prove the ledger": ("payments.tasks.prove_ledger", {"hour": "5", "minute": "0"}),
}
