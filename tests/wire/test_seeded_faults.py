"""Lost answers, lost requests, resets and 5xx at every operation, by seed: the sandbox's books are the judge.

FAULT_SEEDS says how many seeds each of the sixteen pairs is given; the suite runs three.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest

from payments import services
from payments.models import Operation, Order, Payment
from payments.money import Money
from tests.wire.shop import WiredShop

pytestmark = [pytest.mark.django_db, pytest.mark.faults]

SEEDS = int(os.environ.get("FAULT_SEEDS", "3"))
OPERATIONS = ("authorize", "capture", "void", "refund")
FAULTS: dict[str, tuple[str, ...]] = {
    "act-then-timeout": ("timeout_after",),
    "timeout-without-acting": ("timeout_before",),
    "reset-after-acting": ("reset_after",),
    "5xx": ("500", "500_after"),
}
CURRENCIES = ("EUR", "USD", "GBP", "JPY")
ACTOR = "api:shop"


@dataclass(frozen=True)
class Story:
    """What a seed decides: one order, what is done with it, and what goes wrong on the way."""

    operation: str
    fault: str
    times: int
    death: str  # the process dies "" | before | after the call
    rests: bool  # or goes on while something is in doubt
    money: Money
    capture: str
    parts: tuple[int, ...]  # of a manual capture, each followed by more
    is_final: bool  # a last capture takes the rest; else the rest is let go
    refunds: tuple[int, ...]
    hit: int  # which of several captures or refunds meets the fault

    @property
    def captured(self) -> int:
        if self.operation == "void":
            return sum(self.parts)
        return self.money.minor if self.capture == "automatic" or self.is_final else sum(self.parts)


def tell_story(operation: str, fault: str, seed: int) -> Story:
    rng = Random(f"{operation} {fault} {seed}")
    total = rng.randint(1000, 500_000)
    is_manual = operation == "void" or rng.random() < 0.6
    parts = tuple(rng.randint(1, total // 4) for _ in range(rng.randint(0, 3))) if is_manual else ()
    is_final = operation != "void" and (not parts or rng.random() < 0.7)
    taken = total if is_final or not is_manual else sum(parts)
    refunds = tuple(rng.randint(1, taken // 3) for _ in range(rng.randint(1, 3))) if taken > 3 else ()
    captures = len(parts) + is_final
    return Story(
        operation=operation,
        fault=rng.choice(FAULTS[fault]),
        times=rng.randint(1, 3),
        death=rng.choice(("", "", "before", "after")),
        rests=rng.random() < 0.5,
        money=Money(total, rng.choice(CURRENCIES)),
        capture="manual" if is_manual else "automatic",
        parts=parts,
        is_final=is_final,
        refunds=refunds if operation == "refund" else (),
        hit=rng.randrange(max(captures if operation == "capture" else len(refunds), 1)),
    )


def act_out(shop: WiredShop, story: Story) -> Order:
    """Place, capture, release and refund as the story says; the fault meets the operation that it names."""

    def do(kind: str, number: int, act: Callable[[], object]) -> None:
        if story.operation == kind and story.hit == number:
            # At Stripe the rest of a hold is let go by a last capture of nothing.
            wire = "capture" if kind == "void" and story.parts else {"void": "cancel"}.get(kind, kind)
            shop.break_calls(wire, story.fault, times=story.times)
            shop.gateway.deaths = {kind: story.death}
        shop.insist(order, act)
        if story.rests:
            shop.come_to_rest(order)

    order = shop.place(story.money, capture=story.capture)
    if story.capture == "automatic" and story.operation == "capture":
        do("capture", 0, lambda: services.resume_order(order))
    else:
        do("authorize", story.hit, lambda: services.resume_order(order))
    if story.capture == "manual":
        for number, part in enumerate(story.parts):
            do("capture", number, lambda part=part: capture(order, part, final=False))  # type: ignore[misc]
        if story.is_final:
            do("capture", len(story.parts), lambda: capture(order, None, final=True))
        elif story.operation == "void" or story.parts:
            do("void", story.hit, lambda: services.cancel_order(order, reason="requested", actor=ACTOR))
    shop.come_to_rest(order)
    for number, amount in enumerate(story.refunds):
        do("refund", number, lambda amount=amount: refund(order, amount))  # type: ignore[misc]
    shop.come_to_rest(order)
    return order


def capture(order: Order, amount: int | None, *, final: bool) -> Order:
    return services.capture_order(order, amount=amount, final=final, actor=ACTOR)


def refund(order: Order, amount: int) -> Operation:
    return services.refund_order(order, amount=amount, reason="requested", actor=ACTOR)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_fault_moves_no_money_twice_and_loses_none(wired: WiredShop, operation: str, fault: str) -> None:
    given_up = 0
    for seed in range(SEEDS):
        story = tell_story(operation, fault, seed)
        order = act_out(wired, story)
        wired.repair()
        try:
            wired.judge(order)
            is_given_up = Operation.objects.filter(payment__order=order, error__code="absent").exists()
            if not is_given_up:
                assert_wanted(order, story)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {story}: {error}") from error
        given_up += is_given_up
    print(f"\n{operation}, {fault}: {SEEDS} seeds, books equal, {given_up} given up as never sent")


def assert_wanted(order: Order, story: Story) -> None:
    """What was asked for was done: a lost answer is no reason not to."""
    payment = Payment.objects.get(order=order)
    assert (payment.captured, payment.refunded) == (story.captured, sum(story.refunds))
    assert payment.capturable == 0
