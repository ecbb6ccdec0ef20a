"""The Celery app and its beat defaults: every cadence of the system on one screen."""

from __future__ import annotations

import os

from celery import Celery, signals
from celery.schedules import crontab

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("countinghouse")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

@signals.setup_logging.connect
def keep_logging(**_: object) -> None:
    """Celery's own hook, not Django's: with a receiver it leaves our masking handlers alone."""


# Copied into the database by `manage.py sync_schedule`; from then on the admin owns them.
BEAT_SCHEDULE = {
    "sweep sagas": {"task": "payments.tasks.sweep_sagas", "schedule": 5.0},
    "deliver storefront webhooks": {"task": "webhooks.tasks.deliver_due", "schedule": 5.0},
    "process gateway webhooks": {"task": "webhooks.tasks.process_due", "schedule": 5.0},
    "expire reviews": {"task": "fraud.tasks.expire_reviews", "schedule": 60.0},
    "reconcile yesterday": {"task": "reconciliation.tasks.reconcile_due", "schedule": crontab(minute="30")},
    "resume reconciliations": {"task": "reconciliation.tasks.resume_runs", "schedule": 60.0},
    "recheck discrepancies": {"task": "reconciliation.tasks.recheck_unsettled", "schedule": 60.0},
    "page about missing money": {"task": "reconciliation.tasks.send_unsent_pages", "schedule": 60.0},
    "prove the ledger": {"task": "payments.tasks.prove_ledger", "schedule": crontab(hour="5", minute="0")},
}
