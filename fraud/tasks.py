"""Celery tasks of fraud: each calls one service."""

from __future__ import annotations

from celery import shared_task

from fraud import services
from fraud.backtest import running


@shared_task
def expire_reviews() -> int:
    return services.expire_reviews()


@shared_task
def run_backtests() -> int:
    return running.run_waiting()
