"""Turns events into deliveries: one for each endpoint of the client that wants to hear of it, never two."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone

from payments import sql
from payments.ids import lowest_id
from payments.models import Event
from webhooks.models import Delivery, Endpoint, OutboxPosition

BATCH = 500
MOST_AT_ONCE = 10_000

# The position never moves past the horizon; what lies between them is read anew each time, and the unique index
# on (endpoint, event) says what is done.
_UNTOLD = """
    SELECT endpoint.id, event.id
    FROM payments_event event
    JOIN webhooks_endpoint endpoint ON endpoint.client_id = event.client_id AND endpoint.is_enabled
     AND event.created_at >= endpoint.created_at
     AND (endpoint.event_types = '[]'::jsonb OR endpoint.event_types @> to_jsonb(event.type))
    WHERE event.is_public AND event.id >= %s
      AND NOT EXISTS (
        SELECT FROM webhooks_delivery told WHERE told.endpoint_id = endpoint.id AND told.event_id = event.id
      )
    ORDER BY event.id LIMIT %s
"""

# The id bounds the search by its index; the time is what was asked for.
_MISSED = """
    SELECT endpoint.id, event.id
    FROM webhooks_endpoint endpoint
    JOIN payments_event event ON event.client_id = endpoint.client_id
     AND (endpoint.event_types = '[]'::jsonb OR endpoint.event_types @> to_jsonb(event.type))
    WHERE endpoint.id = %s AND event.is_public AND event.id >= %s AND event.created_at >= %s
      AND NOT EXISTS (
        SELECT FROM webhooks_delivery told WHERE told.endpoint_id = endpoint.id AND told.event_id = event.id
      )
    ORDER BY event.id LIMIT %s
"""


def enqueue_deliveries() -> int:
    """Make the deliveries of every public event without. Returns how many; any number may run at once."""
    horizon = Event.objects.read_horizon()  # before the events are read, or one could slip in between
    position, _ = OutboxPosition.objects.get_or_create(pk=1)
    made = 0
    while pairs := sql.fetch_all(_UNTOLD, [position.settled_until, BATCH]):
        made += _make_deliveries(pairs)
        if len(pairs) < BATCH:
            break
    OutboxPosition.objects.filter(pk=1, settled_until__lt=horizon).update(settled_until=horizon)
    return made


def enqueue_missed(endpoint: Endpoint, *, since: datetime) -> int:
    """Make the deliveries that the endpoint never had, oldest first and at most 10,000. Returns how many."""
    bounds = [endpoint.pk, lowest_id("evt", since), since, MOST_AT_ONCE]
    return _make_deliveries(sql.fetch_all(_MISSED, bounds))


def _make_deliveries(pairs: list[tuple[str, str]]) -> int:
    now = timezone.now()
    deliveries = [
        Delivery(endpoint_id=endpoint, event_id=event, created_at=now, next_try_at=now)
        for endpoint, event in pairs
    ]
    Delivery.objects.bulk_create(deliveries, ignore_conflicts=True, batch_size=BATCH)
    return len(deliveries)
