"""Tells storefronts what happened: deliveries that are due are posted, many at once, until they are taken."""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

import structlog
from django.conf import settings
from django.db import OperationalError, transaction
from django.utils import timezone

from payments import sql
from payments.redaction import redact
from webhooks.endpoint_health import (
    MAX_RETRY_AFTER_SECONDS,
    PATIENCE,
    Record,
    hold_claims,
    note_failure,
    note_probe_failure,
    note_success,
)
from webhooks.endpoints import make_probes, revive_endpoint
from webhooks.models import Delivery, DeliveryState, EndpointSecret
from webhooks.outbox import enqueue_deliveries
from webhooks.signatures import sign_message
from webhooks.transport import Answer, post

logger = structlog.stdlib.get_logger(__name__)

# After the first, second ... failure: the example of the Standard Webhooks specification, three days in all.
RETRY_SECONDS = (5, 300, 1800, 7200, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)
JITTER = 0.2
LEASE_MARGIN_SECONDS = 30.0  # beyond the transport's time, for writing down what came of it
THREADS = 64  # they wait more than they work
LANES = 2  # loops at once over all workers; each holds a Celery process
RUN_SECONDS = 60.0  # then the loop makes way, and its task rings for the next
LOOK_SECONDS = 0.25  # for what fell due meanwhile
FAN_OUT_SECONDS = 1.0
MAX_MESSAGE_BYTES = 20_000  # the specification asks for less than 20 KB
USER_AGENT = "Countinghouse-Webhooks/1.0"
NO_HEADERS: Mapping[str, str] = MappingProxyType({})

_LANES = 0x6C616E65  # the key of their locks: any number that nobody else uses


@dataclass(frozen=True, slots=True)
class _Message:
    """Everything that a post needs, so that its thread never touches the database."""

    url: str
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Post:
    """A delivery that is under way."""

    delivery: Delivery
    headers: Mapping[str, str]
    started_at: datetime


# --- the loop -----------------------------------------------------------------------------------------------


def deliver_events(*, seconds: float = RUN_SECONDS) -> int:
    """Fan new events out and post what is due, until nothing is or the time is up. Returns how many were posted."""
    _fan_out()
    with _lane() as is_free:
        return deliver_due(seconds=seconds) if is_free else 0


def deliver_due(*, seconds: float = RUN_SECONDS) -> int:
    """Keep a pool of threads posting what is due, with no transaction open. Returns how many were posted.

    A thread that waits for an answer holds up nobody: whoever is done makes room for the next that is due, and no
    endpoint gets more than its few. Any number of these may run at once.
    """
    end = time.monotonic() + seconds
    next_fan_out = time.monotonic() + FAN_OUT_SECONDS
    under_way: dict[Future[Answer], _Post] = {}
    posted = 0
    with ThreadPoolExecutor(THREADS, thread_name_prefix="post") as pool:
        while True:
            if time.monotonic() < end:
                with _stumbling("claim"):
                    under_way |= _start(pool, THREADS - len(under_way))
            pause = _choose_pause() if time.monotonic() < end else LOOK_SECONDS
            if not under_way:
                if pause is None or time.monotonic() >= end:
                    return posted
                time.sleep(pause)
                continue
            done, _ = wait(under_way, timeout=pause or LOOK_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                _finish(under_way.pop(future), future)
            posted += len(done)
            if time.monotonic() >= next_fan_out:
                with _stumbling("fan out"):
                    _fan_out()
                next_fan_out = time.monotonic() + FAN_OUT_SECONDS


def _fan_out() -> None:
    enqueue_deliveries()
    make_probes()


@contextmanager
def _stumbling(where: str) -> Iterator[None]:
    """A lock that was waited for too long must not lose the answers that are under way; it is tried again."""
    try:
        yield
    except OperationalError as error:
        logger.warning("webhook_loop_stumbled", where=where, error=str(error))


@contextmanager
def _lane() -> Iterator[bool]:
    """Whether one of the few lanes was free; it is ours for the block, and lost with the connection."""
    lane = next((number for number in range(LANES) if _ask_lane("pg_try_advisory_lock", number)), None)
    try:
        yield lane is not None
    finally:
        if lane is not None:
            _ask_lane("pg_advisory_unlock", lane)


def _ask_lane(function: str, lane: int) -> bool:
    row = sql.fetch_one(f"SELECT {function}(%s::int, %s::int)", [_LANES, lane])
    return bool(row and row[0])


def _start(pool: ThreadPoolExecutor, free: int) -> dict[Future[Answer], _Post]:
    """Claim what the free threads can take, and hand it to them."""
    deliveries = _claim(free) if free else []
    if not deliveries:
        return {}
    signing_secrets = _load_secrets(deliveries)
    started: dict[Future[Answer], _Post] = {}
    for delivery in deliveries:
        moment = timezone.now()
        try:
            message = make_message(delivery, signing_secrets[delivery.endpoint_id])
        except Exception as error:  # one that cannot be written must not keep the others waiting
            logger.exception("webhook_not_written", delivery_id=delivery.pk)
            answer = Answer(None, error=f"not sent: {type(error).__name__}: {error}"[:300])
            record_answer(delivery, answer, started_at=moment)
        else:
            started[pool.submit(_send, message)] = _Post(delivery, message.headers, moment)
    return started


def _send(message: _Message) -> Answer:
    return post(
        message.url,
        body=message.body,
        headers=message.headers,
        allow_private=settings.WEBHOOK_ALLOW_PRIVATE,
        seconds=settings.WEBHOOK_TIMEOUT_SECONDS,
    )


def _finish(sent: _Post, future: Future[Answer]) -> None:
    try:
        record_answer(sent.delivery, future.result(), started_at=sent.started_at, headers=sent.headers)
    except Exception:
        # It is due again when its lease ends; the answers of the others must not be lost with it.
        logger.exception("webhook_answer_not_recorded", delivery_id=sent.delivery.pk)


# --- taking what is due -------------------------------------------------------------------------------------

# Each endpoint gets what it has room for; where threads are few, the first of each goes before the second of any,
# what is under way counted in, and endpoints that were silent last come last. In order means: only the first by
# event id, and nothing beside it. The 64 are written out, or the planner would sort a backlog of which it takes a few.
_CLAIM = """
WITH place AS MATERIALIZED (
    SELECT e.id, e.is_enabled, e.is_ordered, e.silences, flying.under_way, least(
        CASE WHEN e.is_ordered OR e.silences >= %(patience)s THEN 1 ELSE %(in_flight)s END - flying.under_way,
        CASE WHEN e.rate_per_second IS NOT NULL THEN 1 END
    ) AS room
    FROM webhooks_endpoint e CROSS JOIN LATERAL (
        SELECT count(*) AS under_way FROM webhooks_delivery f
        WHERE f.endpoint_id = e.id AND f.leased_until > statement_timestamp()
    ) flying
    WHERE e.removed_at IS NULL
      AND (e.paused_until IS NULL OR e.paused_until <= statement_timestamp())
      AND (e.rate_per_second IS NULL OR e.paced_until IS NULL OR e.paced_until <= statement_timestamp())
      AND EXISTS (
        SELECT FROM webhooks_endpointsecret s
        WHERE s.endpoint_id = e.id AND (s.expires_at IS NULL OR s.expires_at > statement_timestamp())
      )
), due AS (
    SELECT d.id, place.room, place.under_way, place.silences > 0 AS is_silent, d.next_try_at,
        row_number() OVER (PARTITION BY place.id ORDER BY d.next_try_at, d.id) AS turn
    FROM place CROSS JOIN LATERAL (
        (
            SELECT id, next_try_at FROM webhooks_delivery
            WHERE NOT place.is_ordered AND place.room > 0 AND endpoint_id = place.id AND state = 'pending'
              AND next_try_at <= statement_timestamp()
              AND (leased_until IS NULL OR leased_until <= statement_timestamp())
              AND (place.is_enabled OR is_probe)
            ORDER BY next_try_at LIMIT 64
        ) UNION ALL (
            SELECT id, next_try_at FROM (
                SELECT id, next_try_at, leased_until FROM webhooks_delivery
                WHERE endpoint_id = place.id AND state = 'pending' AND (place.is_enabled OR is_probe)
                ORDER BY event_id LIMIT 1
            ) head
            WHERE place.is_ordered AND place.room > 0 AND next_try_at <= statement_timestamp()
              AND (leased_until IS NULL OR leased_until <= statement_timestamp())
        )
    ) d
), chosen AS (
    SELECT id FROM due WHERE turn <= room ORDER BY is_silent, under_way + turn, next_try_at LIMIT %(limit)s
), claimed AS (
    UPDATE webhooks_delivery d
    SET attempts = least(attempts + 1, 32767), epoch = epoch + 1,
        leased_until = statement_timestamp() + make_interval(secs => %(lease)s)
    FROM chosen WHERE d.id = chosen.id AND d.state = 'pending'
    RETURNING d.id, d.endpoint_id
), paced AS (
    UPDATE webhooks_endpoint
    SET paced_until = statement_timestamp() + make_interval(secs => 1.0 / rate_per_second)
    WHERE rate_per_second IS NOT NULL AND id IN (SELECT endpoint_id FROM claimed)
)
SELECT id FROM claimed
"""

# Only a rate makes something due between two looks that nothing else would announce.
_NEXT_PACE = """
    SELECT extract(epoch FROM min(e.paced_until) - statement_timestamp())::float8
    FROM webhooks_endpoint e
    WHERE e.is_enabled AND e.rate_per_second IS NOT NULL AND e.paced_until > statement_timestamp()
      AND (e.paused_until IS NULL OR e.paused_until <= e.paced_until)
      AND EXISTS (
        SELECT FROM webhooks_delivery d
        WHERE d.endpoint_id = e.id AND d.state = 'pending' AND d.next_try_at <= statement_timestamp()
      )
"""


def _claim(limit: int) -> list[Delivery]:
    bounds = {
        "limit": limit,
        "patience": PATIENCE,
        "in_flight": settings.WEBHOOKS_IN_FLIGHT,
        "lease": settings.WEBHOOK_TIMEOUT_SECONDS + LEASE_MARGIN_SECONDS,
    }
    with transaction.atomic():
        hold_claims()  # a statement of its own: the next one sees what the last holder has committed
        claimed = [row[0] for row in sql.fetch_all(_CLAIM, bounds)]
    if not claimed:
        return []
    return list(Delivery.objects.select_related("endpoint", "event").filter(pk__in=claimed).order_by("pk"))


def _choose_pause() -> float | None:
    """Seconds until a rate allows the next start, at most those between two looks; None when none is waited for."""
    row = sql.fetch_one(_NEXT_PACE, [])
    return None if row is None or row[0] is None else max(0.001, min(float(row[0]), LOOK_SECONDS))


def _load_secrets(deliveries: Sequence[Delivery]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    endpoints = {delivery.endpoint_id for delivery in deliveries}
    for secret in EndpointSecret.objects.valid().filter(endpoint__in=endpoints):
        found[secret.endpoint_id].append(secret.value)
    return found


# --- what is said -------------------------------------------------------------------------------------------


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


# --- what came of it ----------------------------------------------------------------------------------------

_SETTLE = """
WITH settled AS (
    UPDATE webhooks_delivery
    SET state = %(state)s::text, last_status = %(status)s::int, last_error = %(reason)s::text, leased_until = NULL,
        next_try_at = statement_timestamp() + make_interval(secs => %(wait)s::float8),
        delivered_at = CASE WHEN %(state)s::text = 'delivered' THEN statement_timestamp() ELSE delivered_at END
    WHERE id = %(id)s AND epoch = %(epoch)s AND state = 'pending'
    RETURNING id, endpoint_id
), tried AS (
    INSERT INTO webhooks_deliveryattempt (delivery_id, started_at, duration_ms, status, headers, answer, error)
    SELECT id, %(started_at)s::timestamptz, %(duration_ms)s::int, %(status)s::int, %(headers)s::jsonb,
        %(answer)s::text, %(error)s::text
    FROM settled
)
SELECT e.failing_since, e.silences
FROM settled JOIN webhooks_endpoint e ON e.id = settled.endpoint_id
"""


def record_answer(
    delivery: Delivery, answer: Answer, *, started_at: datetime, headers: Mapping[str, str] = NO_HEADERS
) -> None:
    """Write the try down, settle or reschedule the delivery, and judge the endpoint's health.

    Nothing is written when the lease ended and another worker has it.
    """
    row = _settle(delivery, answer, started_at, headers)
    if row is None:
        return
    record = Record(*row)
    if delivery.is_probe:
        if answer.is_success:
            revive_endpoint(delivery.endpoint)
        else:
            note_probe_failure(delivery.endpoint, answer)
    elif not answer.is_success:
        note_failure(delivery, answer, record)
    elif record.is_ailing:
        note_success(delivery.endpoint_id)


def _settle(
    delivery: Delivery, answer: Answer, started_at: datetime, headers: Mapping[str, str]
) -> tuple[Any, ...] | None:
    state, seconds = _decide(delivery, answer)
    reason = "" if answer.is_success else answer.error or f"answered {answer.status}"
    values = {
        "id": delivery.pk,
        "epoch": delivery.epoch,
        "state": str(state),
        "wait": seconds,
        "status": answer.status,
        "reason": _clean(reason)[:300],
        "started_at": started_at,
        "duration_ms": answer.duration_ms,
        "headers": json.dumps(dict(headers)),
        "answer": _clean(answer.body.decode("utf-8", "replace")),
        "error": _clean(answer.error)[:300],
    }
    return sql.fetch_one(_SETTLE, values)


def _clean(text: str) -> str:
    """Without card data, and without NUL, which PostgreSQL keeps in no text and an endpoint may well answer."""
    return redact(text.replace("\0", ""))


def _decide(delivery: Delivery, answer: Answer) -> tuple[DeliveryState, float | None]:
    """What becomes of the delivery, and the seconds until its next try."""
    if answer.is_success:
        return DeliveryState.DELIVERED, None
    if answer.status == 410 or delivery.is_probe or delivery.attempts > len(RETRY_SECONDS):
        return DeliveryState.FAILED, None
    return DeliveryState.PENDING, choose_wait(delivery.attempts, retry_after=answer.retry_after)


def choose_wait(failures: int, *, retry_after: int | None = None) -> float:
    """Seconds until the next try, with 20 % of jitter; not before the endpoint asked for, up to a day."""
    scheduled = RETRY_SECONDS[failures - 1] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
    return max(scheduled, min(retry_after or 0, MAX_RETRY_AFTER_SECONDS))
