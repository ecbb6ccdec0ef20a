"""The durable runner: intent, call, outcome; on failure it walks back; after a crash another worker goes on."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import structlog
from django.db import OperationalError, connection, transaction
from structlog.contextvars import bound_contextvars

from payments import ids
from payments.errors import GatewayTimeoutError, PaymentError, StaleLeaseError, UnknownDefinitionError
from payments.models import Order, Payment, SagaState
from payments.oncall import open_page
from payments.sagas import store
from payments.sagas.recipe import (
    Action,
    Again,
    Anew,
    Context,
    Done,
    EffectRow,
    Fail,
    Halt,
    Outcome,
    Recipe,
    Result,
    Step,
    Wait,
    is_effect,
    is_local,
)
from payments.sagas.store import Page, RunRow

log = structlog.get_logger(__name__)

COMPENSATION_TRIES = 8
COMPENSATION_BACKOFF = timedelta(seconds=10)  # linear, with jitter
CRASH_BACKOFF = timedelta(seconds=5)
DEADLOCK_TRIES = 3
MAX_TURNS = 200  # of one lease; a recipe that goes in circles is put aside instead of burning a worker
Snapshot = tuple[RunRow, list[EffectRow], dict[str, Any] | None, bool, float | None]
_MOVING = (SagaState.RUNNING, SagaState.COMPENSATING)


@dataclass(slots=True)
class Runner:
    """One lease on one run. Everything that it knows is in the database too, as of its last commit."""

    run: RunRow
    recipe: Recipe
    effects: list[EffectRow] = field(default_factory=list)
    order: Order | None = None
    payment: Payment | None = None
    held: dict[str, Any] = field(default_factory=dict)
    signal: dict[str, Any] | None = None
    must_ask: bool = False  # the open effect may have been called before
    is_released: bool = False
    turns: int = 0
    delay: float | None = None  # seconds until the run must come back

    # --- driving --------------------------------------------------------------------------------------------

    def drive(self) -> None:
        """Run until the saga waits, ends or must come back later. Stops silently when the lease is lost."""
        with bound_contextvars(saga_id=self.run.id, order_id=self.run.order_id):
            self._drive()

    def _drive(self) -> None:
        try:
            while self.run.state in _MOVING and not self.is_released:
                self.turns += 1
                if self.turns > MAX_TURNS:
                    self._put_aside(RuntimeError(f"no end after {MAX_TURNS} turns"))
                elif self._must_leave():
                    self._commit_turn(self._leave())
                else:
                    self._commit_turn(None, has_answer=False)
        except StaleLeaseError:
            log.warning("saga_lease_lost", saga_id=self.run.id)

    def release(self) -> None:
        """Leave the run to the sweeper, due at once."""
        page = Page()
        page.note("released", self.run.step)
        store.turn_page(self.run, page, keep_lease=False, delay=0)
        self.is_released = True

    def compensate(self, error: PaymentError, *, drive: bool = True) -> None:
        """Turn round now, by somebody's wish, and drive, or leave that to the sweeper."""
        with transaction.atomic():
            page = Page()
            context = self._context(lock=True)
            if self.run.state == SagaState.RUNNING:
                actor = error.details.get("actor", "system")
                page.note("compensate", self.run.step, error=error.to_dict(), actor=actor)
                self.begin_compensation(error, page, context)
            self._end_turn(page, context)
        if drive:
            self.drive()
        elif not self.is_released:
            self.release()

    def skip(self, note: str, detail: dict[str, Any]) -> None:
        """Go past the present step by an operator's wish, in the caller's transaction, which has the locks."""
        page = Page()
        context = self._context()
        page.note("operator_skip", self.run.step, **detail)
        skipped = self._keep_skipped(page)
        self._go_past(page, context)
        self._end_turn(page, context)
        store.keep_note(skipped, note)

    def _keep_skipped(self, page: Page) -> EffectRow:
        """The open effect is closed as skipped; where there is none, one is written that says so."""
        is_undo = self.run.state == SagaState.COMPENSATING and not self._is_resolving()
        direction = "undo" if is_undo else "do"
        effect = self._open_effect()
        if effect is None:
            effect = EffectRow(self.run.step, direction)
            effect.attempt += sum(e.step == effect.step and e.direction == direction for e in self.effects)
            self.effects.append(effect)
            page.begun.append(effect)
        else:
            page.settled.append(effect)
        effect.outcome = Outcome.SKIPPED
        return effect

    def _must_leave(self) -> bool:
        action = self._action()
        if is_local(action):
            return False
        return not is_effect(action) or self._open_effect() is not None

    def _leave(self) -> Any:
        """The outside call of the current action; no transaction is open here."""
        try:
            return self._call(self._action(), self._context())
        except PaymentError as error:
            return error
        except Exception as error:
            log.exception("saga_action_crashed", saga_id=self.run.id, step=self.run.step)
            return GatewayTimeoutError(f"{type(error).__name__} during {self.run.step}: {error}")

    def _call(self, action: Any, context: Context) -> Any:
        if not is_effect(action):
            return action.ask(context)
        if not self.must_ask:
            return action.call(context)
        answer = action.ask(context)
        if answer is None and not self._is_resolving() and action.may_call_again(context):
            return action.call(context)
        return answer

    def _commit_turn(self, answer: Any, *, has_answer: bool = True) -> None:
        for attempt in range(1, DEADLOCK_TRIES + 1):
            before = self._snapshot()
            try:
                with transaction.atomic():
                    self.turn(answer, has_answer=has_answer)
            except StaleLeaseError:
                raise
            except OperationalError:
                self._restore(before)
                if attempt == DEADLOCK_TRIES or not connection.is_usable():
                    raise
            except Exception as error:
                self._restore(before)
                log.exception("saga_turn_crashed", saga_id=self.run.id, step=self.run.step)
                self._put_aside(error)
                return
            else:
                return

    def _snapshot(self) -> Snapshot:
        run = replace(self.run, data=dict(self.run.data))
        return run, [replace(effect) for effect in self.effects], self.signal, self.must_ask, self.delay

    def _restore(self, snapshot: Snapshot) -> None:
        self.run, self.effects, self.signal, self.must_ask, self.delay = snapshot

    def _put_aside(self, error: Exception) -> None:
        """A bug must not lose the run: release it, keep the error, let the sweeper try again."""
        self.run.last_error = {
            "type": type(error).__name__,
            "message": str(error)[:500],
            "code": "internal_error",
        }
        page = Page()
        page.note("crashed", self.run.step, error=self.run.last_error)
        store.turn_page(
            self.run, page, keep_lease=False, delay=CRASH_BACKOFF.total_seconds() * (self.run.attempts + 1)
        )
        self.is_released = True

    # --- one turn: everything between two outside calls, in one transaction ---------------------------------

    def turn(self, answer: Any = None, *, has_answer: bool = True, lock: bool = True) -> None:
        """Record the answer, run local steps, and write the next intent or the end: one commit.

        Raises `StaleLeaseError` when another worker owns the run by now.
        """
        page = Page()
        context = self._context(lock=lock)
        if self.run.waiting_for and self.signal is None:
            self.signal = context.signal = store.take_signal(self.run.id, self.run.waiting_for)
        if has_answer:
            self._apply(self._record(context, answer), page, context)
        self._end_turn(page, context)

    def _end_turn(self, page: Page, context: Context) -> None:
        """Go on as far as the transaction reaches, and write the page."""
        delay = self._run_on(page, context)
        self._take_notes(page, context)
        keep_lease = self.run.state in _MOVING and delay is None
        store.turn_page(self.run, page, keep_lease=keep_lease, delay=delay)
        self.is_released = not keep_lease
        self.held = context.held

    def _record(self, context: Context, answer: Any) -> Result:
        action: Any = self._action()
        return action.record(context, answer)  # type: ignore[no-any-return]

    def _run_on(self, page: Page, context: Context) -> float | None:
        """Local steps and intents until the saga must leave the transaction; the delay when it must come back."""
        while self.run.state in _MOVING:
            if self.delay is not None:
                return self.delay
            context = self._refresh(context)
            action: Any = self._action()
            if is_local(action):
                self._apply(self._run_local(action, context), page, context)
            elif self._open_effect() is not None or not is_effect(action):
                return None
            else:
                self._begin(action, page, context)
        return None

    def _run_local(self, action: Any, context: Context) -> Result:
        """In a savepoint, so that a refusal leaves the turn's other writes alone."""
        try:
            with transaction.atomic():
                return action.run(context)  # type: ignore[no-any-return]
        except PaymentError as error:
            return Fail(error)

    def _begin(self, action: Any, page: Page, context: Context) -> None:
        """Write the intent, or go on: there is nothing to do, or it may not be done (raised before any write)."""
        try:
            effect = action.intend(context)
        except PaymentError as error:
            self._apply(Fail(error, Outcome.ABSENT), page, context)
            return
        if effect is None:
            self._apply(Done(), page, context)
            return
        effect.attempt = 1 + sum(
            e.step == effect.step and e.direction == effect.direction for e in self.effects
        )
        self.effects.append(effect)
        page.begun.append(effect)
        page.note("intent", self.run.step, direction=effect.direction, reference=effect.reference)
        self.must_ask = False

    # --- what a result means --------------------------------------------------------------------------------

    def _apply(self, result: Result, page: Page, context: Context) -> None:
        if self._is_resolving():
            self._apply_resolution(result, page, context)
            return
        match result:
            case Done(outcome):
                self._settle(outcome, page)
                self._move_on(page, context)
            case Fail(error, outcome):
                self._settle(outcome, page)
                self._fail(error, page, context)
            case Wait(signal, deadline):
                self._wait(signal, deadline, page)
            case Again(delay, error, in_doubt):
                self._come_back(delay, error, in_doubt, page)
            case Anew(error, outcome):
                self._settle(outcome, page)
                page.note("anew", self.run.step, error=error.to_dict())
                self.run.attempts = 0
            case Halt(error):
                self._stop(SagaState.QUARANTINED, error, page)

    def _move_on(self, page: Page, context: Context) -> None:
        if self.run.state != SagaState.COMPENSATING:
            page.note("done", self.run.step)
        self._go_past(page, context)

    def _go_past(self, page: Page, context: Context) -> None:
        self.run.attempts = 0
        self.run.deadline_at = None
        self.run.waiting_for = ""
        self.signal = None
        if self.run.state == SagaState.COMPENSATING:
            self._undo_next(page, context)
            return
        following = self.recipe.index(self.run.step) + 1
        if following < len(self.recipe.steps):
            self.run.step = self.recipe.steps[following].name
        else:
            self.run.state = SagaState.COMPLETED
            self.run.last_error = None
            self.recipe.completed(self._refresh(context))
            page.note("completed")

    def _fail(self, error: PaymentError, page: Page, context: Context) -> None:
        if self.run.state == SagaState.COMPENSATING:
            self._stop(SagaState.FAILED_COMPENSATION, error, page)
            return
        effect = self._effect_of("do")
        if (
            effect is not None
            and effect.outcome == Outcome.UNKNOWN
            and self._step(self.run.step).undo is None
        ):
            self._stop(SagaState.QUARANTINED, error, page)  # walking back would drop the question
            return
        page.note("failed", self.run.step, error=error.to_dict())
        self.begin_compensation(error, page, context)

    def begin_compensation(self, error: PaymentError, page: Page, context: Context) -> None:
        """Turn round: from here on the saga only walks back."""
        self.run.state = SagaState.COMPENSATING
        self.run.last_error = self.run.data["cause"] = error.to_dict()
        self.run.attempts = 0
        self.run.deadline_at = None
        self.run.waiting_for = ""
        self.signal = None
        self._undo_next(page, context)

    def _undo_next(self, page: Page, context: Context) -> None:
        standing = self._last_standing()
        if standing is not None:
            self.run.step = standing.step
            self.must_ask = self._is_resolving()
            return
        self.run.state = SagaState.COMPENSATED
        self.recipe.compensated(self._refresh(context), self.run.data.get("cause") or {})
        page.note("compensated")

    def _last_standing(self) -> EffectRow | None:
        """The newest effect of ours that happened, or may have, and is not undone yet."""
        through = (Outcome.OK, Outcome.SKIPPED)
        undone = {e.step for e in self.effects if e.direction == "undo" and e.outcome in through}
        for effect in reversed(self.effects):
            if effect.direction == "do" and effect.step not in undone and self._may_stand(effect):
                return effect
        return None

    def _may_stand(self, effect: EffectRow) -> bool:
        return (
            effect.outcome in (None, Outcome.OK, Outcome.UNKNOWN) and self._step(effect.step).undo is not None
        )

    def _wait(self, signal: str, deadline: Any, page: Page) -> None:
        self.run.waiting_for = signal
        self.run.deadline_at = deadline
        self.run.attempts = 0
        self.must_ask = True
        early = store.take_signal(self.run.id, signal)
        if early is not None:  # it came before the wait: go on at once
            self.signal = early
            page.note("signal", self.run.step, signal=signal)
            return
        self.run.state = SagaState.WAITING
        page.note("waiting", self.run.step, signal=signal, deadline=str(deadline))

    def _come_back(self, delay: timedelta, error: PaymentError, in_doubt: bool, page: Page) -> None:
        self.run.last_error = error.to_dict() if self.run.state == SagaState.RUNNING else self.run.last_error
        page.note("again", self.run.step, error=error.to_dict(), seconds=delay.total_seconds())
        effect = self._open_effect()
        if effect is not None and in_doubt and effect.outcome != Outcome.UNKNOWN:
            effect.outcome = Outcome.UNKNOWN
            page.settled.append(effect)
        if self.run.state == SagaState.COMPENSATING and self.run.attempts >= COMPENSATION_TRIES:
            self._stop(SagaState.FAILED_COMPENSATION, error, page)
            return
        if self.run.state == SagaState.COMPENSATING:
            delay = COMPENSATION_BACKOFF * (self.run.attempts + 1) * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        self.delay = max(delay.total_seconds(), 0.0)

    def _stop(self, state: SagaState, error: PaymentError, page: Page) -> None:
        self.run.state = state
        self.run.last_error = error.to_dict()
        page.note(state.lower(), self.run.step, error=error.to_dict())
        _call_operator(self.run, self.payment)

    # --- resolving doubt before undoing ---------------------------------------------------------------------

    def _is_resolving(self) -> bool:
        """Walking back onto an effect that nobody is sure of: it is asked for before it is undone."""
        if self.run.state != SagaState.COMPENSATING:
            return False
        effect = self._effect_of("do")
        return effect is not None and effect.outcome in (None, Outcome.UNKNOWN)

    def _apply_resolution(self, result: Result, page: Page, context: Context) -> None:
        effect = self._effect_of("do")
        assert effect is not None
        match result:
            case Done(outcome):
                effect.outcome = outcome
            case Wait():
                effect.outcome = Outcome.OK  # it is there and unfinished: undo it
            case Fail(error, Outcome.UNKNOWN):
                self._come_back(CRASH_BACKOFF, error, True, page)
                return
            case Fail(_, outcome):
                effect.outcome = outcome
            case Again(delay, error):
                self._come_back(delay, error, True, page)
                return
            case Anew(_, outcome):
                effect.outcome = outcome
            case Halt(error):
                self._stop(SagaState.FAILED_COMPENSATION, error, page)
                return
        page.settled.append(effect)
        page.note("resolved", self.run.step, outcome=effect.outcome)
        self.run.attempts = 0
        if not self._may_stand(effect):
            self._undo_next(page, context)

    # --- small things ---------------------------------------------------------------------------------------

    def _settle(self, outcome: str, page: Page) -> None:
        """Close the open effect, or keep a local step that will need undoing."""
        effect = self._open_effect()
        direction = "undo" if self.run.state == SagaState.COMPENSATING else "do"
        if effect is None:
            if outcome == Outcome.OK and (direction == "undo" or self._step(self.run.step).undo is not None):
                kept = EffectRow(
                    step=self.run.step, direction=direction, outcome=outcome, reference=self.run.id
                )
                kept.attempt = 1 + sum(e.step == kept.step and e.direction == direction for e in self.effects)
                self.effects.append(kept)
                page.begun.append(kept)
            return
        effect.outcome = outcome
        if effect not in page.begun:
            page.settled.append(effect)

    def _action(self) -> Action:
        step = self._step(self.run.step)
        if self.run.state == SagaState.COMPENSATING and not self._is_resolving():
            assert step.undo is not None
            return step.undo
        return step.do

    def _step(self, name: str) -> Step:
        return self.recipe.find(name)

    def _effect_of(self, direction: str) -> EffectRow | None:
        matching = [e for e in self.effects if e.step == self.run.step and e.direction == direction]
        return matching[-1] if matching else None

    def _open_effect(self) -> EffectRow | None:
        is_undo = self.run.state == SagaState.COMPENSATING and not self._is_resolving()
        effect = self._effect_of("undo" if is_undo else "do")
        return effect if effect is not None and effect.outcome in (None, Outcome.UNKNOWN) else None

    def _context(self, *, lock: bool = False) -> Context:
        if self.run.order_id and lock:
            self.payment = Payment.objects.locked_with_order(self.run.order_id)
            self.order = self.payment.order
        elif self.run.order_id and self.payment is None:
            self.payment = Payment.objects.with_order(self.run.order_id)
            self.order = self.payment.order
        return Context(
            run_id=self.run.id,
            step=self.run.step,
            order=self.order,  # type: ignore[arg-type]  # a run without an order has actions that need none
            payment=self.payment,  # type: ignore[arg-type]
            data=self.run.data,
            effect=self._open_effect(),
            is_undoing=self.run.state == SagaState.COMPENSATING,
            was_asked=self.must_ask,
            is_overdue=self.run.is_overdue and self.run.deadline_at is not None,
            deadline_at=self.run.deadline_at,
            signal=self.signal,
            attempts=self.run.attempts,
            held=self.held,
        )

    def _refresh(self, context: Context) -> Context:
        """The same context at the saga's present place."""
        context.step = self.run.step
        context.effect = self._open_effect()
        context.is_undoing = self.run.state == SagaState.COMPENSATING
        context.was_asked = self.must_ask
        context.is_overdue = self.run.is_overdue and self.run.deadline_at is not None
        context.deadline_at = self.run.deadline_at
        context.signal = self.signal
        context.attempts = self.run.attempts
        return context

    def _take_notes(self, page: Page, context: Context) -> None:
        for kind, step, detail in context.notes:
            page.note(kind, step, **detail)
        context.notes.clear()


# --- the engine's door --------------------------------------------------------------------------------------

RecipeFinder = Callable[[str, int], Recipe]


def start_run(
    recipe: Recipe, *, subject: str, order: Order | None, payment: Payment | None, data: dict[str, Any]
) -> Runner:
    """Begin a saga inside the caller's transaction, up to its first outside call; `drive()` it after the commit."""
    run = RunRow(
        id=ids.new_id("sag"),
        kind=recipe.kind,
        version=recipe.version,
        subject=subject,
        order_id=order.pk if order else None,
        state=SagaState.RUNNING,
        step=recipe.steps[0].name,
        data=data,
        epoch=1,
    )
    store.insert_run(run)
    runner = Runner(run, recipe, order=order, payment=payment)
    runner.turn(has_answer=False, lock=False)  # the caller made or locked them in this transaction
    return runner


def drive_run(run_id: str, find_recipe: RecipeFinder) -> bool:
    """Take the lease and drive; False when somebody else has it or there is nothing to do."""
    run = store.claim_run(run_id)
    if run is None:
        return False
    runner = _resume(run, find_recipe)
    if runner is not None:
        runner.drive()
    return True


def compensate_run(
    run_id: str, error: PaymentError, find_recipe: RecipeFinder, *, drive: bool = True
) -> bool:
    """Walk a waiting or running saga back; False when another worker drives it at this moment."""
    run = store.claim_run(run_id)
    runner = _resume(run, find_recipe) if run else None
    if runner is None:
        return False
    runner.compensate(error, drive=drive)
    return True


def skip_step(
    run_id: str, find_recipe: RecipeFinder, *, epoch: int, note: str, detail: dict[str, Any]
) -> Runner | None:
    """Take a stuck run past its present step, in the caller's transaction; `drive()` it after the commit.

    None when it is not as it was at `epoch`. Raises `UnknownDefinitionError`.
    """
    run = store.claim_stuck(run_id, epoch=epoch)
    if run is None:
        return None
    recipe = find_recipe(run.kind, run.version)
    runner = Runner(run, recipe, effects=store.load_effects(run.id), must_ask=True)
    runner.skip(note, detail)
    return runner


def send_signal(run_id: str, name: str, *, dedupe_id: str, payload: dict[str, Any]) -> bool:
    """Leave a message for a run, in a transaction that holds the order's lock; False if it was there."""
    return store.insert_signal(run_id, name, dedupe_id=dedupe_id, payload=payload)


def _resume(run: RunRow, find_recipe: RecipeFinder) -> Runner | None:
    try:
        recipe = find_recipe(run.kind, run.version)
    except UnknownDefinitionError as error:
        _quarantine(run, error)
        return None
    if run.attempts > store.MAX_CLAIMS:
        _quarantine(run, PaymentError(f"{run.step} made no progress in {store.MAX_CLAIMS} tries"))
        return None
    runner = Runner(run, recipe, effects=store.load_effects(run.id), must_ask=True)
    if run.state in (SagaState.WAITING, SagaState.PENDING):
        run.state = SagaState.RUNNING
    return runner


def _quarantine(run: RunRow, error: PaymentError) -> None:
    run.state = SagaState.QUARANTINED
    run.last_error = error.to_dict()
    page = Page()
    page.note("quarantined", run.step, error=error.to_dict())
    with transaction.atomic():
        store.turn_page(run, page, keep_lease=False)
        _call_operator(run, None)


def _call_operator(run: RunRow, payment: Payment | None) -> None:
    """Tell on-call, once per kind, step and error, in the transaction in which the run stops."""
    error = run.last_error or {}
    log.error("saga_needs_operator", saga_id=run.id, order_id=run.order_id, state=run.state, step=run.step)
    detail: dict[str, Any] = {
        "saga": run.id,
        "order": run.order_id,
        "step": run.step,
        "error": error.get("code"),
    }
    if payment is not None:
        names = ("currency", "authorized", "captured", "refunded")
        detail["money"] = {name: getattr(payment, name) for name in names}
    open_page(
        f"saga:{run.state}:{run.kind}:{run.step}:{error.get('code')}",
        text=f"Saga {run.kind} stopped at {run.step} ({run.state}): {error.get('message', '')}",
        detail=detail,
    )


def drive_due(find_recipe: RecipeFinder, *, limit: int = 50) -> int:
    """Drive every run that is due; returns how many were driven."""
    with transaction.atomic():
        due = store.find_due(limit)
    return sum(drive_run(run_id, find_recipe) for run_id in due)
