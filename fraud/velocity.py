"""How often a card, e-mail, address, device or customer was used: exact, with Redis and without.

An order is recorded first and counted then, itself included, so that of many at once exactly the first few
pass.

With Redis, the row is committed first (PostgreSQL is the truth), then one Lua call records and counts by
Redis' order. Without it, PostgreSQL does both under one lock per key, and moves the epoch on: every epoch is
a namespace of its own in Redis that is filled from the rows, so Redis never answers without what was counted
while it was away. Recording a row takes the key's lock shared, counting and filling take it exclusively:
whoever counts sees every row that was there before. An order that loses Redis between its row and its count
is counted after all others: too many never pass. A restarted Redis has forgotten our script, whatever
snapshot it came back with; that begins an epoch too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from fraud.facts import velocity_key
from payments.encryption import keyed_hash
from payments.money import Money

logger = logging.getLogger(__name__)

REDIS_TIMEOUT_SECONDS = 0.05
DOWN_SECONDS = 5.0  # Redis is not asked again for so long
MICROSECONDS = 1_000_000
MAX_WINDOW_SECONDS = 24 * 60 * 60
NAMESPACE_SECONDS = 2 * MAX_WINDOW_SECONDS
SCRIPT = (Path(__file__).parent / "velocity.lua").read_text()
SCRIPT_SHA = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()

_loading = threading.Lock()
_down_until: dict[str, float] = {}

# The statements of one string are one transaction in one trip; after the lock all earlier rows are seen.
# The commit need not wait for the disk: no order goes on before the saga's commit, which flushes this too.
_HURRY = "SET LOCAL synchronous_commit = off;"
_LOCK_SHARED = "SELECT pg_advisory_xact_lock_shared(k) FROM unnest(%(locks)s::bigint[]) k;"
_LOCK = "SELECT pg_advisory_xact_lock(k) FROM unnest(%(locks)s::bigint[]) k;"
_KEYS = "unnest(%(dimensions)s::text[], %(hashes)s::text[]) AS key (dimension, key_hash)"
_INSERT = f"""
INSERT INTO fraud_velocityevent (dimension, key_hash, order_id, kind, amount, currency, at)
SELECT dimension, key_hash, %(order)s, 'attempt', %(amount)s, %(currency)s, clock_timestamp()
FROM {_KEYS}
ON CONFLICT DO NOTHING;
"""  # noqa: S608 - constants only
_EPOCH = "SELECT last_value FROM fraud_velocity_epoch"
_NEXT_EPOCH = "SELECT nextval('fraud_velocity_epoch');"
# An order that is counted again keeps its rank: what came after it does not count, unless it must go last.
_COUNT = f"""
SELECT mine.dimension, span.seconds, (
    SELECT count(*) FROM fraud_velocityevent other
    WHERE other.dimension = mine.dimension AND other.key_hash = mine.key_hash AND other.kind = 'attempt'
      AND other.at > mine.at - span.seconds * interval '1 second'
      AND ((other.at, other.id) <= (mine.at, mine.id) OR %(last)s)
)
FROM fraud_velocityevent mine
JOIN {_KEYS} USING (dimension, key_hash)
CROSS JOIN unnest(%(windows)s::int[]) AS span (seconds)
WHERE mine.order_id = %(order)s AND mine.kind = 'attempt'
"""  # noqa: S608 - constants only
_HISTORY = f"""
SELECT event.dimension, event.key_hash, event.order_id, (extract(epoch FROM event.at) * 1000000)::bigint
FROM fraud_velocityevent event
JOIN {_KEYS} USING (dimension, key_hash)
WHERE event.kind = 'attempt' AND event.at < to_timestamp(0) + %(began)s * interval '1 microsecond'
  AND event.at > clock_timestamp() - %(keep)s * interval '1 second'
"""  # noqa: S608 - constants only


@dataclass(frozen=True, slots=True)
class Key:
    """One thing that orders are counted by: a dimension and the keyed hash of its value."""

    dimension: str
    hash: str

    @classmethod
    def of(cls, dimension: str, value: str) -> Key:
        return cls(dimension, keyed_hash(value, purpose=f"velocity:{dimension}"))

    @property
    def lock(self) -> int:
        """The number of this key's advisory lock, a signed bigint."""
        digest = keyed_hash(f"{self.dimension}:{self.hash}", purpose="velocity:lock")
        return int(digest[:16], 16) - 2**63


@dataclass(frozen=True, slots=True)
class Counts:
    """Orders by `velocity_key(dimension, seconds)`, this one included, and who counted them."""

    by_window: Mapping[str, int]
    source: str  # redis | postgresql | "" when there was nothing to count by


def count_order(order_id: str, total: Money, values: Mapping[str, str], windows: Iterable[int]) -> Counts:
    """Record the order under each value that is not empty and count each window (seconds), itself included.

    Idempotent per order: a retry neither counts twice nor moves the order. Call it with no transaction open.
    """
    keys = [Key.of(dimension, value) for dimension, value in sorted(values.items()) if value]
    if not keys:
        return Counts({}, "")
    arguments = {
        "order": order_id,
        "amount": total.minor,
        "currency": total.currency,
        "windows": sorted(set(windows)),
        **_key_arguments(keys),
    }
    if not _is_redis_usable():
        return _count_with_postgresql(arguments, last=False)
    epoch = _execute(_HURRY + _LOCK_SHARED + _INSERT + _EPOCH, arguments)[0][0]
    try:
        return _count_with_redis(epoch, keys, arguments)
    except RedisError as error:
        _mark_down(error)
        return _count_with_postgresql(arguments, last=True)


def begin_epoch() -> int:
    """Make every process fill its counts from the rows again, as after rows were deleted by hand."""
    return int(_execute(_NEXT_EPOCH, {})[0][0])


# --- PostgreSQL ---------------------------------------------------------------------------------------------


def _count_with_postgresql(arguments: dict[str, Any], *, last: bool) -> Counts:
    statements = _HURRY + _LOCK + _INSERT + _NEXT_EPOCH + _COUNT
    rows = _execute(statements, {**arguments, "last": last})
    return Counts({velocity_key(dimension, seconds): seen for dimension, seconds, seen in rows}, "postgresql")


def _execute(statements: str, arguments: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Run several statements in one round trip; the rows of the last."""
    with connection.cursor() as cursor:
        cursor.execute(statements, arguments)
        while cursor.nextset():
            pass
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _key_arguments(keys: Sequence[Key]) -> dict[str, Any]:
    return {
        "dimensions": [key.dimension for key in keys],
        "hashes": [key.hash for key in keys],
        "locks": sorted(key.lock for key in keys),  # one order for all, so that nobody waits in a circle
    }


# --- Redis --------------------------------------------------------------------------------------------------


def _is_redis_usable() -> bool:
    """Whether Redis answers now, with our script in it; a process that just lost it does not ask."""
    url = settings.REDIS_URL
    if not url or _down_until.get(url, 0.0) > time.monotonic():
        return False
    try:
        client = _client(url)
        if not client.script_exists(SCRIPT_SHA)[0]:
            _load_script(client)
    except RedisError as error:
        _mark_down(error)
        return False
    return True


def _load_script(client: Redis) -> None:
    """Give a new or restarted Redis the script; what it counted before is not trusted."""
    with _loading:
        if not client.script_exists(SCRIPT_SHA)[0]:
            begin_epoch()
            client.script_load(SCRIPT)


def _count_with_redis(epoch: int, keys: Sequence[Key], arguments: dict[str, Any]) -> Counts:
    client = _client(settings.REDIS_URL)
    tag = f"velocity:{{{epoch}}}"
    names = [f"{tag}:{key.dimension}:{key.hash}" for key in keys]
    windows: list[int] = arguments["windows"]
    spans = [MAX_WINDOW_SECONDS * MICROSECONDS, *(seconds * MICROSECONDS for seconds in windows)]
    for _ in range(4):
        status, *numbers = client.evalsha(SCRIPT_SHA, 1 + len(names), tag, *names, arguments["order"], *spans)
        if status == b"counts":
            names_of_counts = [velocity_key(key.dimension, seconds) for key in keys for seconds in windows]
            return Counts(dict(zip(names_of_counts, numbers, strict=True)), "redis")
        if status == b"unborn":
            client.set(tag, _database_clock(), nx=True, ex=NAMESPACE_SECONDS)
        else:
            began, *cold = map(int, numbers)
            _fill(client, tag, began, [keys[index] for index in cold])
    raise RedisError("Redis keeps losing the velocity keys")


def _fill(client: Redis, tag: str, began: int, keys: Sequence[Key]) -> None:
    """Copy the rows from before the namespace began into it; those after come by themselves."""
    arguments = {**_key_arguments(keys), "began": began, "keep": MAX_WINDOW_SECONDS}
    rows = _execute(_LOCK + _HISTORY, arguments)
    pipeline = client.pipeline(transaction=False)
    for dimension, digest, order_id, at in rows:
        pipeline.zadd(f"{tag}:{dimension}:{digest}", {order_id: at}, nx=True)
    for key in keys:
        pipeline.zadd(
            f"{tag}:{key.dimension}:{key.hash}", {"#full": "+inf"}
        )  # last: only now it may be counted
    pipeline.execute()


def _database_clock() -> int:
    return int(_execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint", {})[0][0])


def _mark_down(error: Exception) -> None:
    _down_until[settings.REDIS_URL] = time.monotonic() + DOWN_SECONDS
    logger.warning("velocity is counted by PostgreSQL: Redis does not answer (%s)", type(error).__name__)


@cache
def _client(url: str) -> Redis:
    return Redis.from_url(
        url,
        socket_timeout=REDIS_TIMEOUT_SECONDS,
        socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
