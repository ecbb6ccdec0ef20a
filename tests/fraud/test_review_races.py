"""Many analysts at once: no case is given twice, and of two opposite decisions one wins and the other hears who."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from random import Random

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.utils import timezone

from fraud import services
from fraud.models import ReasonCode, Review
from payments.errors import ConflictError
from payments.models import Order, Payment, SagaSignal
from tests.factories.fraud import HeldPaymentFactory, ReviewFactory
from tests.factories.payments import OrderFactory

pytestmark = [pytest.mark.concurrency, pytest.mark.django_db(transaction=True)]
ANALYSTS, CASES, RACES = 16, 400, 60


@pytest.fixture(autouse=True)
def _no_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("payments.services.reviews.engine.drive_run", lambda *_, **__: None)


def make_cases(count: int) -> None:
    """Open cases that share one payment's account and shop, in three inserts; no saga stands behind them."""
    first = HeldPaymentFactory.create()
    orders = [OrderFactory.build(client=first.order.client, reference=f"race-{n}") for n in range(count)]
    payments = [HeldPaymentFactory.build(order=order, account=first.account) for order in orders]
    Order.objects.bulk_create(orders)
    Payment.objects.bulk_create(payments)
    end = timezone.now() + timedelta(days=1)
    Review.objects.bulk_create(
        Review(order=payment.order, payment=payment, amount=payment.amount, expires_at=end)
        for payment in payments
    )


def in_threads(work: Callable[[int], None], count: int) -> None:
    """Each on a connection of its own, all at once; what one raises, the test raises."""
    line = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            connection.ensure_connection()
            line.wait()
            work(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(run, range(count)))


def test_no_case_is_given_to_two_analysts() -> None:
    """16 take, keep alive, put back and decide 400 cases until none is left."""
    make_cases(CASES)
    users = [make_analyst(number) for number in range(ANALYSTS)]
    held: dict[str, set[int]] = defaultdict(set)
    taken: list[str] = []
    doubles: list[str] = []
    guard = threading.Lock()

    def take(number: int) -> Review | None:
        review = services.claim_review(users[number])
        if review is not None:
            with guard:
                held[review.pk].add(number)
                if len(held[review.pk]) > 1:
                    doubles.append(review.pk)
        return review

    def let_go(review: Review, number: int) -> None:
        with guard:
            held[review.pk].discard(number)

    def work(number: int) -> None:
        dice = Random(number)
        while (review := take(number)) is not None:
            if dice.random() < 0.3:
                assert services.heartbeat(review.pk, users[number])
            other = users[(number + 1) % ANALYSTS]
            if dice.random() < 0.3:
                assert not services.heartbeat(review.pk, other)
                assert not services.release_claim(review.pk, user=other)
            let_go(review, number)
            if dice.random() < 0.2:
                assert services.release_claim(review.pk, user=users[number])
                continue
            finish(review, users[number])
            with guard:
                taken.append(review.pk)

    in_threads(work, ANALYSTS)
    assert doubles == []
    assert len(taken) == len(set(taken)) == CASES


def make_analyst(number: int) -> User:
    user = User.objects.create_user(f"analyst-{number}")
    user.user_permissions.set(Permission.objects.filter(codename__in=["claim_review", "decide_review"]))
    return user


def finish(review: Review, user: User) -> None:
    """Out of the queue by a guarded change, without the saga behind it."""
    services.snooze_review(
        review.pk, until=timezone.now() + timedelta(hours=9), actor=f"user:{user.username}"
    )


def test_of_two_opposite_clicks_exactly_one_wins_and_the_other_hears_who() -> None:
    reviews = ReviewFactory.create_batch(RACES)
    line = threading.Barrier(2)
    told: list[list[str]] = [[], []]

    def click(number: int) -> None:
        for review in reviews:
            line.wait()
            told[number].append(decide(number, review))

    in_threads(click, 2)
    states = dict(Review.objects.values_list("pk", "state"))
    payloads = dict(SagaSignal.objects.values_list("run__order_id", "payload"))
    for review, approved, rejected in zip(reviews, *told, strict=True):
        assert (approved == "") != (rejected == ""), "one wins"
        state, winner = ("approved", "ana") if approved == "" else ("rejected", "ben")
        assert states[review.pk] == state
        assert payloads[review.order_id]["decision"] == {"approved": "approve", "rejected": "reject"}[state]
        assert f"was {state} by {winner} at" in approved + rejected


def decide(number: int, review: Review) -> str:
    """Empty for the winner, what the other was told else."""
    try:
        if number == 0:
            services.approve_review(review.pk, actor="user:ana")
        else:
            services.reject_review(review.pk, actor="user:ben", reason_code=ReasonCode.CONFIRMED_FRAUD)
    except ConflictError as error:
        return error.message
    return ""
