"""What operators may do to sagas, and the sweep that drives those that are due."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from payments import screening
from payments.errors import BusyError, ConflictError, InvalidRequestError, PaymentError
from payments.models import Operation, OperationState, Payment, SagaEffect, SagaRun, SagaState
from payments.models.payment import FINAL_OPERATION_STATES
from payments.models.saga import STUCK_STATES
from payments.money import Money
from payments.redaction import redact
from payments.sagas import engine, store
from payments.sagas.recipe import is_effect
from payments.sagas.registry import find_recipe

EXPIRY_MARGIN = timedelta(hours=12)  # between the end of a wait and the end of the hold on the card
TOOLS = ("retry", "compensate", "skip", "extend", "force", "note")


# --- what may be done now -----------------------------------------------------------------------------------


def explain_tool(run: SagaRun, tool: str) -> str:
    """Why one of `TOOLS` may not be used on the run now; empty when it may."""
    state = run.get_state_display()
    if tool == "note":
        return ""
    if run.lease_expires_at is not None and run.lease_expires_at > timezone.now():
        return "It is being driven at this moment."
    if tool == "extend":
        return "" if run.state == SagaState.WAITING and run.deadline_at else f"It is {state}, not waiting."
    if tool == "compensate" and run.state == SagaState.WAITING:
        return ""
    if run.state not in STUCK_STATES:
        ends = {"retry": "not stuck", "compensate": "it cannot be walked back"}
        return f"It is {state}: {ends.get(tool, 'only a stuck saga allows this')}."
    return _explain_skip(run) if tool == "skip" else ""


def _explain_skip(run: SagaRun) -> str:
    try:
        step = find_recipe(run.kind, run.definition_version).find(run.step)
    except (PaymentError, StopIteration):
        return "Its recipe is not deployed."
    if not is_effect(step.do):
        return f"The step “{run.step.replace('_', ' ')}” is a decision, and no decision is skipped."
    return ""


def check_tool(run: SagaRun, tool: str, epoch: int | None) -> None:
    """Raises `ConflictError` (`BusyError` when it is driven now) when the tool may not be used."""
    why = explain_tool(run, tool)
    if why:
        kind = BusyError if "this moment" in why else ConflictError
        raise kind(f"Saga {run.pk} was not changed. {why}")
    if epoch is not None and run.epoch != epoch:
        _refuse_changed(run.pk)


def _refuse_changed(run_id: str) -> None:
    raise ConflictError(
        f"Saga {run_id} has changed since you looked at it, and was left alone. Look again, then decide."
    )


# --- again, back, past --------------------------------------------------------------------------------------


def retry_saga(run_id: str, *, actor: str, reason: str, epoch: int | None = None) -> SagaRun:
    """Take a stuck saga up where it stopped, with a fresh budget. Raises `ConflictError` when it is not stuck."""
    _reopen(run_id, "retry", actor=actor, reason=reason, epoch=epoch)
    engine.drive_run(run_id, find_recipe)
    return SagaRun.objects.get(pk=run_id)


def _reopen(
    run_id: str, tool: str, *, actor: str, reason: str, epoch: int | None, delay: float | None = None
) -> None:
    run = SagaRun.objects.get(pk=run_id)
    check_tool(run, tool, epoch)
    state = SagaState.COMPENSATING if "cause" in run.data else SagaState.RUNNING
    detail = _describe(run, actor, reason, after=state)
    is_reopened = store.reopen_run(
        run_id, state=state, diary=f"operator_{tool}", detail=detail, epoch=run.epoch, delay=delay
    )
    if not is_reopened:
        _refuse_changed(run_id)


@dataclass(frozen=True, slots=True)
class RetryOutcome:
    """What became of one saga of a bulk retry; `refusal` is empty when it was taken up again."""

    run_id: str
    refusal: str = ""


def retry_sagas(runs: Iterable[tuple[str, int]], *, actor: str, reason: str) -> list[RetryOutcome]:
    """Take up many stuck sagas, each as of its epoch; the sweeper drives them at once. One outcome for each."""
    return [_retry_one(run_id, epoch, actor, reason) for run_id, epoch in runs]


def _retry_one(run_id: str, epoch: int, actor: str, reason: str) -> RetryOutcome:
    try:
        _reopen(run_id, "retry", actor=actor, reason=reason, epoch=epoch, delay=0)
    except SagaRun.DoesNotExist:
        return RetryOutcome(run_id, f"There is no saga {run_id}.")
    except PaymentError as error:
        return RetryOutcome(run_id, error.message)
    return RetryOutcome(run_id)


def compensate_saga(run_id: str, *, actor: str, reason: str, epoch: int | None = None) -> SagaRun:
    """Walk a stuck or waiting saga back. Raises `ConflictError` when it has ended or is being driven."""
    run = SagaRun.objects.get(pk=run_id)
    check_tool(run, "compensate", epoch)
    cause = ConflictError(f"Compensated by {actor}: {reason}", reason="operator", actor=actor)
    if run.state in STUCK_STATES:
        _reopen(run_id, "compensate", actor=actor, reason=reason, epoch=run.epoch)
    if not engine.compensate_run(run_id, cause, find_recipe):
        raise BusyError(f"Saga {run_id} is being driven at this moment; nothing was changed.")
    return SagaRun.objects.get(pk=run_id)


def skip_step(run_id: str, *, epoch: int, actor: str, reason: str, evidence: str = "") -> SagaRun:
    """Let a stuck saga go on past its present step, forward or on its way back; the effect is kept as skipped.

    Raises `ConflictError` when it is not stuck, not as it was at `epoch`, when the step is a decision, or when money
    may have moved and no evidence says what became of it.
    """
    run = SagaRun.objects.get(pk=run_id)
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(run.order_id) if run.order_id else None
        run.refresh_from_db()
        check_tool(run, "skip", epoch)
        doubt = find_doubt(run, payment)
        if doubt and not evidence.strip():
            raise ConflictError(
                f"{doubt} Step {run.step} of saga {run_id} was not skipped: say what the gateway's own pages show."
            )
        detail = _describe(run, actor, reason, after="past the step") | {"evidence": redact(evidence.strip())}
        note = " ".join(filter(None, [redact(reason), redact(evidence.strip())]))
        runner = engine.skip_step(run_id, find_recipe, epoch=epoch, note=note, detail=detail)
        if runner is None:
            _refuse_changed(run_id)
    if runner is not None:
        runner.drive()
    return SagaRun.objects.get(pk=run_id)


def find_doubt(run: SagaRun, payment: Payment | None) -> str:
    """Why going past the present step needs evidence; empty when no money can be lost.

    Raises `ConflictError` when the gateway has done the step: then a retry goes on from there.
    """
    of_step = SagaEffect.objects.filter(run=run, step=run.step)
    unanswered = of_step.exclude(gateway_key="").exclude(outcome__in=_ANSWERED).order_by("id").last()
    operation = Operation.objects.filter(pk=unanswered.reference).first() if unanswered else None
    if operation is not None and operation.state == OperationState.SUCCEEDED:
        raise ConflictError(
            f"{operation.get_kind_display()} {operation.pk} was done at the gateway: press Retry, and saga {run.pk} "
            "goes on from there. Nothing was skipped."
        )
    if operation is not None and operation.state not in FINAL_OPERATION_STATES:
        what = f"{operation.get_kind_display()} {operation.pk} of {operation.money}"
        return f"{what} is {operation.get_state_display().lower()}: money may have moved."
    is_gateway_step = of_step.exclude(gateway_key="").exists()
    if "cause" in run.data and is_gateway_step and payment is not None and count_at_risk(payment):
        at_risk = Money(count_at_risk(payment), payment.currency)
        return f"{at_risk} would stay held or taken."
    return ""


_ANSWERED = ("ok", "declined", "failed", "absent", "skipped")


def count_at_risk(payment: Payment) -> int:
    """Minor units that are held on the card, or taken and not given back."""
    return _held(payment) + payment.net


def _held(payment: Payment) -> int:
    return payment.capturable if payment.captured else payment.authorized


# --- later, and a note --------------------------------------------------------------------------------------


def extend_deadline(run_id: str, *, epoch: int, until: datetime, actor: str, reason: str) -> SagaRun:
    """Let a waiting saga wait until a later moment.

    Raises `InvalidRequestError` for a moment that is not later, or less than 12 hours before the hold on the card
    ends; `ConflictError` when it does not wait or has changed, `BusyError` when it is driven now.
    """
    run = SagaRun.objects.get(pk=run_id)
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(run.order_id) if run.order_id else None
        run.refresh_from_db()
        check_tool(run, "extend", epoch)
        _check_moment(run, payment, until)
        detail = _describe(run, actor, reason, after=until.isoformat(), before=str(run.deadline_at))
        if not store.extend_wait(run_id, epoch=epoch, until=until, detail=detail):
            _refuse_changed(run_id)
        if payment is not None and run.waiting_for == "review":
            screening.get_screener().open_review(payment.order, payment, expires_at=until)
    return SagaRun.objects.get(pk=run_id)


def latest_deadline(payment: Payment | None) -> datetime:
    """The last moment that a wait may be extended to: the hold on the card must outlive it."""
    if payment is not None and payment.authorization_expires_at:
        return payment.authorization_expires_at - EXPIRY_MARGIN
    return timezone.now() + timedelta(seconds=settings.REVIEW_SECONDS)


def _check_moment(run: SagaRun, payment: Payment | None, until: datetime) -> None:
    latest = latest_deadline(payment)
    if until > latest:
        text = f"{until:%Y-%m-%d %H:%M} UTC is too late: {latest:%Y-%m-%d %H:%M} UTC is the last moment."
        raise InvalidRequestError(f"{text} The deadline of saga {run.pk} was not changed.")
    if until <= timezone.now() or (run.deadline_at and until <= run.deadline_at):
        raise InvalidRequestError(
            f"{until:%Y-%m-%d %H:%M} UTC is not later. The deadline of saga {run.pk} was not changed."
        )


def add_saga_note(run_id: str, *, actor: str, text: str) -> None:
    """Write a line into a saga's diary, whatever its state. Raises `InvalidRequestError` for an empty one."""
    if not text.strip():
        raise InvalidRequestError(f"The note is empty; nothing was written on saga {run_id}.")
    store.write_diary(run_id, "operator_note", {"actor": actor, "note": redact(text.strip())})


def _describe(run: SagaRun, actor: str, reason: str, *, after: str, before: str = "") -> dict[str, Any]:
    """A diary line of a person's deed: who, why, and the run before and after."""
    return {
        "actor": actor,
        "reason": redact(reason),
        "before": before or run.state,
        "after": str(after),
    }


# --- the sweep ----------------------------------------------------------------------------------------------


def sweep_sagas(*, limit: int = 50) -> int:
    """Drive every saga that is due; returns how many."""
    return engine.drive_due(find_recipe, limit=limit)
