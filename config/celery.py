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
    "ask about open operations": ("payments.tasks.ask_due_operations", 15.0),
    "watch holds": ("payments.tasks.watch_holds", 60.0),
    "watch disputes": ("payments.tasks.watch_disputes", 300.0),
    "deliver storefront webhooks": ("webhooks.tasks.deliver_due", 5.0),
    "mail about endpoints": ("webhooks.tasks.send_notices", 30.0),
    "process gateway webhooks": ("webhooks.tasks.process_due", 5.0),
    "watch webhooks": ("webhooks.tasks.watch_webhooks", 60.0),
    "look for missing webhooks": ("webhooks.tasks.check_gaps", {"minute": "20"}),
    "look for missing webhooks of three days": ("webhooks.tasks.look_back", {"hour": "2", "minute": "40"}),
    "run back-tests": ("fraud.tasks.run_backtests", 5.0),
    "collect outcomes for fraud": ("fraud.tasks.collect_outcomes", 5.0),
    "expire reviews": ("fraud.tasks.expire_reviews", 60.0),
    "label orders": ("fraud.tasks.collect_labels", 60.0),
    "label orders by time": ("fraud.tasks.mature_labels", {"hour": "2", "minute": "10"}),
    "watch fraud rules": ("fraud.tasks.watch_rules", {"hour": "1", "minute": "10"}),
    "count list hits": ("fraud.tasks.fold_list_hits", 60.0),
    "import lists": ("fraud.tasks.apply_list_imports", 60.0),
    "reconcile yesterday": ("reconciliation.tasks.reconcile_due", {"minute": "30"}),
    "resume reconciliations": ("reconciliation.tasks.resume_runs", 60.0),
    "recheck discrepancies": ("reconciliation.tasks.recheck_unsettled", 60.0),
    "call on-call": ("payments.tasks.send_unsent_pages", 10.0),
    "forget removed payment methods": ("payments.tasks.forget_removed_methods", 60.0),
    "continue erasures": ("payments.tasks.continue_erasures", 600.0),
    "purge old data": ("payments.tasks.purge", {"hour": "3", "minute": "15"}),
    "bury old idempotency keys": ("payments.tasks.bury_old_keys", {"hour": "3", "minute": "15"}),
    "rotate token keys": ("payments.tasks.rotate_token_keys", {"hour": "4", "minute": "45"}),
    "prove the ledger": ("payments.tasks.prove_ledger", {"hour": "5", "minute": "0"}),
}
