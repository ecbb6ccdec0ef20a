"""The rows behind every velocity figure, and the regime: whether Redis counts at this time, or PostgreSQL does.

The sequence `fraud_velocity_epoch` holds the microsecond at which the present regime began: even while Redis counts,
odd while PostgreSQL does. Whoever records holds one advisory lock shared until its commit; whoever changes the regime
holds it alone. So all rows of earlier regimes are there before the first of a new one, and nobody counts in two ways
at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from django.db import connection

from fraud.facts import DIMENSIONS, Measure, VelocityKey
from payments import sql
from payments.encryption import keyed_hash
from payments.money import Money

KEPT_SECONDS = 24 * 60 * 60  # what Redis holds; older events are always read from the rows
MOST_EVENTS = 100_000  # of one key and kind that are read for a figure, the newest ones
SHORT_HASH = 12  # hex digits of a hash that Redis holds, to tell values of one key apart

_REGIME_LOCK = 0x76656C6F63697479
_REGIME = {"regime": _REGIME_LOCK}
_SHARED = "pg_advisory_xact_lock_shared(%(regime)s)"
_ALONE = "pg_advisory_xact_lock(%(regime)s)"
# The commit need not wait for the disk: no order goes on before the saga's commit, which flushes this too.
_HURRY = "set_config('synchronous_commit', 'off', true)"
_LAST = "pg_sequence_last_value('fraud_velocity_epoch'::regclass)"
_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
# Later than every row there is; even.
_NEXT = f"setval('fraud_velocity_epoch', greatest({_NOW} / 2 + 1, {_LAST} / 2 + 1) * 2)"
_NEXT_CLOSED = f"setval('fraud_velocity_epoch', greatest({_NOW} / 2 + 1, {_LAST} / 2 + 1) * 2 + 1)"
_KEYS = ", ".join(DIMENSIONS)
_KEY_VALUES = ", ".join(f"%({name})s" for name in DIMENSIONS)


def _moment(microseconds: str) -> str:
    return f"('epoch'::timestamptz + ({microseconds}) * interval '1 microsecond')"


def _microseconds(moment: str) -> str:
    return f"(extract(epoch FROM {moment}) * 1000000)::bigint"


@dataclass(frozen=True, slots=True)
class EventSet:
    """The events of one kind by one dimension: what one sorted set in Redis holds."""

    dimension: str
    kind: str = "attempt"


@dataclass(frozen=True, slots=True)
class Recorded:
    """An order's row in a regime of Redis: the epoch, the row's id and time (microseconds).

    `has_past` says of each set asked for whether it has events from before the epoch, which Redis may not have.
    """

    epoch: int
    id: int
    at: int
    is_begun: bool  # by this call: the epoch's mark is still to be set
    is_settled: bool  # longer ago than Redis remembers: an order that is tried again
    has_past: Sequence[bool]


# --- recording ----------------------------------------------------------------------------------------------


def record(
    arguments: Mapping[str, Any], sets: Sequence[EventSet], *, distrusted: int = 0, last: bool = False
) -> Recorded:
    """Commit the order's row in a regime of Redis and say what its epoch is; one trip when nothing has changed.

    An epoch that is `distrusted` is ended first. `last`: the order goes behind all others.
    """
    arguments = {**arguments, **_REGIME, "distrusted": distrusted}
    names = tuple(sets)
    row = sql.fetch_one(_record_sql(names, is_alone=False, last=last), arguments)
    if row is None or row[0] % 2 or row[0] == distrusted:
        row = sql.fetch_one(_record_sql(names, is_alone=True, last=last), arguments)
    assert row is not None, "a sequence has a row"
    epoch, row_id, at, is_begun, is_settled, is_blind, has_past = row
    return Recorded(epoch, row_id, at, is_begun, is_settled, [is_blind or past for past in has_past])


@lru_cache(maxsize=64)
def _record_sql(sets: tuple[EventSet, ...], *, is_alone: bool, last: bool) -> str:
    """One statement: lock, epoch, row. It may wait for the lock, and then cannot see what is from before the epoch.

    Below 4,096 characters, beyond which psycopg parses it anew each time.
    """
    is_over = f"{_LAST} %% 2 = 1 OR {_LAST} = %(distrusted)s"
    begun = f"CASE WHEN is_over THEN {_NEXT} ELSE {_LAST} END AS number, is_over AS is_begun"
    kept = f"{_LAST} AS number, false AS is_begun"
    conflict = "UPDATE SET at = excluded.at" if last else "NOTHING"
    past = ", ".join(map(_past_sql, sets))
    return f"""
WITH locked AS MATERIALIZED (SELECT {_HURRY}, {_ALONE if is_alone else _SHARED}),
regime AS MATERIALIZED (SELECT {is_over} AS is_over FROM locked),
number AS MATERIALIZED (SELECT {begun if is_alone else kept} FROM regime),
epoch AS MATERIALIZED (SELECT *, {_moment("number")} AS began, now() - interval '{KEPT_SECONDS} s' AS kept FROM number),
made AS (
    INSERT INTO fraud_velocityevent (order_id, kind, amount, currency, at, {_KEYS})
    SELECT %(order)s, 'attempt', %(amount)s, %(currency)s,
        greatest(clock_timestamp(), began + interval '1 microsecond'), {_KEY_VALUES}
    FROM epoch WHERE number %% 2 = 0 AND number <> %(distrusted)s
    ON CONFLICT (order_id, kind, card) DO {conflict}
    RETURNING id, at
)
SELECT epoch.number, coalesce(made.id, known.id), {_microseconds("coalesce(made.at, known.at)")},
    epoch.is_begun,
    coalesce(known.at <= kept, false) AND made.id IS NULL, began >= now(), ARRAY[{past}]
FROM epoch LEFT JOIN made ON true LEFT JOIN fraud_velocityevent known
    ON known.order_id = %(order)s AND known.kind = 'attempt' AND known.card || '' = %(card)s
"""  # noqa: S608 - constants only


def _past_sql(one: EventSet) -> str:
    return f"""EXISTS (SELECT FROM fraud_velocityevent e WHERE e.{one.dimension} = %({one.dimension})s
    AND e.{one.dimension} <> '' AND e.kind = '{one.kind}' AND e.at < began AND e.at > kept)"""


def add_event(arguments: Mapping[str, Any]) -> tuple[int, int, int, bool]:
    """Record a decline, approval or chargeback: the epoch, the row's id, its time, and whether it is new."""
    row = sql.fetch_one(_ADD, {**arguments, **_REGIME})
    assert row is not None, "a sequence has a row"
    return row[0], row[1], row[2], row[3]


_ADD = f"""
WITH regime AS MATERIALIZED (SELECT {_SHARED}),
epoch AS MATERIALIZED (SELECT {_LAST} AS number FROM regime),
made AS (
    INSERT INTO fraud_velocityevent (order_id, kind, amount, currency, at, {_KEYS})
    SELECT %(order)s, %(kind)s, %(amount)s, %(currency)s, coalesce(%(at)s, clock_timestamp()), {_KEY_VALUES}
    FROM epoch
    ON CONFLICT (order_id, kind, card) DO NOTHING
    RETURNING id, at
)
SELECT epoch.number, coalesce(made.id, known.id), {_microseconds("coalesce(made.at, known.at)")}, made.id IS NOT NULL
FROM epoch LEFT JOIN made ON true LEFT JOIN fraud_velocityevent known
    ON known.order_id = %(order)s AND known.kind = %(kind)s AND known.card || '' = %(card)s
"""  # noqa: S608 - constants only

_KEYS_OF_ATTEMPT = f"""
SELECT {_KEYS} FROM fraud_velocityevent WHERE order_id = %s AND kind = 'attempt'
ORDER BY at <= coalesce(%s, clock_timestamp()) DESC, at DESC LIMIT 1
"""  # noqa: S608 - constants only


def read_keys(order_id: str, at: datetime | None) -> dict[str, str] | None:
    """The hashes by which the order's last attempt before this moment was counted, or None."""
    row = sql.fetch_one(_KEYS_OF_ATTEMPT, [order_id, at])
    return dict(zip(DIMENSIONS, row, strict=True)) if row else None


def end_epoch(epoch: int = 0) -> None:
    """Let PostgreSQL count from here on, until somebody counts with Redis again in a new epoch.

    With an `epoch`: only if it is the present one.
    """
    sql.fetch_one(_END, {**_REGIME, "epoch": epoch})


_END = f"""
WITH locked AS MATERIALIZED (SELECT {_ALONE})
SELECT CASE WHEN %(epoch)s IN (0, {_LAST}) THEN {_NEXT_CLOSED} END FROM locked
"""  # noqa: S608 - constants only


def read_before(sets: Sequence[EventSet], row: Mapping[str, Any], epoch: int) -> list[tuple[Any, ...]]:
    """The events from before the epoch, each with its set's place; all of them are committed by now."""
    return sql.fetch_all(_before_sql(tuple(sets)), {**row, "epoch": epoch})


@lru_cache(maxsize=256)
def _before_sql(sets: tuple[EventSet, ...]) -> str:
    return "UNION ALL".join(
        f"""
SELECT {place}, id, {_microseconds("at")}, amount, currency, {_KEYS} FROM fraud_velocityevent
WHERE {one.dimension} = %({one.dimension})s AND {one.dimension} <> '' AND kind = '{one.kind}'
  AND at < {_moment("%(epoch)s")} AND at > now() - interval '{KEPT_SECONDS} s'
"""  # noqa: S608 - constants only
        for place, one in enumerate(sets)
    )


# --- counting -----------------------------------------------------------------------------------------------


def count(
    arguments: Mapping[str, Any], keys: Sequence[VelocityKey], *, last: bool = False
) -> dict[VelocityKey, int]:
    """Record and count in PostgreSQL, under one lock per key; the order's row keeps its rank, unless `last`."""
    arguments = {**arguments, **_REGIME, "locks": _lock_numbers(arguments)}
    row = _execute(_count_sql(tuple(keys), is_alone=False, last=last), arguments)
    if row is None:  # Redis counted until now
        row = _execute(_count_sql(tuple(keys), is_alone=True, last=last), arguments)
    assert row is not None, "the order was recorded"
    return {key: int(figure or 0) for key, figure in zip(_grouped(tuple(keys)), row[1:], strict=True)}


def count_settled(arguments: Mapping[str, Any], keys: Sequence[VelocityKey]) -> dict[VelocityKey, int]:
    """The figures of an order that was recorded long ago, as they were then."""
    row = _execute(_figures_sql(tuple(keys), "true"), {**arguments, **_REGIME})
    assert row is not None, "the order was recorded"
    return {key: int(figure or 0) for key, figure in zip(_grouped(tuple(keys)), row[1:], strict=True)}


@lru_cache(maxsize=64)
def _count_sql(keys: tuple[VelocityKey, ...], *, is_alone: bool, last: bool) -> str:
    """Statements of one transaction in one trip; what comes after the locks sees all that was there before them."""
    locks = "SELECT pg_advisory_xact_lock(k) FROM unnest(%(locks)s::bigint[]) k"
    close = f"SELECT CASE WHEN {_LAST} %% 2 = 0 THEN {_NEXT_CLOSED} END"
    conflict = "UPDATE SET at = excluded.at" if last else "NOTHING"
    insert = f"""
    INSERT INTO fraud_velocityevent (order_id, kind, amount, currency, at, {_KEYS})
    SELECT %(order)s, 'attempt', %(amount)s, %(currency)s, greatest(clock_timestamp(), {_moment(f"{_LAST} + 1")}),
        {_KEY_VALUES}
    WHERE {_LAST} %% 2 = 1 ON CONFLICT (order_id, kind, card) DO {conflict}"""
    return ";".join(
        [
            f"SELECT {_HURRY}, {_ALONE if is_alone else _SHARED}",
            close if is_alone else locks,
            insert,
            _figures_sql(keys, f"{_LAST} %% 2 = 1"),
        ]
    )


@lru_cache(maxsize=64)
def _figures_sql(keys: tuple[VelocityKey, ...], condition: str) -> str:
    """One row: the order's id, then each figure, in the order of `_grouped`; each set of events is read once."""
    groups = _group(keys)
    parts = "".join(
        f"""
CROSS JOIN LATERAL (
    SELECT {", ".join(_figure_sql(key) for key in asked)} FROM (
        SELECT * FROM fraud_velocityevent other
        WHERE other.{one.dimension} = %({one.dimension})s AND other.{one.dimension} <> '' AND other.kind = '{one.kind}'
          AND other.at > mine.at - interval '{asked[0].seconds} seconds'
          AND {"(other.at, other.id) <= (mine.at, mine.id)" if one.kind == "attempt" else "other.at <= mine.at"}
        ORDER BY other.at DESC LIMIT {MOST_EVENTS}
    ) seen
) part{place}"""  # noqa: S608 - constants only
        for place, (one, asked) in enumerate(groups.items())
    )
    columns = "".join(f", part{place}.*" for place in range(len(groups)))
    return f"""
SELECT mine.id{columns} FROM fraud_velocityevent mine {parts}
WHERE mine.order_id = %(order)s AND mine.kind = 'attempt' AND mine.card = %(card)s AND {condition}
"""  # noqa: S608 - constants only


def _figure_sql(key: VelocityKey) -> str:
    in_window = f"seen.at > mine.at - interval '{key.seconds} seconds'"
    if key.measure is Measure.SUM:
        return f"sum(seen.amount) FILTER (WHERE {in_window} AND seen.currency = mine.currency)"
    if key.measure is Measure.DISTINCT:
        return f"count(DISTINCT seen.{key.of}) FILTER (WHERE {in_window} AND seen.{key.of} <> '')"
    return f"count(*) FILTER (WHERE {in_window})"


def _group(keys: Iterable[VelocityKey]) -> dict[EventSet, list[VelocityKey]]:
    """The figures of each set of events, the widest window first."""
    groups: dict[EventSet, list[VelocityKey]] = defaultdict(list)
    for key in sorted(keys, key=lambda key: -key.seconds):
        groups[EventSet(key.dimension, key.kind)].append(key)
    return groups


def _grouped(keys: tuple[VelocityKey, ...]) -> list[VelocityKey]:
    return [key for asked in _group(keys).values() for key in asked]


# --- what Redis did not read --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tail:
    """The part of a figure before `until` (microseconds), which is long settled."""

    key: VelocityKey
    since: int
    until: int


def read_tails(row: Mapping[str, Any], tails: Sequence[Tail]) -> list[Any]:
    """A number for each count and sum, the short hashes for each distinct figure; one query."""
    arguments = dict(row)
    for place, tail in enumerate(tails):
        arguments |= {f"since{place}": tail.since, f"until{place}": tail.until}
    found = sql.fetch_one(_tails_sql(tuple(tail.key for tail in tails)), arguments)
    assert found is not None, "an aggregate has a row"
    return list(found)


@lru_cache(maxsize=64)
def _tails_sql(keys: tuple[VelocityKey, ...]) -> str:
    return "SELECT " + ", ".join(_tail_sql(place, key) for place, key in enumerate(keys))


def _tail_sql(place: int, key: VelocityKey) -> str:
    what, extra = "count(*)", ""
    if key.measure is Measure.SUM:
        what, extra = "coalesce(sum(amount), 0)", "AND currency = %(currency)s"
    elif key.measure is Measure.DISTINCT:
        what = f"coalesce(array_agg(DISTINCT left({key.of}, {SHORT_HASH})), '{{}}')"
        extra = f"AND {key.of} <> ''"
    return f"""(SELECT {what} FROM (
        SELECT * FROM fraud_velocityevent
        WHERE {key.dimension} = %({key.dimension})s AND {key.dimension} <> '' AND kind = '{key.kind}'
          AND at > {_moment(f"%(since{place})s")} AND at <= {_moment(f"%(until{place})s")}
        ORDER BY at DESC LIMIT {MOST_EVENTS}
    ) old WHERE true {extra})"""  # noqa: S608 - constants only


# --- both ---------------------------------------------------------------------------------------------------


def make_arguments(order_id: str, amount: Money, hashes: Mapping[str, str]) -> dict[str, Any]:
    """What a row says, by the names of its columns."""
    keys = {name: hashes.get(name, "") for name in DIMENSIONS}
    return {"order": order_id, "amount": amount.minor, "currency": amount.currency, **keys}


def _lock_numbers(arguments: Mapping[str, Any]) -> list[int]:
    """One lock per key, a signed bigint; in one order for all, so that nobody waits in a circle."""
    names = [f"{name}:{arguments[name]}" for name in DIMENSIONS if arguments[name]]
    return sorted(int(keyed_hash(name, purpose="velocity:lock")[:16], 16) - 2**63 for name in names)


def _execute(statements: str, arguments: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Run several statements in one round trip; the first row of the last."""
    with connection.cursor() as cursor:
        cursor.execute(statements, arguments)
        while cursor.nextset():
            pass
        row: tuple[Any, ...] | None = cursor.fetchone()
    return row
