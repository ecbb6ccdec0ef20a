"""What beat and the bells start: each task loads nothing and calls one function."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task

from webhooks import gaps, notices, outbound, processing, watch
from webhooks.bell import Bell

NIGHTLY_SPAN = timedelta(days=3)


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
def watch_webhooks() -> int:
    """Pages about what stands still among the gateways' webhooks, or is missing."""
    return watch.watch_webhooks()


@shared_task
def check_gaps() -> int:
    """Events that the gateways list and never sent; a worker is woken for what was found."""
    found = gaps.check_gaps()
    if found:
        inbound_bell.ring()
    return found


@shared_task
def look_back() -> int:
    """Every night the last three days once more, for what a list showed late."""
    gaps.look_back(NIGHTLY_SPAN)
    return check_gaps()


@shared_task
def deliver_due() -> int:
    """New events to their endpoints, and the deliveries that are due; what came meanwhile has another message."""
    done = outbound.deliver_events()
    if done:
        outbound_bell.ring()
    return done


@shared_task
def send_notices() -> int:
    """Mails that are owed to whom an endpoint belongs."""
    return notices.send_notices()


inbound_bell = Bell(process_due)
outbound_bell = Bell(deliver_due)
