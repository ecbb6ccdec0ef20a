"""Run as a process: places orders, each in a child that kills or stops itself at the point named for it.

Points are `<operation>.<moment>`. The product knows nothing of them: the seams of the saga engine are replaced here.
Reads a JSON list of plans from stdin, and writes a line for each child that stopped, and for each that ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

from django.conf import settings  # noqa: E402 - after the setup

from payments.models import ApiClient, SagaState  # noqa: E402
from payments.money import Money  # noqa: E402
from payments.sagas import checkout, effects, engine, store  # noqa: E402
from payments.sagas.recipe import Context  # noqa: E402
from payments.sagas.store import Page, RunRow  # noqa: E402
from payments.services import OrderDraft, cancel_order, capture_order, place_order  # noqa: E402

Place = tuple[str, str]  # a step and its direction
PLACES: dict[str, Place] = {
    "order": ("reserve", "do"),
    "screen": ("screen", "do"),
    "authorize": ("authorize", "do"),
    "capture": ("capture", "do"),
    "refund": ("capture", "undo"),
    "part": ("capture", "do"),  # of a manual order, with more to come
    "rest": ("void", "do"),  # the release of what a part has left
}
PART = 4000


class Plan(NamedTuple):
    """One order, and where its process ends; `lease` in seconds."""

    reference: str
    point: str
    lease: int
    country: str = "DE"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def freeze() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


# --- the seams ----------------------------------------------------------------------------------------------


def end_before_intent(place: Place) -> None:
    """In the transaction that would write the intent, before it commits."""
    turn_page = store.turn_page

    def turn_page_or_die(run: RunRow, page: Page, **options: Any) -> None:
        if any((effect.step, effect.direction) == place for effect in page.begun):
            die()
        turn_page(run, page, **options)

    store.turn_page = turn_page_or_die


def interrupt_call(
    place: Place, *, before: Callable[[], None] | None, after: Callable[[], None] | None
) -> None:
    """Around the call to the gateway: the intent is committed, the outcome is not."""
    call = effects.GatewayEffect.call

    def call_interrupted(self: effects.GatewayEffect, context: Context) -> effects.Answer:
        is_here = (context.step, "undo" if context.is_undoing else "do") == place
        if is_here and before:
            before()
        answer = call(self, context)
        if is_here and after:
            after()
        return answer

    effects.GatewayEffect.call = call_interrupted  # type: ignore[method-assign]


def end_after_outcome(place: Place) -> None:
    """After the commit that wrote the outcome, before anything else is done."""
    commit_turn = engine.Runner._commit_turn

    def commit_turn_and_die(self: engine.Runner, answer: Any, *, has_answer: bool = True) -> None:
        was = (self.run.step, "undo" if self.run.state == SagaState.COMPENSATING else "do")
        commit_turn(self, answer, has_answer=has_answer)
        if has_answer and was == place:
            die()

    engine.Runner._commit_turn = commit_turn_and_die  # type: ignore[method-assign]


def end_before_screening(place: Place) -> None:
    """The order, its payment and its saga are committed, and nothing else was done."""

    def screen_and_die(self: checkout.Screen, context: Context) -> Any:
        die()

    checkout.Screen.ask = screen_and_die  # type: ignore[method-assign]


MOMENTS: dict[str, Callable[[Place], None]] = {
    "before_screening": end_before_screening,
    "before_intent": end_before_intent,
    "after_intent": lambda place: interrupt_call(place, before=die, after=None),
    "after_gateway": lambda place: interrupt_call(place, before=None, after=die),
    "after_outcome": end_after_outcome,
    "frozen_before_gateway": lambda place: interrupt_call(place, before=freeze, after=None),
    "frozen_after_gateway": lambda place: interrupt_call(place, before=None, after=freeze),
}


# --- the processes ------------------------------------------------------------------------------------------


def place_as_victim(plan: Plan) -> None:
    operation, _, moment = plan.point.partition(".")
    settings.SAGA_LEASE_SECONDS = plan.lease
    if operation in ("part", "rest"):
        capture_as_victim(plan, is_whole=operation == "rest")
    else:
        MOMENTS[moment](PLACES[operation])
        place_order(ApiClient.objects.get(), draft_order(plan))


def capture_as_victim(plan: Plan, *, is_whole: bool) -> None:
    """Capture a part of a held order; with `is_whole` that goes well, and then the rest is let go."""
    operation, _, moment = plan.point.partition(".")
    order = place_order(ApiClient.objects.get(), replace(draft_order(plan), capture="manual"))
    if not is_whole:
        MOMENTS[moment](PLACES[operation])
    capture_order(order, amount=PART, final=False, actor="api:victim")
    MOMENTS[moment](PLACES[operation])
    cancel_order(order, reason="requested", actor="api:victim")


def draft_order(plan: Plan) -> OrderDraft:
    return OrderDraft(
        reference=plan.reference,
        amount=Money(12950, "EUR"),
        payment_method=f"pm_card_de_{plan.reference.replace('-', '')}",
        lines=[{"sku": "MUG-1", "quantity": 2, "unit_amount": 6475}],
        customer_email=f"{plan.reference}@example.com",
        billing={"country": "DE"},
        shipping={"country": plan.country},
    )


def watch(plan: Plan) -> None:
    """Run one victim in a child process, and say how it fares."""
    child = os.fork()
    if child == 0:
        place_as_victim(plan)
        os._exit(0)
    while True:
        _, status = os.waitpid(child, os.WUNTRACED)
        ended = None if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)
        line = {"reference": plan.reference, "pid": child, "ended": ended, "at": time.time()}
        print(json.dumps(line), flush=True)
        if ended is not None:
            return


if __name__ == "__main__":
    for item in json.load(sys.stdin):
        watch(Plan(**item))
