"""What beat and the bells start: each task loads nothing and calls one function."""

from __future__ import annotations

from celery import shared_task

from webhooks import outbound, processing
from webhooks.bell import Bell


@shared_task
def process_due() -> int:
    """Gateway webhooks that are due; with more of them than one message may take, another message."""
    done = processing.process_due()
    if done >= processing.BATCH:
        inbound_bell.ring()
    return done


@shared_task
def process_webhook(inbound_id: str) -> bool:
    """One gateway webhook, now."""
    return processing.process_webhook(inbound_id)


@shared_task
def deliver_due() -> int:
    """New events to their endpoints, and the deliveries that are due."""
    return outbound.deliver_events()


inbound_bell = Bell(process_due)
outbound_bell = Bell(deliver_due)
