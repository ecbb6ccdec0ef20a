"""The words in which a saga is written: recipes, steps, actions and the results they give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from payments.errors import PaymentError
from payments.models import Order, Payment, SagaEffect

Outcome = SagaEffect.Outcome


# --- what an action may answer ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Done:
    """The step is finished; `outcome` is kept on its effect, and decides whether there is anything to undo."""

    outcome: str = Outcome.OK


@dataclass(frozen=True, slots=True)
class Fail:
    """The step failed for good: walk back. `outcome` says whether the effect may have happened."""

    error: PaymentError
    outcome: str = Outcome.FAILED


@dataclass(frozen=True, slots=True)
class Wait:
    """Sleep until the signal comes or the deadline passes; the same action is then entered again."""

    signal: str
    deadline: datetime


@dataclass(frozen=True, slots=True)
class Again:
    """Not finished: enter the same action again after `delay`. In doubt, the effect's outcome becomes unknown."""

    delay: timedelta
    error: PaymentError
    in_doubt: bool = False


@dataclass(frozen=True, slots=True)
class Anew:
    """Nothing is left of this effect: close it, and enter the same step with a new one."""

    error: PaymentError
    outcome: str = Outcome.ABSENT


@dataclass(frozen=True, slots=True)
class Halt:
    """Nothing that a machine should decide: stop for an operator."""

    error: PaymentError


Result = Done | Fail | Wait | Again | Anew | Halt


# --- what an action sees ------------------------------------------------------------------------------------


@dataclass(slots=True)
class EffectRow:
    """One effect as the engine holds it; `id` is None until its intent is committed."""

    step: str
    direction: str
    attempt: int = 1
    gateway_key: str = ""
    reference: str = ""
    outcome: str | None = None
    id: int | None = None


@dataclass(slots=True)
class Context:
    """What an action may look at. `data` is the run's own memory, saved at every commit."""

    run_id: str
    step: str
    order: Order
    payment: Payment
    data: dict[str, Any]
    effect: EffectRow | None = None
    is_undoing: bool = False
    was_asked: bool = False  # the answer is about a call that may have been made before
    is_overdue: bool = False  # the deadline has passed
    deadline_at: datetime | None = None
    signal: dict[str, Any] | None = None
    attempts: int = 0
    held: dict[str, Any] = field(default_factory=dict)  # between two commits, never saved
    notes: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def note(self, kind: str, **detail: Any) -> None:
        """Write a line into the run's diary."""
        self.notes.append((kind, self.step, detail))


# --- the three kinds of action ------------------------------------------------------------------------------


class Local(Protocol):
    """Runs inside the saga's transaction and touches only our own database."""

    def run(self, context: Context) -> Result: ...


class Question(Protocol):
    """Asks outside without leaving a mark there: no intent needed, safe to ask again."""

    def ask(self, context: Context) -> Any: ...
    def record(self, context: Context, answer: Any) -> Result: ...


class Effect(Protocol):
    """Changes the outside world: the intent is committed before `call`, the outcome in `record`.

    `intend` returns None when there is nothing to do. `call` and `ask` run with no transaction open; the errors of
    the wire that they raise are passed to `record` as the answer. `ask` finds out what became of an earlier `call`
    with the same intent: None means that the other side knows nothing of it. `may_call_again` then says whether the
    same call is safe.
    """

    def intend(self, context: Context) -> EffectRow | None: ...
    def call(self, context: Context) -> Any: ...
    def ask(self, context: Context) -> Any: ...
    def may_call_again(self, context: Context) -> bool: ...
    def record(self, context: Context, answer: Any) -> Result: ...


Action = Local | Question | Effect


def is_effect(action: Action) -> bool:
    return hasattr(action, "call")


def is_local(action: Action) -> bool:
    """A port that may live in our own database or behind the wire says so by `joins_transaction`."""
    return hasattr(action, "run") and getattr(action, "joins_transaction", True)


@dataclass(frozen=True, slots=True)
class LocalFunction:
    """A plain function as a local action: returning means done, raising a PaymentError means failed."""

    function: Callable[[Context], Result | None]

    def run(self, context: Context) -> Result:
        return self.function(context) or Done()


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    do: Action
    undo: Action | None = None


def step(
    name: str,
    *,
    do: Action | Callable[[Context], Result | None],
    undo: Action | Callable[[Context], Result | None] | None = None,
) -> Step:
    """One line of a recipe. Plain functions are local steps."""
    return Step(name, _as_action(do), None if undo is None else _as_action(undo))


def _as_action(value: Any) -> Action:
    return value if is_effect(value) or is_local(value) or hasattr(value, "ask") else LocalFunction(value)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A saga: its steps in order, and what to say when all is done or all is undone."""

    kind: str
    version: int
    steps: Sequence[Step]
    completed: Callable[[Context], None]
    compensated: Callable[[Context, dict[str, Any]], None]

    def index(self, name: str) -> int:
        return next(index for index, step in enumerate(self.steps) if step.name == name)

    def find(self, name: str) -> Step:
        return self.steps[self.index(name)]
