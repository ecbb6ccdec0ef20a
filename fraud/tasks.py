"""Celery tasks of fraud: each calls one service."""

from __future__ import annotations

from celery import shared_task

from fraud import services


@shared_task
def expire_reviews() -> int:
    return services.expire_reviews()
