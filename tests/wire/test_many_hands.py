"""Twenty threads capture, cancel, refund, tell, ask and sweep one payment: right totals, and refusals at worst."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from threading import Barrier

import pytest

from payments import services
from payments.errors import PaymentError
from payments.models import Order, Payment
from payments.money import Money
from tests.payments.gateway_faults import expire_leases, make_questions_due
from tests.payments.threads import run_in_threads
from tests.wire.shop import WiredShop

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.concurrency]

THREADS, TURNS, ROUNDS = 20, 3, 4
TOTAL = 12950
ACTOR = "api:shop"
LOST = ("reset_after", "500_after", "500")

Hand = Callable[[], object]


def make_hands(shop: WiredShop, order: Order, rng: Random) -> dict[str, Hand]:
    def capture(final: bool) -> Order:
        amount = None if final else rng.randint(1, 3000)
        return services.capture_order(order, amount=amount, final=final, actor=ACTOR)

    def tell() -> None:
        events = shop.events()
        for event in rng.sample(events, min(3, len(events))):
            for fact in shop.read(event):
                services.apply_gateway_fact(shop.account, fact)

    def ask() -> None:
        make_questions_due()
        services.ask_due_operations()

    def sweep() -> None:
        expire_leases()  # as if every other worker were frozen: two drive one saga
        services.sweep_sagas()

    return {
        "part": lambda: capture(False),
        "capture": lambda: capture(True),
        "cancel": lambda: services.cancel_order(order, reason="requested", actor=ACTOR),
        "refund": lambda: services.refund_order(
            order, amount=rng.randint(1, 2000), reason="requested", actor=ACTOR
        ),
        "tell": tell,
        "ask": ask,
        "sweep": sweep,
    }


@pytest.mark.parametrize("number", range(ROUNDS))
def test_twenty_hands_leave_right_totals(wired: WiredShop, number: int) -> None:
    order = wired.place(Money(TOTAL, "EUR"), capture="manual")
    services.resume_order(order)
    for operation in ("capture", "refund"):
        wired.break_calls(operation, LOST[number % len(LOST)], times=2)
    barrier = Barrier(THREADS)
    said: Counter[str] = Counter()

    def work(index: int) -> None:
        rng = Random(number * THREADS + index)
        hands = make_hands(wired, order, rng)
        barrier.wait()
        for name in rng.choices(list(hands), k=TURNS):
            try:
                hands[name]()
            except PaymentError as error:  # a refusal; anything else fails the test
                said[error.code] += 1
            else:
                said["done"] += 1

    run_in_threads(work, THREADS)
    wired.repair()
    wired.come_to_rest(order)
    for event in wired.events():
        for fact in wired.read(event):
            services.apply_gateway_fact(wired.account, fact)
    wired.come_to_rest(order)

    payment = Payment.objects.get(order=order)
    assert 0 <= payment.refunded <= payment.captured <= payment.authorized <= TOTAL
    wired.judge(order)
    print(f"\nround {number}: {THREADS} threads, {THREADS * TURNS} calls {dict(said)}, books equal")
