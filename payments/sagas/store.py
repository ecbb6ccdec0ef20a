"""The engine's memory: every statement that reads or writes saga rows, each fenced by the run's epoch."""

from __future__ import annotations

import json
import os
import socket
import threading
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connection

from payments import sql
from payments.errors import StaleLeaseError
from payments.redaction import redact_data
from payments.sagas.recipe import EffectRow

MAX_CLAIMS = 20  # claims of one step without progress before a run is quarantined


@dataclass(slots=True)
class RunRow:
    """A run as its lease holder knows it."""

    id: str
    kind: str
    version: int
    subject: str
    order_id: str | None
    state: str
    step: str
    data: dict[str, Any]
    epoch: int
    attempts: int = 0
    waiting_for: str = ""
    deadline_at: datetime | None = None
    is_overdue: bool = False
    last_error: dict[str, Any] | None = None


@dataclass(slots=True)
class Page:
    """What one commit writes: the run's new place, effects begun and settled, and the diary."""

    begun: list[EffectRow] = field(default_factory=list)
    settled: list[EffectRow] = field(default_factory=list)
    diary: list[dict[str, Any]] = field(default_factory=list)

    def note(self, kind: str, step: str = "", **detail: Any) -> None:
        self.diary.append({"kind": kind, "step": step, "detail": detail})


def lease_owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}"[:80]


_RUN_COLUMNS = """id, kind, definition_version, subject, order_id, state, step, data, epoch, attempts, waiting_for,
    deadline_at, coalesce(deadline_at <= now(), false), last_error"""

_INSERT = """
INSERT INTO payments_sagarun (id, kind, definition_version, subject, order_id, state, step, data, epoch, attempts,
    waiting_for, lease_owner, lease_expires_at, wake_at, created_at, updated_at)
VALUES (%s, %s, %s, %s, %s, 'RUNNING', %s, %s::jsonb, 1, 0, '', %s,
    now() + make_interval(secs => %s::float), now() + make_interval(secs => %s::float), now(), now())
"""

_CLAIM = f"""
UPDATE payments_sagarun SET epoch = epoch + 1, attempts = attempts + 1, lease_owner = %s,
    lease_expires_at = now() + make_interval(secs => %s::float), wake_at = now() + make_interval(secs => %s::float),
    updated_at = now()
WHERE id = %s AND state IN ('PENDING', 'RUNNING', 'WAITING', 'COMPENSATING')
    AND (lease_expires_at IS NULL OR lease_expires_at <= now())
RETURNING {_RUN_COLUMNS}
"""  # noqa: S608 - constants only

_DUE = """
SELECT id FROM payments_sagarun
WHERE state IN ('PENDING', 'RUNNING', 'WAITING', 'COMPENSATING') AND wake_at <= now()
    AND (lease_expires_at IS NULL OR lease_expires_at <= now())
ORDER BY wake_at LIMIT %s FOR UPDATE SKIP LOCKED
"""

# One round trip: the fence first, and nothing else happens when the epoch is not ours any more. While the lease is
# kept, no indexed column changes: the row's new version needs no index entry, and the lease alone says when it is due.
_TURN = """
WITH fenced AS (
    UPDATE payments_sagarun SET state = %(state)s::text, step = %(step)s::text, data = %(data)s::jsonb,
        attempts = %(attempts)s::smallint, waiting_for = %(waiting_for)s::text,
        deadline_at = %(deadline_at)s::timestamptz, last_error = %(last_error)s::jsonb,
        lease_owner = CASE WHEN %(keep)s::boolean THEN lease_owner ELSE '' END,
        lease_expires_at = CASE WHEN %(keep)s::boolean THEN now() + make_interval(secs => %(lease)s::float) END,
        wake_at = CASE WHEN %(keep)s::boolean THEN wake_at
            WHEN %(delay)s::float IS NOT NULL THEN now() + make_interval(secs => %(delay)s::float)
            ELSE %(deadline_at)s::timestamptz END,
        updated_at = now()
    WHERE id = %(id)s AND epoch = %(epoch)s RETURNING id
), settled AS (
    UPDATE payments_sagaeffect AS effect
    SET outcome = given.outcome, reference = given.reference, outcome_at = clock_timestamp()
    FROM fenced, jsonb_to_recordset(%(settled)s::jsonb) AS given(id bigint, outcome text, reference text)
    WHERE effect.id = given.id
), begun AS (
    INSERT INTO payments_sagaeffect (run_id, step, direction, attempt, gateway_key, reference, outcome, intent_at,
        outcome_at)
    SELECT fenced.id, given.step, given.direction, given.attempt, given.gateway_key, given.reference, given.outcome,
        clock_timestamp(), CASE WHEN given.outcome IS NOT NULL THEN clock_timestamp() END
    FROM fenced, jsonb_to_recordset(%(begun)s::jsonb) AS given(step text, direction text, attempt smallint,
        gateway_key text, reference text, outcome text)
    RETURNING id, step, direction, attempt
), written AS (
    INSERT INTO payments_sagaevent (run_id, at, kind, step, detail)
    SELECT fenced.id, clock_timestamp(), given.kind, given.step, given.detail
    FROM fenced, jsonb_to_recordset(%(diary)s::jsonb) AS given(kind text, step text, detail jsonb)
)
SELECT (SELECT count(*) FROM fenced),
    (SELECT coalesce(jsonb_agg(jsonb_build_array(id, step, direction, attempt)), '[]') FROM begun)
"""


def insert_run(run: RunRow) -> None:
    """A new run, leased by us at epoch 1, inside the caller's transaction."""
    lease = settings.SAGA_LEASE_SECONDS
    place = [run.id, run.kind, run.version, run.subject, run.order_id, run.step, _json(run.data)]
    sql.run(_INSERT, [*place, lease_owner(), lease, lease])


def claim_run(run_id: str) -> RunRow | None:
    """Take the lease with the next epoch; None when somebody else holds it or the run is not ours to drive."""
    lease = settings.SAGA_LEASE_SECONDS
    row = sql.fetch_one(_CLAIM, [lease_owner(), lease, lease, run_id])
    return RunRow(*_decoded(row)) if row else None


def find_due(limit: int) -> list[str]:
    """Ids of runs that want driving now, oldest first; another sweeper skips what this one looks at."""
    with connection.cursor() as cursor:
        cursor.execute(_DUE, [limit])
        return [row[0] for row in cursor.fetchall()]


def load_effects(run_id: str) -> list[EffectRow]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT step, direction, attempt, gateway_key, reference, outcome, id FROM payments_sagaeffect "
            "WHERE run_id = %s ORDER BY id",
            [run_id],
        )
        return [EffectRow(*row) for row in cursor.fetchall()]


def insert_signal(run_id: str, name: str, *, dedupe_id: str, payload: dict[str, Any]) -> bool:
    """Keep a signal once, and make a run that waits for it due at once."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO payments_sagasignal (run_id, name, dedupe_id, payload, created_at) "
            "VALUES (%s, %s, %s, %s, clock_timestamp()) ON CONFLICT (run_id, name, dedupe_id) DO NOTHING",
            [run_id, name, dedupe_id, _json(payload)],
        )
        is_new = int(cursor.rowcount) == 1
        cursor.execute(
            "UPDATE payments_sagarun SET wake_at = now() WHERE id = %s AND state = 'WAITING' AND waiting_for = %s",
            [run_id, name],
        )
    return is_new


def wake_run(run_id: str) -> None:
    """Make a run that would come back later due at once."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE payments_sagarun SET wake_at = now() WHERE id = %s AND lease_expires_at IS NULL "
            "AND state IN ('RUNNING', 'WAITING', 'COMPENSATING')",
            [run_id],
        )


def reopen_run(
    run_id: str,
    *,
    state: str,
    diary: str,
    detail: dict[str, Any],
    epoch: int | None = None,
    delay: float | None = None,
) -> bool:
    """An operator takes a stuck run up again, with a fresh budget of tries; only as of `epoch`, if given.

    It is due after `delay` seconds, by default a lease's time: whoever reopens it drives it, and no sweeper
    comes between.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH reopened AS (UPDATE payments_sagarun SET state = %s, attempts = 0, "
            "wake_at = now() + make_interval(secs => %s::float), lease_expires_at = NULL, epoch = epoch + 1, "
            "updated_at = now() "
            "WHERE id = %s AND epoch = coalesce(%s, epoch) AND state IN ('FAILED_COMPENSATION', 'QUARANTINED') "
            "RETURNING id, step) "
            "INSERT INTO payments_sagaevent (run_id, at, kind, step, detail) "
            "SELECT id, clock_timestamp(), %s, step, %s FROM reopened",
            [
                state,
                settings.SAGA_LEASE_SECONDS if delay is None else delay,
                run_id,
                epoch,
                diary,
                _json(detail),
            ],
        )
        return int(cursor.rowcount) == 1


def claim_stuck(run_id: str, *, epoch: int) -> RunRow | None:
    """Lease a stuck run to an operator's tool, with the next epoch; None when it is not as it was at `epoch`."""
    lease = settings.SAGA_LEASE_SECONDS
    row = sql.fetch_one(_CLAIM_STUCK, [lease_owner(), lease, lease, run_id, epoch])
    return RunRow(*_decoded(row)) if row else None


_CLAIM_STUCK = f"""
UPDATE payments_sagarun SET epoch = epoch + 1, attempts = 0, lease_owner = %s,
    state = CASE WHEN data ? 'cause' THEN 'COMPENSATING' ELSE 'RUNNING' END,
    lease_expires_at = now() + make_interval(secs => %s::float), wake_at = now() + make_interval(secs => %s::float),
    updated_at = now()
WHERE id = %s AND epoch = %s AND state IN ('FAILED_COMPENSATION', 'QUARANTINED')
RETURNING {_RUN_COLUMNS}
"""  # noqa: S608 - constants only


def force_run(run_id: str, *, epoch: int, detail: dict[str, Any]) -> bool:
    """End a stuck run by hand; False when it is not as it was at `epoch`."""
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH forced AS (UPDATE payments_sagarun SET state = 'FORCED', epoch = epoch + 1, wake_at = NULL, "
            "deadline_at = NULL, waiting_for = '', lease_owner = '', lease_expires_at = NULL, updated_at = now() "
            "WHERE id = %s AND epoch = %s AND state IN ('FAILED_COMPENSATION', 'QUARANTINED') RETURNING id, step) "
            "INSERT INTO payments_sagaevent (run_id, at, kind, step, detail) "
            "SELECT id, clock_timestamp(), 'forced', step, %s FROM forced",
            [run_id, epoch, _json(detail)],
        )
        return int(cursor.rowcount) == 1


def extend_wait(run_id: str, *, epoch: int, until: datetime, detail: dict[str, Any]) -> bool:
    """Let a waiting run wait longer; False when it is driven now, or not as it was at `epoch`."""
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH extended AS (UPDATE payments_sagarun SET deadline_at = %s, wake_at = %s, epoch = epoch + 1, "
            "updated_at = now() WHERE id = %s AND epoch = %s AND state = 'WAITING' AND deadline_at < %s "
            "AND (lease_expires_at IS NULL OR lease_expires_at <= now()) RETURNING id, step) "
            "INSERT INTO payments_sagaevent (run_id, at, kind, step, detail) "
            "SELECT id, clock_timestamp(), 'operator_extend', step, %s FROM extended",
            [until, until, run_id, epoch, until, _json(detail)],
        )
        return int(cursor.rowcount) == 1


def write_diary(run_id: str, kind: str, detail: dict[str, Any]) -> None:
    """One line of a person's, beside whatever the run does: its place and its epoch stay as they are."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO payments_sagaevent (run_id, at, kind, step, detail) "
            "SELECT id, clock_timestamp(), %s, step, %s FROM payments_sagarun WHERE id = %s",
            [kind, _json(detail), run_id],
        )


def keep_note(effect: EffectRow, note: str) -> None:
    """Say on an effect why it was skipped, in the transaction that wrote it."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE payments_sagaeffect SET note = %s WHERE id = %s", [note, effect.id])


def take_signal(run_id: str, name: str) -> dict[str, Any] | None:
    """Consume the oldest unread signal of this name, if any."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE payments_sagasignal SET consumed_at = now() WHERE id = (SELECT id FROM payments_sagasignal "
            "WHERE run_id = %s AND name = %s AND consumed_at IS NULL ORDER BY id LIMIT 1) RETURNING payload",
            [run_id, name],
        )
        row = cursor.fetchone()
    return _from_json(row[0]) if row else None


def turn_page(run: RunRow, page: Page, *, keep_lease: bool, delay: float | None = None) -> None:
    """Write one page, fenced. Fills in the ids of the effects begun. Raises `StaleLeaseError` if the lease is lost.

    With the lease kept the run is due when that expires; without, after `delay` seconds or at its deadline.
    """
    answer = sql.fetch_one(_TURN, _parameters(run, page, keep_lease, delay))
    assert answer is not None
    fenced, begun = answer
    if not fenced:
        raise StaleLeaseError(f"Saga {run.id} was taken over by another worker; nothing was written.")
    if not page.begun:
        return
    numbers = {(step, direction, attempt): number for number, step, direction, attempt in _from_json(begun)}
    for effect in page.begun:
        effect.id = numbers[effect.step, effect.direction, effect.attempt]


def _parameters(run: RunRow, page: Page, keep_lease: bool, delay: float | None) -> dict[str, Any]:
    return {
        "id": run.id,
        "epoch": run.epoch,
        "state": run.state,
        "step": run.step,
        "data": _json(_masked(run.data, "cause")),
        "attempts": run.attempts,
        "waiting_for": run.waiting_for,
        "deadline_at": run.deadline_at,
        "last_error": None if run.last_error is None else _json(redact_data(run.last_error)),
        "keep": keep_lease,
        "lease": settings.SAGA_LEASE_SECONDS,
        "delay": delay,
        "settled": _json(
            [{"id": e.id, "outcome": e.outcome, "reference": e.reference} for e in page.settled]
        ),
        "begun": _json(
            [
                {
                    "step": e.step,
                    "direction": e.direction,
                    "attempt": e.attempt,
                    "gateway_key": e.gateway_key,
                    "reference": e.reference,
                    "outcome": e.outcome,
                }
                for e in page.begun
            ]
        ),
        "diary": _json([{**line, "detail": _masked(line["detail"], "error")} for line in page.diary]),
    }


def _masked(members: dict[str, Any], error: str) -> dict[str, Any]:
    """With the error in it, which repeats what somebody outside has said, masked; a run without one pays nothing."""
    return {**members, error: redact_data(members[error])} if error in members else members


def _json(value: Any) -> str:
    return json.dumps(value, default=str)


def _from_json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _decoded(row: tuple[Any, ...]) -> tuple[Any, ...]:
    # Django's cursor leaves jsonb as text.
    return tuple(_from_json(value) if index in (7, 13) else value for index, value in enumerate(row))
