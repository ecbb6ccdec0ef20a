"""Runs back-tests in a worker: claimed as rows, with progress, ended by a click, taken over when a worker dies."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from fraud.backtest.history import Period, load_history
from fraud.backtest.replay import FrameRule, frame_rules, needed_columns, replay_frame
from fraud.backtest.report import compare_sets, describe_rules, describe_set, describe_sweep_value
from fraud.decision import Mode
from fraud.models import BackTest, BackTestState, Rule, RuleSet
from fraud.models.backtest import ENDED
from fraud.plans import RuleError
from payments.errors import ConflictError, InvalidRequestError

SILENT_AFTER = timedelta(minutes=10)  # a worker that gave no sign for so long is dead
MAX_SWEEP = 50

logger = logging.getLogger(__name__)


class CanceledError(Exception):
    """Somebody ended the back-test, or another worker took it over."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """The values to try for one parameter of one rule."""

    rule: str
    parameter: str
    values: Sequence[Any]


def start(
    ruleset: RuleSet,
    *,
    actor: str,
    since: datetime,
    until: datetime,
    beside: RuleSet | None = None,
    sweep: Sweep | None = None,
) -> BackTest:
    """Ask for a back-test; a worker takes it within seconds. Raises `InvalidRequestError`."""
    if since >= until:
        raise InvalidRequestError("The period ends before it begins; no back-test was started.")
    rows = list(ruleset.rules.all())
    try:
        frame_rules(rows)
        if sweep:
            _check_sweep(rows, sweep)
    except (RuleError, LookupError) as error:
        raise InvalidRequestError(f"{ruleset} cannot be tested: {error} No back-test was started.") from None
    asked = {"rule": sweep.rule, "parameter": sweep.parameter, "values": list(sweep.values)} if sweep else {}
    return BackTest.objects.create(
        ruleset=ruleset, beside=beside, since=since, until=until, sweep=asked, created_by=actor
    )


def cancel(backtest_id: str) -> None:
    """End a back-test; its worker notices at its next step. Raises `ConflictError` when it has ended."""
    changed = BackTest.objects.unfinished().filter(pk=backtest_id)
    if not changed.update(state=BackTestState.CANCELED, ended_at=timezone.now(), step=""):
        raise ConflictError("This back-test has ended already; nothing was changed.")


def run_waiting() -> int:
    """Run what waits, and what a dead worker left, one after the other; how many."""
    count = 0
    while (backtest := _claim()) is not None:
        _run(backtest)
        count += 1
    return count


def _claim() -> BackTest | None:
    now = timezone.now()
    waits = Q(state=BackTestState.WAITING)
    is_left = Q(state=BackTestState.RUNNING, beat_at__lt=now - SILENT_AFTER)
    with transaction.atomic():
        found = (
            BackTest.objects.filter(waits | is_left)
            .order_by("id")
            .select_for_update(skip_locked=True)
            .first()
        )
        if found is None:
            return None
        found.state, found.started_at, found.beat_at, found.progress = BackTestState.RUNNING, now, now, 0
        found.save(update_fields=["state", "started_at", "beat_at", "progress"])
    return found


def _run(backtest: BackTest) -> None:
    try:
        result = _find(backtest)
    except CanceledError:
        return
    except Exception as error:
        logger.exception("back-test %s failed", backtest.pk)
        _end(backtest, BackTestState.FAILED, error=f"{type(error).__name__}: {error}"[:500])
    else:
        _end(backtest, BackTestState.DONE, result=result, progress=100)


def _end(backtest: BackTest, state: BackTestState, **fields: Any) -> None:
    mine = _still_mine(backtest)
    mine.update(state=state, ended_at=timezone.now(), step="", **fields)


def _tell(backtest: BackTest, progress: int, step: str) -> None:
    """A sign of life, and the moment at which a click on Cancel takes effect. Raises `CanceledError`."""
    if not _still_mine(backtest).update(progress=progress, step=step, beat_at=timezone.now()):
        raise CanceledError


def _still_mine(backtest: BackTest) -> Any:
    claim = {"pk": backtest.pk, "state": BackTestState.RUNNING, "started_at": backtest.started_at}
    return BackTest.objects.filter(**claim).exclude(state__in=ENDED)


def _find(backtest: BackTest) -> dict[str, Any]:
    rows = list(backtest.ruleset.rules.all())
    rules = frame_rules(rows)
    others = frame_rules(list(backtest.beside.rules.all())) if backtest.beside else []
    _tell(backtest, 5, "Reading the history")
    columns = {**needed_columns(rules), **needed_columns(others)}
    history = load_history(Period(backtest.since, backtest.until), columns.values())
    _tell(backtest, 50, "Deciding")
    judged = replay_frame(rules, history)
    result = {
        "orders": history.height,
        "set": describe_set(judged),
        "rules": describe_rules(rules, judged),
        "as_decided": compare_sets(judged, history.rename({"decided": "decision"})),
    }
    if others:
        _tell(backtest, 65, f"Comparing with {backtest.beside}")
        other = replay_frame(others, history)
        result |= {"beside": describe_set(other), "changes": compare_sets(judged, other)}
    if backtest.sweep:
        result["sweep"] = list(_sweep(backtest, rows, history))
    return result


def _sweep(backtest: BackTest, rows: Sequence[Rule], history: pl.DataFrame) -> Iterable[dict[str, Any]]:
    """The whole set, decided again with each value of the parameter."""
    sweep = Sweep(**backtest.sweep)
    for number, value in enumerate(sweep.values):
        _tell(backtest, 70 + 30 * number // len(sweep.values), f"Trying {sweep.parameter} = {value}")
        rules = frame_rules([_with_value(row, sweep, value) for row in rows])
        judged = replay_frame(rules, history)
        yield describe_sweep_value(value, _hit_of(rules, sweep.rule), judged)


def _hit_of(rules: Sequence[FrameRule], key: str) -> pl.Expr:
    [column] = [rule.hit for rule in rules if rule.row.key == key]
    return pl.col(column).fill_null(False)


def _with_value(row: Rule, sweep: Sweep, value: Any) -> Rule:
    if row.key != sweep.rule:
        return row
    fields = row.to_json()
    return Rule(pk=row.pk, **{**fields, "parameters": {**row.parameters, sweep.parameter: value}})


def _check_sweep(rows: Sequence[Rule], sweep: Sweep) -> None:
    """Raises `InvalidRequestError`, or `RuleError` for a value that the rule cannot take."""
    rule = next((row for row in rows if row.key == sweep.rule and row.mode != Mode.OFF), None)
    if rule is None or sweep.parameter not in rule.parameters:
        raise InvalidRequestError(
            f"No rule “{sweep.rule}” that runs has a parameter “{sweep.parameter}”; no back-test was started."
        )
    if not 1 <= len(sweep.values) <= MAX_SWEEP:
        raise InvalidRequestError(f"A sweep tries 1 to {MAX_SWEEP} values; no back-test was started.")
    frame_rules([_with_value(rule, sweep, value) for value in sweep.values])
