"""Tells storefronts what happened: events become deliveries, deliveries are posted until they are taken."""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from payments.ids import lowest_id
from payments.models import Event, Order
from payments.redaction import redact
from webhooks.models import Delivery, DeliveryAttempt, DeliveryState, Endpoint, EndpointSecret, OutboxPosition
from webhooks.signatures import sign_message
from webhooks.transport import Answer, post

logger = structlog.stdlib.get_logger(__name__)

# After the first, second ... failure: the example of the Standard Webhooks specification, three days in all.
RETRY_SECONDS = (5, 300, 1800, 7200, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)
JITTER = 0.2
MAX_RETRY_AFTER_SECONDS = 24 * 3600
DISABLE_AFTER = timedelta(days=5)
LEASE_SECONDS = 120  # above the worst time of one batch: five rounds of the transport's 15 s
BATCH = 40
PARALLEL_POSTS = 8
FAN_OUT_BATCH = 500
MAX_MESSAGE_BYTES = 20_000  # the specification asks for less than 20 KB
USER_AGENT = "Countinghouse-Webhooks/1.0"


def deliver_events(*, limit: int = BATCH) -> int:
    """Fan new events out and post what is due, until nothing is. Returns how many were posted."""
    posted = 0
    while True:
        enqueue_deliveries()
        count = deliver_due(limit=limit)
        posted += count
        if count < limit:
            return posted


# --- from events to deliveries ------------------------------------------------------------------------------

# An event's id carries the time of its making, not of its commit: a transaction that began earlier may commit
# later. So the position never moves past a moment at which every transaction that could still bring an older
# event has ended; what lies between the position and now is read anew each time, and the unique index on
# (endpoint, event) says what is done. The margin covers clocks of several machines that disagree.
_HORIZON = """
    SELECT least(now(), min(xact_start)) - interval '60 seconds' FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
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


def enqueue_deliveries() -> int:
    """Make the deliveries of every public event without. Returns how many; any number may run at once."""
    horizon = _read_horizon()  # before the events are read, or one could slip in between
    position, _ = OutboxPosition.objects.get_or_create(pk=1)
    made = 0
    while pairs := _find_untold(position.settled_until):
        now = timezone.now()
        deliveries = [
            Delivery(endpoint_id=endpoint, event_id=event, created_at=now, next_try_at=now)
            for endpoint, event in pairs
        ]
        Delivery.objects.bulk_create(deliveries, ignore_conflicts=True)
        made += len(pairs)
        if len(pairs) < FAN_OUT_BATCH:
            break
    OutboxPosition.objects.filter(pk=1, settled_until__lt=horizon).update(settled_until=horizon)
    return made


def _read_horizon() -> str:
    with connection.cursor() as cursor:
        cursor.execute(_HORIZON)
        return lowest_id("evt", cursor.fetchone()[0])


def _find_untold(position: str) -> list[tuple[str, str]]:
    with connection.cursor() as cursor:
        cursor.execute(_UNTOLD, [position, FAN_OUT_BATCH])
        return list(cursor.fetchall())


# --- from deliveries to posts -------------------------------------------------------------------------------

_CLAIM = """
    UPDATE webhooks_delivery
    SET attempts = attempts + 1, epoch = epoch + 1, next_try_at = clock_timestamp() + make_interval(secs => %s)
    WHERE id IN (
        SELECT d.id FROM webhooks_delivery d JOIN webhooks_endpoint e ON e.id = d.endpoint_id AND e.is_enabled
        WHERE d.state = 'pending' AND d.next_try_at <= clock_timestamp()
          AND EXISTS (
            SELECT FROM webhooks_endpointsecret s
            WHERE s.endpoint_id = e.id AND (s.expires_at IS NULL OR s.expires_at > clock_timestamp())
          )
        ORDER BY d.next_try_at, d.id LIMIT %s FOR UPDATE OF d SKIP LOCKED
    )
    RETURNING id
"""


@dataclass(frozen=True, slots=True)
class _Message:
    """Everything that a post needs, so that its thread never touches the database."""

    url: str
    body: bytes
    headers: dict[str, str]


def deliver_due(*, limit: int = BATCH) -> int:
    """Post the deliveries that are due, several at a time, with no transaction open. Returns how many."""
    deliveries = _claim(limit)
    signing_secrets = _load_secrets(deliveries)
    messages = [make_message(delivery, signing_secrets[delivery.endpoint_id]) for delivery in deliveries]
    started = timezone.now()
    with ThreadPoolExecutor(PARALLEL_POSTS) as pool:
        for delivery, answer in zip(deliveries, pool.map(_send, messages), strict=True):
            record_answer(delivery, answer, started_at=started)
    return len(deliveries)


def _claim(limit: int) -> list[Delivery]:
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, [LEASE_SECONDS, limit])
        claimed = [row[0] for row in cursor.fetchall()]
    found = Delivery.objects.select_related("endpoint", "event").filter(pk__in=claimed)
    return list(found.order_by("pk"))


def _load_secrets(deliveries: Sequence[Delivery]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    endpoints = {delivery.endpoint_id for delivery in deliveries}
    for secret in EndpointSecret.objects.valid().filter(endpoint__in=endpoints):
        found[secret.endpoint_id].append(secret.value)
    return found


def make_message(delivery: Delivery, signing_secrets: Sequence[str]) -> _Message:
    """The signed message of this try: always the same id and body, signed with the time of the try."""
    body = make_body(delivery)
    signed = sign_message(
        message_id=delivery.message_id,
        timestamp=int(time.time()),
        body=body,
        signing_secrets=signing_secrets,
    )
    headers = {
        "content-type": "application/json",
        "user-agent": USER_AGENT,
        "webhook-event-type": delivery.event_type,
        "webhook-attempt": str(delivery.attempts),
        **signed,
    }
    return _Message(delivery.endpoint.url, body, headers)


def make_body(delivery: Delivery) -> bytes:
    """The body of every try, byte for byte; an event that is too large is told without its data."""
    message = describe_message(delivery)
    body = _encode(message)
    if len(body) < MAX_MESSAGE_BYTES or delivery.event is None:
        return body
    event = delivery.event
    thin = {"order": {"id": event.order_id}, "sequence": event.sequence, "truncated": True}
    return _encode({**message, "data": thin})


def describe_message(delivery: Delivery) -> dict[str, Any]:
    """`{type, timestamp, data}`; `data.sequence` counts up per order, so that events can be put in order."""
    event = delivery.event
    moment = event.created_at if event else delivery.created_at
    data = {**event.data, "sequence": event.sequence} if event else {"endpoint": delivery.endpoint_id}
    return {"type": delivery.event_type, "timestamp": moment.isoformat().replace("+00:00", "Z"), "data": data}


def _encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def _send(message: _Message) -> Answer:
    allow_private = bool(getattr(settings, "WEBHOOK_ALLOW_PRIVATE", False))
    return post(message.url, body=message.body, headers=message.headers, allow_private=allow_private)


# --- what came of it ----------------------------------------------------------------------------------------


def record_answer(delivery: Delivery, answer: Answer, *, started_at: datetime) -> None:
    """Write the try down, settle or reschedule the delivery, and judge the endpoint's health."""
    with transaction.atomic():
        if not _settle(delivery, answer):
            return  # the lease ended, and another worker has it
        DeliveryAttempt.objects.create(
            delivery=delivery,
            started_at=started_at,
            duration_ms=answer.duration_ms,
            status=answer.status,
            answer=redact(answer.body.decode("utf-8", "replace").replace("\0", "")),
            error=redact(answer.error),
        )
    if answer.is_success:
        Endpoint.objects.filter(pk=delivery.endpoint_id, failing_since__isnull=False).update(
            failing_since=None
        )
    else:
        _judge_endpoint(delivery, answer)


def _settle(delivery: Delivery, answer: Answer) -> bool:
    error = "" if answer.is_success else answer.error or f"answered {answer.status}"
    columns: dict[str, Any] = {"last_status": answer.status, "last_error": redact(error)[:300]}
    if answer.is_success:
        columns |= {"state": DeliveryState.DELIVERED, "next_try_at": None, "delivered_at": Now()}
    elif answer.status == 410 or delivery.attempts > len(RETRY_SECONDS):
        columns |= {"state": DeliveryState.FAILED, "next_try_at": None}
    else:
        wait = choose_wait(delivery.attempts, retry_after=answer.retry_after)
        columns |= {"next_try_at": Now() + timedelta(seconds=wait)}
    held = Delivery.objects.filter(pk=delivery.pk, epoch=delivery.epoch, state=DeliveryState.PENDING)
    return bool(held.update(**columns))


def choose_wait(failures: int, *, retry_after: int | None = None) -> float:
    """Seconds until the next try, with 20 % of jitter; not before the endpoint asked for, up to a day."""
    scheduled = RETRY_SECONDS[failures - 1] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
    return max(scheduled, min(retry_after or 0, MAX_RETRY_AFTER_SECONDS))


def _judge_endpoint(delivery: Delivery, answer: Answer) -> None:
    endpoint = delivery.endpoint
    if answer.status == 410:
        disable_endpoint(endpoint, reason="the endpoint answered 410 Gone", event=delivery.event)
        return
    Endpoint.objects.filter(pk=endpoint.pk, failing_since__isnull=True).update(failing_since=Now())
    lasting = Endpoint.objects.filter(
        pk=endpoint.pk, is_enabled=True, failing_since__lte=Now() - DISABLE_AFTER
    )
    if lasting.exists():
        reason = f"every try has failed for {DISABLE_AFTER.days} days"
        disable_endpoint(endpoint, reason=reason, event=delivery.event)


def disable_endpoint(endpoint: Endpoint, *, reason: str, event: Event | None = None) -> bool:
    """Stop delivering there, and give up what is on its way. Returns False when it was disabled already.

    With the event whose delivery failed last, a `webhook_endpoint.disabled` event is written behind it: the
    client's other endpoints and its list of events tell of it.
    """
    with transaction.atomic():
        order = Order.objects.locked(event.order_id) if event else None
        enabled = Endpoint.objects.filter(pk=endpoint.pk, is_enabled=True)
        if not enabled.update(is_enabled=False, disabled_reason=reason):
            return False
        pending = Delivery.objects.filter(endpoint=endpoint, state=DeliveryState.PENDING)
        pending.update(state=DeliveryState.ABANDONED, next_try_at=None, last_error=reason)
        if order:
            data = {"endpoint": {"id": endpoint.pk, "url": endpoint.url, "reason": reason}}
            Event.objects.record(order, "webhook_endpoint.disabled", data=data)
    logger.error("webhook_endpoint_disabled", endpoint_id=endpoint.pk, reason=reason)
    return True
