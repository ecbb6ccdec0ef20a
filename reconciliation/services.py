"""The door of reconciliation: start and carry out runs, look again at what is open, and settle it by hand."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, timedelta
from functools import partial
from typing import Any

from celery import current_app
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from payments import oncall
from payments.errors import ConflictError, InvalidRequestError, ReportNotReadyError
from payments.gateways import get_gateway
from payments.models import GatewayAccount
from payments.redaction import redact
from reconciliation import matching, paging, reports, staging
from reconciliation.models import (
    ACTIVE_RUN_STATES,
    UNSETTLED_STATES,
    Discrepancy,
    DiscrepancyEvent,
    DiscrepancyState,
    ReasonCode,
    ReportFile,
    Run,
    RunState,
    RunTrigger,
)
from reconciliation.parsers import ReportFormatError

logger = logging.getLogger(__name__)

CATCH_UP_DAYS = 7


# --- runs ---------------------------------------------------------------------------------------------------
def start_run(
    account: GatewayAccount,
    *,
    day: date,
    trigger: RunTrigger,
    actor: str = "system",
    report: Iterable[bytes] | None = None,
    report_name: str = "",
) -> Run:
    """The run of that account and day, ready to be carried out; a settled one starts over and comes to the same result.

    Without a report the gateway is asked for its own. Raises `InvalidRequestError` for a wrong report or a day that
    has not begun, and `ConflictError` when a report comes while a run of that day is at work; then nothing was changed.
    """
    if day > timezone.now().astimezone(UTC).date():
        raise InvalidRequestError(f"{day} has not begun: there is nothing to reconcile.")
    file = None
    if report is not None:
        file = reports.keep_uploaded_report(account, report, day=day, name=report_name, actor=actor)
    run, is_new = Run.objects.get_or_create(
        account=account,
        day=day,
        defaults={"trigger": trigger, "requested_by": actor, "file": file, "created_at": timezone.now()},
    )
    if not is_new:
        _restart_run(run, file, trigger=trigger, actor=actor)
        run.refresh_from_db()
    return run


def request_run(
    account: GatewayAccount,
    *,
    day: date,
    trigger: RunTrigger,
    actor: str,
    report: Iterable[bytes] | None = None,
    report_name: str = "",
) -> Run:
    """`start_run`, and a worker is told; should the message be lost, `resume_runs` finds the row."""
    run = start_run(account, day=day, trigger=trigger, actor=actor, report=report, report_name=report_name)
    transaction.on_commit(
        partial(current_app.send_task, "reconciliation.tasks.execute_run", [run.pk]), robust=True
    )
    return run


def _restart_run(run: Run, file: ReportFile | None, *, trigger: RunTrigger, actor: str) -> None:
    """Make a settled run pending again. One that is at work, or died at it, stays as it is and goes on."""
    settled = Run.objects.filter(pk=run.pk).exclude(state__in=ACTIVE_RUN_STATES)
    is_restarted = settled.update(
        state=RunState.PENDING,
        file=file,
        trigger=trigger,
        requested_by=actor,
        attempt=F("attempt") + 1,
        rows_read=0,
        error="",
        started_at=None,
        finished_at=None,
    )
    if not is_restarted and file:
        raise ConflictError(f"The run of {run} is at work; the report was kept, but the run was not changed.")


def execute_run(run_id: str) -> Run:
    """Carry a run out from wherever it stands: fetch, read, match, page. A completed run stays as it is.

    Call it outside a transaction. Raises `ConflictError` when somebody else is at it, `ReportNotReadyError` when the
    gateway has no data yet, and other `PaymentError`s when the gateway or its report fails; the run says so too.
    """
    run = Run.objects.select_related("account", "file").get(pk=run_id)
    with _lock_run(run):
        run.refresh_from_db()
        if not run.is_active:
            return run
        try:
            for state, phase in _PHASES:
                _enter(run, state)
                phase(run)
            _finish(run, RunState.COMPLETED)
        except ReportFormatError as error:
            _finish(run, RunState.FAILED, error=f"{error}. Nothing was imported.")
            raise InvalidRequestError(f"{error}. Nothing was imported.") from error
        except Exception as error:
            _finish(run, RunState.FAILED, error=f"{type(error).__name__}: {error}")
            raise
    return run


def reconcile_due(*, today: date | None = None) -> list[Run]:
    """Run every day that is due and not reconciled yet, for each active account; safe at any cadence.

    Nothing is raised: what fails is logged, shown on its run, and tried again the next time.
    """
    yesterday = (today or timezone.now().astimezone(UTC).date()) - timedelta(days=1)
    runs = []
    for account in GatewayAccount.objects.filter(is_active=True):
        for day in _find_due_days(account, yesterday):
            run = start_run(account, day=day, trigger=RunTrigger.BEAT)
            if _try_run(run):
                runs.append(run)
    return runs


def resume_runs() -> int:
    """Carry out every run that was asked for or that died at work, and return how many were finished."""
    return sum(_try_run(run) for run in Run.objects.active().select_related("account").order_by("pk"))


def _find_due_days(account: GatewayAccount, yesterday: date) -> list[date]:
    """Up to yesterday, from the first day after the last completed one; a week at most."""
    completed = Run.objects.completed().filter(account=account)
    last = completed.order_by("-day").values_list("day", flat=True).first()
    first = (
        yesterday
        if last is None
        else max(last + timedelta(days=1), yesterday - timedelta(days=CATCH_UP_DAYS - 1))
    )
    return [first + timedelta(days=number) for number in range((yesterday - first).days + 1)]


def _try_run(run: Run) -> bool:
    try:
        execute_run(run.pk)
    except (ConflictError, ReportNotReadyError) as error:
        logger.info("The run of %s waits: %s", run, error)
        return False
    except Exception:
        logger.exception("The run of %s failed", run)
        return False
    run.refresh_from_db()
    return True


@contextmanager
def _lock_run(run: Run) -> Iterator[None]:
    """Held by the connection, so that it is free again when the process dies."""
    key = f"reconciliation run {run.account_id} {run.day}"
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [key])
        if not cursor.fetchone()[0]:
            raise ConflictError(f"The run of {run} is at work already; it was not started twice.")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [key])


def _enter(run: Run, state: RunState) -> None:
    run.state = state
    run.started_at = run.started_at or timezone.now()
    active = Run.objects.filter(pk=run.pk, state__in=ACTIVE_RUN_STATES)
    if not active.update(state=state, started_at=run.started_at):
        raise ConflictError(f"The run of {run} was ended by somebody else.")


def _finish(run: Run, state: RunState, *, error: str = "") -> None:
    run.state, run.error, run.finished_at = state, redact(error)[:2000], timezone.now()
    Run.objects.filter(pk=run.pk, state__in=ACTIVE_RUN_STATES).update(
        state=state, error=run.error, finished_at=run.finished_at
    )


def _fetch(run: Run) -> None:
    if run.file is None:
        chunks = get_gateway(run.account).settlement_report(day=run.day)
        run.file = reports.keep_fetched_report(run.account, chunks, day=run.day)
        Run.objects.filter(pk=run.pk).update(file=run.file)


def _stage(run: Run) -> None:
    if run.file:
        staging.import_report(run.file, on_progress=partial(_show_progress, run))
        _show_progress(run, run.file.rows)


def _show_progress(run: Run, rows: int) -> None:
    Run.objects.filter(pk=run.pk).update(rows_read=rows)


def _match(run: Run) -> None:
    outcome = matching.match_run(run)
    run.matched, run.total, run.expected = outcome.matched, outcome.total, outcome.expected
    run.settled, run.counts, run.totals = outcome.settled, outcome.kinds, outcome.totals
    run.save(update_fields=["matched", "total", "expected", "settled", "counts", "totals"])


def _handle(run: Run) -> None:
    page = paging.open_page(run)
    if page:
        oncall.send_page(page)


_PHASES: tuple[tuple[RunState, Callable[[Run], None]], ...] = (
    (RunState.FETCHING, _fetch),
    (RunState.STAGING, _stage),
    (RunState.MATCHING, _match),
    (RunState.HANDLING, _handle),
)


# --- what is open -------------------------------------------------------------------------------------------
def recheck_unsettled() -> int:
    """Close what a late webhook has explained meanwhile, without waiting for the night; returns how many."""
    accounts = GatewayAccount.objects.filter(discrepancies__state__in=UNSETTLED_STATES).distinct()
    return sum(matching.match_unsettled(account) for account in accounts)


def assign(discrepancy: Discrepancy, *, to: AbstractBaseUser | None, actor: str) -> Discrepancy:
    """Give a discrepancy to somebody, or back to everybody. Raises `ConflictError` when it is settled."""
    state = DiscrepancyState.ASSIGNED if to else DiscrepancyState.OPEN
    event = DiscrepancyEvent.Type.ASSIGNED if to else DiscrepancyEvent.Type.RELEASED
    text = f"To {to.get_username()}" if to else ""
    return _settle(discrepancy, event, actor=actor, text=text, state=state, assigned_to=to)


def resolve(discrepancy: Discrepancy, *, reason: ReasonCode, note: str, actor: str) -> Discrepancy:
    """Hold a discrepancy for settled. It stays so until one of the two sides changes.

    Raises `InvalidRequestError` for an unknown reason or "other" without a note, `ConflictError` when it is settled.
    """
    if reason not in ReasonCode.values:
        raise InvalidRequestError(f"{reason!r} is no reason; the discrepancy was not resolved.")
    note = redact(note.strip())
    if reason == ReasonCode.OTHER and not note:
        raise InvalidRequestError('The reason "other" needs a note; the discrepancy was not resolved.')
    return _settle(
        discrepancy,
        DiscrepancyEvent.Type.RESOLVED,
        actor=actor,
        text=f"{ReasonCode(reason).label}. {note}".strip(),
        state=DiscrepancyState.RESOLVED,
        reason=reason,
        note=note,
        resolved_by=actor,
        resolved_at=timezone.now(),
    )


def reopen(discrepancy: Discrepancy, *, note: str, actor: str) -> Discrepancy:
    """Take a resolution back. Raises `ConflictError` unless it was resolved by hand."""
    return _settle(
        discrepancy,
        DiscrepancyEvent.Type.REOPENED,
        actor=actor,
        text=redact(note.strip()),
        state=DiscrepancyState.OPEN,
        allowed=(DiscrepancyState.RESOLVED,),
        assigned_to=None,
        reason="",
        note="",
        resolved_by="",
        resolved_at=None,
    )


def _settle(
    discrepancy: Discrepancy,
    event: DiscrepancyEvent.Type,
    *,
    actor: str,
    text: str,
    state: DiscrepancyState,
    allowed: Iterable[DiscrepancyState] = UNSETTLED_STATES,
    **changes: Any,
) -> Discrepancy:
    """The guarded move and its diary entry, in one commit."""
    with transaction.atomic():
        movable = Discrepancy.objects.filter(pk=discrepancy.pk, state__in=allowed)
        if not movable.update(state=state, **changes):
            discrepancy.refresh_from_db()
            raise ConflictError(
                f"{discrepancy.pk} is {discrepancy.get_state_display().lower()}; it was not changed.",
                state=discrepancy.state,
            )
        DiscrepancyEvent.objects.create(
            discrepancy=discrepancy, type=event, actor=actor, text=text, at=timezone.now()
        )
    discrepancy.refresh_from_db()
    return discrepancy
