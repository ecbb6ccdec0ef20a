"""Monthly partitions of tables that only grow: made ahead of time, dropped whole, and made out of a plain table."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import structlog
from django.db import OperationalError, connection, transaction
from django.utils import timezone

log = structlog.get_logger(__name__)

MONTHS_AHEAD = 3
# Creating and dropping needs a lock that writers wait behind: they wait this long at most, and we try again.
LOCK_TIMEOUT = "500ms"
LOCK_TRIES = 20


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition and its bounds; the first has no `since`, the default one has neither."""

    name: str
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_default(self) -> bool:
        return self.until is None


_LIST = """
SELECT child.relname, pg_get_expr(child.relpartbound, child.oid) FROM pg_inherits
JOIN pg_class child ON child.oid = inhrelid WHERE inhparent = %s::regclass ORDER BY child.relname
"""
_BOUNDS = re.compile(r"FROM \((?:MINVALUE|'([^']+)')\) TO \('([^']+)'\)")


def list_partitions(table: str) -> list[Partition]:
    """The partitions of a table, oldest first, the default one last."""
    with connection.cursor() as cursor:
        cursor.execute(_LIST, [table])
        found = [_read_bounds(name, bounds) for name, bounds in cursor.fetchall()]
    return sorted(found, key=lambda partition: partition.until or datetime.max.replace(tzinfo=UTC))


def _read_bounds(name: str, bounds: str) -> Partition:
    match = _BOUNDS.search(bounds)
    if match is None:
        return Partition(name)
    since, until = match.groups()
    return Partition(name, _moment(since) if since else None, _moment(until))


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


# --- ahead of time ------------------------------------------------------------------------------------------


def add_months(table: str, clock: str, *, now: datetime | None = None) -> list[str]:
    """Make the partitions of last month to three months ahead that are missing; returns their names.

    Rows that meanwhile went into the default partition, because nobody had made theirs, move over.
    """
    since = _add_months(_first_of_month(now or timezone.now()), -1)
    made = []
    for _ in range(MONTHS_AHEAD + 2):
        until = _add_months(since, 1)
        if not any(_overlaps(known, since, until) for known in list_partitions(table)):
            name = f"{table}_{since:%Y_%m}"
            _patiently(partial(_add_one, table, clock, name, since, until))
            made.append(name)
        since = until
    return made


def _overlaps(known: Partition, since: datetime, until: datetime) -> bool:
    return known.until is not None and known.until > since and (known.since is None or known.since < until)


def _add_one(table: str, clock: str, name: str, since: datetime, until: datetime) -> None:
    default = f"{table}_default"
    in_range = f"{clock} >= %s AND {clock} < %s"
    with connection.cursor() as cursor:
        # Attached rather than created as a partition: the parent stays open to writers.
        like = "INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMPRESSION"
        cursor.execute(f"CREATE TABLE {name} (LIKE {table} {like})")
        cursor.execute(f"LOCK TABLE {default} IN ACCESS EXCLUSIVE MODE")
        cursor.execute(f"ALTER TABLE {default} DISABLE TRIGGER USER")  # rows move, nothing is taken away
        moved = f"WITH moved AS (DELETE FROM {default} WHERE {in_range} RETURNING *)"  # noqa: S608 - names of ours
        cursor.execute(f"{moved} INSERT INTO {name} SELECT * FROM moved", [since, until])  # noqa: S608
        cursor.execute(f"ALTER TABLE {default} ENABLE TRIGGER USER")
        bounds = f"FROM ('{since.isoformat()}') TO ('{until.isoformat()}')"
        cursor.execute(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES {bounds}")


def _first_of_month(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _add_months(first: datetime, months: int) -> datetime:
    count = first.year * 12 + first.month - 1 + months
    return first.replace(year=count // 12, month=count % 12 + 1)


# --- dropping -----------------------------------------------------------------------------------------------


def drop_partition(table: str, name: str) -> None:
    """Take a whole partition away, without reading a row. Raises `OperationalError` while others hold it for long.

    Not detached CONCURRENTLY before: PostgreSQL has that only for tables without a default partition.
    """

    def drop() -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE {name}")

    _patiently(drop)
    log.info("partition_dropped", table=table, partition=name)


def _patiently(change: Callable[[], None]) -> None:
    """Run a change of the schema in its own transaction, with a short patience for locks and many tries."""
    for attempt in range(1, LOCK_TRIES + 1):
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
                change()
            return
        except OperationalError:
            if attempt == LOCK_TRIES:
                raise


# --- from a plain table -------------------------------------------------------------------------------------


def partition_by_month(table: str, clock: str) -> None:
    """Turn a plain table with the key `id` into one that is partitioned by `clock`; for a migration, not atomic.

    The rows stay where they are: the old table becomes the first partition, whose bound is checked and whose wider
    key is built while writers go on; only the change of names takes a lock, for milliseconds. An empty table leaves
    no first partition. Safe to repeat when it was interrupted.
    """
    if not _is_partitioned(table):
        until = _add_months(_first_of_month(timezone.now()), 2)  # no insert can pass it while we work
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = 0")
            _prepare_first(cursor, table, clock, until)
            cursor.execute("RESET statement_timeout")
        _patiently(partial(_swap, table, clock, until))
    add_months(table, clock)


def _is_partitioned(table: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT relkind = 'p' FROM pg_class WHERE oid = %s::regclass", [table])
        return bool(cursor.fetchone()[0])


def _prepare_first(cursor: Any, table: str, clock: str, until: datetime) -> None:
    bound = f"{clock} IS NOT NULL AND {clock} < '{until.isoformat()}'"
    cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {table}_bound")
    cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT {table}_bound CHECK ({bound}) NOT VALID")
    cursor.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {table}_bound")
    cursor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {table}_first_pkey")
    cursor.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {table}_first_pkey ON {table} (id, {clock})")


_INDEXES = """
SELECT relname, pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class ON oid = indexrelid
WHERE indrelid = %s::regclass AND NOT indisprimary AND relname <> %s
"""
_FOREIGN_KEYS = """
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'f'
"""
_TRIGGERS = (
    "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal"
)


def _swap(table: str, clock: str, until: datetime) -> None:
    first = f"{table}_first"
    with connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        indexes = _fetch(cursor, _INDEXES, table, f"{first}_pkey")
        foreign_keys = _fetch(cursor, _FOREIGN_KEYS, table)
        triggers = _fetch(cursor, _TRIGGERS, table)
        cursor.execute(
            f"SELECT coalesce(max(id), 0) + 1, count(*) = 0 FROM (SELECT id FROM {table} "  # noqa: S608
            "ORDER BY id DESC LIMIT 1) newest"
        )
        next_id, is_empty = cursor.fetchone()
        for name, _ in triggers:
            cursor.execute(f"DROP TRIGGER {name} ON {table}")
        cursor.execute(f"ALTER TABLE {table} ALTER COLUMN id DROP IDENTITY IF EXISTS")
        cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey")
        cursor.execute(f"ALTER TABLE {table} ADD PRIMARY KEY USING INDEX {first}_pkey")
        cursor.execute(f"ALTER TABLE {table} RENAME TO {first}")
        for name, _ in indexes:
            cursor.execute(f'ALTER INDEX "{name}" RENAME TO "{name[:56]}_first"')
        like = f"(LIKE {first} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
        cursor.execute(f"CREATE TABLE {table} {like} PARTITION BY RANGE ({clock})")
        cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_bound")
        cursor.execute(f"CREATE SEQUENCE {table}_id_seq OWNED BY {table}.id START {next_id}")
        cursor.execute(f"ALTER TABLE {table} ALTER COLUMN id SET DEFAULT nextval('{table}_id_seq')")
        cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT {table}_pkey PRIMARY KEY (id, {clock})")
        for _, definition in indexes:
            cursor.execute(definition)
        for name, definition in foreign_keys:
            cursor.execute(f'ALTER TABLE {table} ADD CONSTRAINT "{name}" {definition}')
        bounds = f"FROM (MINVALUE) TO ('{until.isoformat()}')"
        cursor.execute(f"ALTER TABLE {table} ATTACH PARTITION {first} FOR VALUES {bounds}")
        cursor.execute(f"ALTER TABLE {first} DROP CONSTRAINT {table}_bound")
        if is_empty:
            cursor.execute(f"ALTER TABLE {table} DETACH PARTITION {first}")
            cursor.execute(f"DROP TABLE {first}")
        cursor.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")
        for _, definition in triggers:
            cursor.execute(definition)


def _fetch(cursor: Any, query: str, *parameters: str) -> list[tuple[str, str]]:
    cursor.execute(query, list(parameters))
    return list(cursor.fetchall())
