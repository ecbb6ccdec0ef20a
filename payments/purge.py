"""Carries out the declaration of how long data is kept: in small steps, past what is locked, while the site runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from django.db import Error as DatabaseFailure
from django.db import connection, transaction
from django.utils import timezone

from payments.partitions import add_months, drop_partition, list_partitions
from payments.retention import Deed, Rule, list_rules

log = structlog.get_logger(__name__)

WINDOW = 2000  # rows that one statement, and so one transaction, looks at


@dataclass(slots=True)
class Tally:
    """What one rule did, or would do: rows, or partitions of a table that is dropped by the month."""

    rule: Rule
    count: int = 0
    is_finished: bool = True  # False: its share of the time was over, the next run goes on
    note: str = ""
    error: str = ""


def purge(*, table: str = "", dry_run: bool = False, seconds: float | None = None) -> Iterator[Tally]:
    """Apply every rule, or one table's, and tell of each; partitions for the coming months are made on the way.

    Each step is a transaction of its own: killed at any moment it has only done less, and any number may run at
    once. `seconds` is shared out evenly, so that no table starves. A rule that the database refuses is told of, and
    the others go on. Raises `LookupError` for a table without a rule.
    """
    rules = list_rules(table)
    end = None if seconds is None else time.monotonic() + seconds
    for index, rule in enumerate(rules):
        share = None
        if end is not None:
            left = end - time.monotonic()
            share = time.monotonic() + left / (len(rules) - index)
        tally = Tally(rule)
        try:
            _apply(rule, tally, dry_run=dry_run, end=share)
        except DatabaseFailure as error:
            log.error("purge_failed", rule=rule.name, exc_info=error)
            tally.error, tally.is_finished = str(error).strip(), False
        else:
            log.info("purged", rule=rule.name, count=tally.count, dry_run=dry_run, finished=tally.is_finished)
        yield tally


def _apply(rule: Rule, tally: Tally, *, dry_run: bool, end: float | None) -> None:
    before = timezone.now() - rule.after
    if rule.deed == Deed.DROP:
        _drop_partitions(rule, tally, before, dry_run=dry_run)
        return
    for count in _walk(rule, before, dry_run=dry_run):
        tally.count += count
        if end is not None and time.monotonic() > end:
            tally.is_finished = False
            return


# --- rows ---------------------------------------------------------------------------------------------------


def _walk(rule: Rule, before: datetime, *, dry_run: bool) -> Iterator[int]:
    """Along the primary key, one window after the other, whether or not anything in it may go."""
    last: Any = None
    while True:
        following, has_old = _find_window(rule, before, last)
        if following is None or not (has_old or not rule.follows_time):
            return
        yield _treat_window(rule, before, last, following, dry_run=dry_run)
        last = following


def _find_window(rule: Rule, before: datetime, last: Any) -> tuple[Any, bool]:
    """The key at which the next window ends, and whether a row in it is old enough."""
    onward = "" if last is None else f"WHERE {rule.key} > %(last)s"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT max({rule.key}), bool_or({rule.clock} < %(before)s) FROM "  # noqa: S608 - from the declaration
            f"(SELECT {rule.key}, {rule.clock} FROM {rule.table} {onward} ORDER BY {rule.key} LIMIT {WINDOW}) page",
            {"last": last, "before": before},
        )
        end, has_old = cursor.fetchone()
    return end, bool(has_old)


def _treat_window(rule: Rule, before: datetime, last: Any, following: Any, *, dry_run: bool) -> int:
    onward = "" if last is None else f"row.{rule.key} > %(last)s AND"
    old = (
        f"SELECT row.{rule.key} FROM {rule.table} row WHERE {onward} row.{rule.key} <= %(following)s "  # noqa: S608
        f"AND row.{rule.clock} < %(before)s AND ({rule.condition})"
    )
    parameters = {"last": last, "following": following, "before": before}
    with transaction.atomic(), connection.cursor() as cursor:
        if dry_run:
            cursor.execute(f"SELECT count(*) FROM ({old}) old", parameters)  # noqa: S608
            return int(cursor.fetchone()[0])
        if rule.is_guarded:
            cursor.execute("SELECT set_config('countinghouse.data_life', 'purge', true)")
        cursor.execute(f"WITH old AS ({old} FOR UPDATE OF row SKIP LOCKED) {_deed(rule)}", parameters)
        count = int(cursor.rowcount)
        if rule.is_guarded:
            cursor.execute("SELECT set_config('countinghouse.data_life', '', true)")
        return count


def _deed(rule: Rule) -> str:
    if rule.deed == Deed.REDACT:
        return f"UPDATE {rule.table} gone SET {rule.changes} FROM old WHERE gone.{rule.key} = old.{rule.key}"  # noqa: S608
    return f"DELETE FROM {rule.table} gone USING old WHERE gone.{rule.key} = old.{rule.key}"  # noqa: S608


# --- partitions ---------------------------------------------------------------------------------------------


def _drop_partitions(rule: Rule, tally: Tally, before: datetime, *, dry_run: bool) -> None:
    if not dry_run:
        made = add_months(rule.table, rule.clock)
        tally.note = f"made {', '.join(made)}" if made else ""
    for partition in list_partitions(rule.table):
        if partition.until is None or partition.until > before:
            continue
        if not _may_drop(rule, partition.until):
            tally.note = f"{partition.name} is still needed"
            continue
        if not dry_run:
            drop_partition(rule.table, partition.name)
        tally.count += 1


def _may_drop(rule: Rule, until: datetime) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {rule.condition}", {"until": until})
        return bool(cursor.fetchone()[0])
