"""Files of list entries: a dry run that is kept line by line, and then exactly that, or nothing at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import structlog
from django.db import connection, transaction
from django.utils import timezone

from fraud.lists.files import MAX_BYTES, MAX_LINES, BadLine, Defaults, GoodLine, read_lines
from fraud.models import ListImport, ListImportLine
from payments.errors import ConflictError, InvalidRequestError

logger = structlog.stdlib.get_logger(__name__)

State = ListImport.State
Outcome = ListImportLine.Outcome
TIMEOUT = "10min"
STALE = "The lists have changed since the dry run: nothing was imported. Look again, then decide."

# The lines come by COPY into a table of this transaction alone; one statement then says what each would do.
_UPLOAD = """
CREATE TEMPORARY TABLE fraud_upload (
    line integer, list text, kind text, value_hash text, value_masked text, reason text,
    expires_at timestamptz, "column" text, cause text
) ON COMMIT DROP
"""
_COPY = 'COPY fraud_upload (line, list, kind, value_hash, value_masked, reason, expires_at, "column", cause) FROM STDIN'
# An import never shortens what is there. The house's entries alone count: those of clients are their own.
_OUTCOME = """
CASE WHEN l.list = '' THEN 'bad'
     WHEN l.turn > 1 THEN 'repeated'
     WHEN entry.id IS NULL THEN 'added'
     WHEN entry.expires_at <= %(looked_at)s THEN 'renewed'
     WHEN entry.expires_at IS NULL THEN 'same'
     WHEN l.expires_at IS NULL OR l.expires_at > entry.expires_at THEN 'renewed'
     ELSE 'same' END
"""
_TURN = "row_number() OVER (PARTITION BY value_hash, list ORDER BY line) AS turn"
_ENTRY = """LEFT JOIN fraud_listentry entry
    ON entry.value_hash = l.value_hash AND entry.list = l.list AND entry.client_id IS NULL"""
_KEEP_LINES = f"""
INSERT INTO fraud_listimportline (file_id, line, outcome, list, kind, value_hash, value_masked, reason, expires_at,
    "column", cause, created_at)
SELECT %(file)s, l.line, {_OUTCOME}, l.list, l.kind, l.value_hash, l.value_masked, l.reason, l.expires_at,
    l."column", l.cause, %(looked_at)s
FROM (SELECT *, {_TURN} FROM fraud_upload) l {_ENTRY}
ORDER BY l.line
"""  # noqa: S608 - constants only
_LINES = f"(SELECT *, {_TURN} FROM fraud_listimportline WHERE file_id = %(file)s) l {_ENTRY}"  # noqa: S608
_COUNT_CHANGED = f"SELECT count(*) FROM {_LINES} WHERE l.outcome <> {_OUTCOME}"  # noqa: S608
_LOOK_AGAIN = f"""
UPDATE fraud_listimportline line SET outcome = now_is.outcome
FROM (SELECT l.id, {_OUTCOME} AS outcome FROM {_LINES}) now_is
WHERE line.id = now_is.id AND line.outcome <> now_is.outcome
"""  # noqa: S608
_COUNT = "SELECT outcome, count(*) FROM fraud_listimportline WHERE file_id = %(file)s GROUP BY outcome"
_LOCK_RENEWED = """
SELECT entry.id FROM fraud_listimportline l
JOIN fraud_listentry entry ON entry.value_hash = l.value_hash AND entry.list = l.list AND entry.client_id IS NULL
WHERE l.file_id = %(file)s AND l.outcome = 'renewed' ORDER BY entry.id FOR UPDATE OF entry
"""
# Entries are added in the order of their index, so that each of its pages is read once.
_NOTE = """
INSERT INTO fraud_listchange (entry_id, action, reason, expires_at, actor, file_id, at)
SELECT id, {action}, reason, expires_at, %(actor)s, %(file)s, %(now)s FROM done ORDER BY id
"""
_ADD = f"""
WITH done AS (
    INSERT INTO fraud_listentry (list, kind, value_hash, value_masked, reason, owner, expires_at, created_by,
        created_at, client_id, public_id, hits, last_hit_at)
    SELECT list, kind, value_hash, value_masked, reason, %(owner)s, expires_at, %(actor)s, %(now)s, NULL, NULL, 0, NULL
    FROM fraud_listimportline WHERE file_id = %(file)s AND outcome = 'added' ORDER BY value_hash
    ON CONFLICT DO NOTHING RETURNING id, reason, expires_at
) {_NOTE.format(action="'added'")}
"""  # noqa: S608
_RENEW = f"""
WITH done AS (
    UPDATE fraud_listentry entry SET reason = l.reason, expires_at = l.expires_at, created_by = %(actor)s,
        owner = %(owner)s
    FROM fraud_listimportline l
    WHERE l.file_id = %(file)s AND l.outcome = 'renewed' AND entry.value_hash = l.value_hash
      AND entry.list = l.list AND entry.client_id IS NULL
    RETURNING entry.id, entry.reason, entry.expires_at
) {_NOTE.format(action="'renewed'")}
"""  # noqa: S608


class _StaleError(Exception):
    """What the dry run said is not what would happen now."""


# --- the dry run --------------------------------------------------------------------------------------------


def stage_file(file: IO[bytes], *, name: str, defaults: Defaults, owner: str = "", actor: str) -> ListImport:
    """Read the whole file and keep what each line would do; no list is changed, and no value is kept in the clear.

    Raises `InvalidRequestError` when the file as a whole cannot be used; then nothing is kept.
    """
    size, digest = _measure(file)
    now = timezone.now()
    with transaction.atomic():
        made = ListImport.objects.create(
            name=name[-200:], size=size, sha256=digest, owner=owner, looked_at=now, uploaded_by=actor
        )
        with _patient_cursor() as cursor:
            cursor.execute(_UPLOAD)
            with cursor.copy(_COPY) as copy:
                for number, line in enumerate(read_lines(file, defaults, now=now), start=1):
                    if number > MAX_LINES:
                        raise InvalidRequestError(
                            f"The file has more than {MAX_LINES:,} lines; cut it into parts. Nothing was imported."
                        )
                    copy.write_row(_make_row(line))
            cursor.execute("ANALYZE fraud_upload")
            cursor.execute(_KEEP_LINES, {"file": made.pk, "looked_at": now})
            cursor.execute("ANALYZE fraud_listimportline")
            cursor.execute("DROP TABLE fraud_upload")
        _count_outcomes(made)
        if not made.lines:
            raise InvalidRequestError(
                "The file has no line but the names of its columns. Nothing was imported."
            )
    return made


def look_again(import_id: str) -> ListImport:
    """Say anew what each line would do, by the lists as they are now. Raises `ConflictError` once it was decided."""
    with transaction.atomic(), _patient_cursor() as cursor:
        made = _lock_ready(import_id)
        made.looked_at = timezone.now()
        cursor.execute(_LOOK_AGAIN, {"file": made.pk, "looked_at": made.looked_at})
        made.problem = ""
        made.save(update_fields=["looked_at", "problem"])
        _count_outcomes(made)
    return made


def _make_row(line: GoodLine | BadLine) -> tuple[Any, ...]:
    if isinstance(line, BadLine):
        return (line.line, "", "", "", "", "", None, line.column, line.cause[:200])
    return (
        line.line, line.list, line.kind, line.value_hash, line.value_masked, line.reason, line.expires_at, "", "",
    )  # fmt: skip


def _measure(file: IO[bytes]) -> tuple[int, str]:
    size = file.seek(0, os.SEEK_END)
    if size > MAX_BYTES:
        raise InvalidRequestError(tell_too_large())
    file.seek(0)
    return size, hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # wants a raw reader


def tell_too_large() -> str:
    return f"The file is larger than {MAX_BYTES // 1_048_576} MiB; cut it into parts. Nothing was imported."


def _count_outcomes(made: ListImport) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, {"file": made.pk})
        counts = {str(outcome): int(count) for outcome, count in cursor.fetchall()}
    for outcome in Outcome.values:
        setattr(made, outcome, counts.get(outcome, 0))
    made.lines = sum(counts.values())
    made.save(update_fields=[*Outcome.values, "lines"])


# --- the decision -------------------------------------------------------------------------------------------


def request_import(import_id: str, *, seen: str, actor: str) -> ListImport:
    """Have a worker import what the dry run showed. `seen` is `ListImport.seen` of the page that was decided on.

    Raises `ConflictError` when it was decided already, or another dry run than the one seen is the newest.
    """
    with transaction.atomic():
        made = _lock_ready(import_id)
        if made.seen != seen:
            raise ConflictError(
                "The dry run is newer than the page that you saw; nothing was imported. Look at it."
            )
        if not made.added + made.renewed:
            raise ConflictError("No line of this file would change a list; nothing was imported.")
        _decide(made, State.APPLYING, actor=actor)
    return made


def discard_import(import_id: str, *, actor: str) -> ListImport:
    """Never import it. Raises `ConflictError` when it was decided already."""
    with transaction.atomic():
        made = _lock_ready(import_id)
        made.finished_at = timezone.now()
        _decide(made, State.DISCARDED, actor=actor)
    return made


def apply_imports() -> int:
    """Carry out every import that was asked for, each in a transaction of its own; the number that was imported.

    A worker that dies leaves everything as it was, and its row lock goes with it: the next one begins again.
    """
    done = 0
    waiting = ListImport.objects.filter(state=State.APPLYING).order_by("id")
    for import_id in list(waiting.values_list("pk", flat=True)):
        try:
            done += _apply(import_id)
        except _StaleError:
            ListImport.objects.filter(pk=import_id, state=State.APPLYING).update(
                state=State.READY, problem=STALE
            )
    return done


def _apply(import_id: str) -> bool:
    """All lines or none. False when another worker is at it, or was. Raises `_StaleError`."""
    with transaction.atomic(), _patient_cursor() as cursor:
        free = ListImport.objects.select_for_update(skip_locked=True)
        made = free.filter(pk=import_id, state=State.APPLYING).first()
        if made is None:
            return False
        now = timezone.now()
        arguments = {
            "file": made.pk, "looked_at": made.looked_at, "owner": made.owner, "actor": made.decided_by, "now": now,
        }  # fmt: skip
        cursor.execute(_LOCK_RENEWED, arguments)
        cursor.execute(_COUNT_CHANGED, arguments)
        if cursor.fetchone() != (0,):
            raise _StaleError
        for statement, promised in ((_ADD, made.added), (_RENEW, made.renewed)):
            cursor.execute(statement, arguments)
            if cursor.rowcount != promised:
                raise _StaleError  # somebody was faster at this very moment
        made.state, made.finished_at, made.problem = State.DONE, now, ""
        made.save(update_fields=["state", "finished_at", "problem"])
    logger.info("list_import_done", list_import=import_id, added=made.added, renewed=made.renewed)
    return True


def _lock_ready(import_id: str) -> ListImport:
    made = ListImport.objects.select_for_update().filter(pk=import_id).first()
    if made is None:
        raise InvalidRequestError(f"There is no list import {import_id}.")
    if made.state != State.READY:
        told = made.get_state_display().lower()
        raise ConflictError(
            f"This file is {told} by {made.decided_by.removeprefix('user:')}; nothing was changed."
        )
    return made


def _decide(made: ListImport, state: str, *, actor: str) -> None:
    made.state, made.decided_by = state, actor
    made.save(update_fields=["state", "decided_by", "finished_at"])


@contextmanager
def _patient_cursor() -> Iterator[Any]:
    """A cursor whose statements may take minutes: a file is one statement.

    Its lines meet the lists in the order of the index, so a look-up each is cheaper than reading ten million entries.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = '{TIMEOUT}'")
        cursor.execute("SET LOCAL random_page_cost = 1.1")
        yield cursor


def list_outcome(made: ListImport, outcome: str, *, most: int) -> list[ListImportLine]:
    """The first lines with this outcome."""
    return list(made.entries.filter(outcome=outcome)[:most])


def iter_bad_lines(made: ListImport) -> Iterator[tuple[int, str, str]]:
    """Line, column and cause of every bad line, without keeping them."""
    bad = made.entries.filter(outcome=Outcome.BAD).order_by("line")
    yield from bad.values_list("line", "column", "cause").iterator(chunk_size=2000)
