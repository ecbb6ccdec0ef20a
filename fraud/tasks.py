"""Celery tasks of fraud: each calls one service."""

from __future__ import annotations

from celery import shared_task

from fraud import labels, measures, outcomes, services
from fraud.backtest import running
from fraud.lists import fold_hits, imports


@shared_task
def expire_reviews() -> int:
    return services.expire_reviews()


@shared_task
def run_backtests() -> int:
    return running.run_waiting()


@shared_task
def collect_labels() -> int:
    return labels.collect_labels()


@shared_task
def mature_labels() -> int:
    return labels.mature_labels()


@shared_task
def watch_rules() -> int:
    """Count the day that is over, then tell of rules that hit more or less often than they did."""
    measures.keep_judged()
    return measures.report_drift()


@shared_task
def fold_list_hits() -> int:
    return fold_hits()


@shared_task(time_limit=3600)
def apply_list_imports() -> int:
    return imports.apply_imports()


@shared_task
def collect_outcomes() -> int:
    return outcomes.collect_outcomes()
