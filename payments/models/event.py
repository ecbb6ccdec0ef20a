"""The outbox: what happened to an order, written in the transaction in which it happened, never changed."""

from __future__ import annotations

import json
from typing import Any

from django.db import models
from django.utils import timezone

from payments import ids, sql
from payments.models.client import ApiClient
from payments.models.fields import PrefixedIdField
from payments.models.order import Order

_RECORD = """
WITH counted AS (
    UPDATE payments_order SET event_sequence = event_sequence + 1 WHERE id = %s RETURNING id, event_sequence
)
INSERT INTO payments_event (id, client_id, order_id, type, sequence, data, actor, is_public, created_at)
SELECT %s, %s, counted.id, %s, counted.event_sequence, %s::jsonb, %s, %s, %s FROM counted
RETURNING sequence
"""

# An event's id carries the time of its making, not of its commit: a transaction that began earlier may commit
# later. The margin covers clocks of several machines that disagree.
_HORIZON = """
SELECT least(now(), min(xact_start)) - interval '60 seconds' FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


class EventQuerySet(models.QuerySet["Event"]):
    def record(
        self,
        order: Order,
        event_type: str,
        *,
        data: dict[str, Any],
        actor: str = "system",
        is_public: bool = True,
    ) -> Event:
        """Append one event to the order's sequence, in one round trip and in the caller's transaction.

        `actor` is `system`, `api:<client>`, `gateway` or `user:<username>`. Public events go to the storefront.
        """
        event = Event(
            order=order, client_id=order.client_id, type=event_type, data=data, created_at=timezone.now()
        )
        event.actor, event.is_public = actor, is_public
        text = json.dumps(data, default=str)
        row = sql.fetch_one(
            _RECORD,
            [order.pk, event.id, event.client_id, event_type, text, actor, is_public, event.created_at],
        )
        assert row is not None, "the order exists: it was locked"
        event.sequence = row[0]
        order.event_sequence = event.sequence
        return event

    def read_horizon(self) -> str:
        """The id below which no event can appear any more: every transaction that could bring one has ended."""
        row = sql.fetch_one(_HORIZON, [])
        assert row is not None, "an aggregate has a row"
        return ids.lowest_id("evt", row[0])


class Event(models.Model):
    """One public or internal event; `sequence` counts up per order, without gaps."""

    id = PrefixedIdField(prefix="evt")
    client = models.ForeignKey(ApiClient, on_delete=models.PROTECT, related_name="events", db_index=False)
    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="events", db_index=False)
    type = models.CharField(max_length=50)
    sequence = models.PositiveIntegerField()
    data = models.JSONField()
    actor = models.CharField(max_length=150, default="system")
    is_public = models.BooleanField(default=True)
    created_at = models.DateTimeField()

    objects = EventQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["order", "sequence"], name="event_sequence")]
        indexes = [models.Index(fields=["client", "-id"], name="event_client_newest")]

    def __str__(self) -> str:
        return f"{self.type} #{self.sequence} of {self.order_id}"
