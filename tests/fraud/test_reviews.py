"""Claiming and deciding: no case twice, one winner, and the saga hears of it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from fraud import services
from fraud.models import LEASE_MINUTES, ListEntry, ReasonCode, Review, ReviewState
from payments.errors import ConflictError, InvalidRequestError
from payments.models import OrderState, SagaSignal
from tests.factories.fraud import ReviewFactory

pytestmark = pytest.mark.django_db


def make_user(name: str = "ana") -> User:
    return User.objects.create_user(name, password="a long password")


def payload(review: Review) -> Any:
    return SagaSignal.objects.get(run__order=review.order, name="review").payload


def test_approving_tells_the_saga_and_says_who() -> None:
    review = ReviewFactory()
    decided = services.approve_review(review.pk, actor="user:ana", note="called the customer")
    assert (decided.state, decided.decided_by) == (ReviewState.APPROVED, "user:ana")
    assert payload(review) == {"decision": "approve", "actor": "user:ana"}


def test_rejecting_tells_the_saga_the_reason() -> None:
    review = ReviewFactory()
    decided = services.reject_review(review.pk, actor="user:ana", reason_code=ReasonCode.STOLEN_CARD)
    assert (decided.state, decided.reason_code) == (ReviewState.REJECTED, "stolen_card")
    assert payload(review) == {"decision": "reject", "actor": "user:ana", "reason": "stolen_card"}


def test_the_second_decision_hears_who_was_faster() -> None:
    review = ReviewFactory()
    services.approve_review(review.pk, actor="user:ana")
    with pytest.raises(
        ConflictError, match=r"was approved by ana at \d{4}-.*It was not rejected; nothing was changed"
    ):
        services.reject_review(review.pk, actor="user:ben", reason_code=ReasonCode.CONFIRMED_FRAUD)
    assert payload(review)["decision"] == "approve"


def test_an_order_that_left_the_review_keeps_its_case_undecided() -> None:
    review = ReviewFactory(assessment__payment__order__state=OrderState.CANCELED)
    with pytest.raises(ConflictError, match="not in review"):
        services.approve_review(review.pk, actor="user:ana")
    review.refresh_from_db()
    assert review.is_open


@pytest.mark.parametrize(
    ("reason_code", "note", "words"),
    [("genuine", "", "does not fit"), ("nonsense", "", "does not fit"), ("other", "  ", "needs a note")],
)
def test_a_reason_must_fit(reason_code: str, note: str, words: str) -> None:
    review = ReviewFactory()
    with pytest.raises(InvalidRequestError, match=words):
        services.reject_review(review.pk, actor="user:ana", reason_code=reason_code, note=note)


def test_the_next_case_expires_first_then_scores_highest() -> None:
    soon = timezone.now() + timedelta(hours=1)
    later = ReviewFactory(score=99)
    low, high = ReviewFactory(expires_at=soon, score=10), ReviewFactory(expires_at=soon, score=90)
    names = [services.claim_review(make_user(name)) for name in ("ana", "ben", "cleo")]
    assert names == [high, low, later]
    assert services.claim_review(make_user("dan")) is None


def test_who_asks_again_keeps_the_own_case() -> None:
    ana = make_user()
    ReviewFactory.create_batch(2)
    assert services.claim_review(ana) == services.claim_review(ana)


def test_a_claim_holds_against_others_until_it_ends_or_is_released() -> None:
    ana, ben = make_user(), make_user("ben")
    review = ReviewFactory()
    services.claim_review(ana, review.pk)
    with pytest.raises(ConflictError, match="held by ana"):
        services.claim_review(ben, review.pk)
    assert not services.release_claim(review.pk, user=ben)
    assert services.release_claim(review.pk, user=ana)
    claimed = services.claim_review(ben, review.pk)
    assert claimed is not None
    assert claimed.claim_expires_at is not None
    Review.objects.update(claim_expires_at=timezone.now() - timedelta(minutes=LEASE_MINUTES))
    assert services.claim_review(ana, review.pk)


def test_what_nobody_decided_in_time_is_rejected() -> None:
    late = ReviewFactory(expires_at=timezone.now() - timedelta(seconds=1))
    ReviewFactory()
    assert services.expire_reviews() == 1
    late.refresh_from_db()
    assert (late.state, late.decided_by) == (ReviewState.EXPIRED, "system")
    assert payload(late) == {"decision": "reject", "actor": "system", "reason": "review_expired"}


def test_a_value_of_the_case_goes_on_a_list() -> None:
    review = ReviewFactory()
    services.add_case_to_list(review, "block", "email", reason="fraud", created_by="user:ana")
    assert ListEntry.objects.get().value_masked == "b***@example.com"
    with pytest.raises(InvalidRequestError, match="no card"):
        services.add_case_to_list(review, "block", "card", reason="fraud")


@pytest.mark.concurrency
@pytest.mark.django_db(transaction=True)
def test_of_two_opposite_clicks_exactly_one_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "payments.services.reviews.engine.drive_run", lambda *_, **__: None
    )  # no gateway here
    reviews = ReviewFactory.create_batch(60)
    line = threading.Barrier(2)

    def click(decision: str) -> list[bool]:
        try:
            return [decide(decision, review) for review in reviews]
        finally:
            connection.close()

    def decide(decision: str, review: Review) -> bool:
        line.wait()
        try:
            if decision == "approve":
                services.approve_review(review.pk, actor="user:ana")
            else:
                services.reject_review(review.pk, actor="user:ben", reason_code=ReasonCode.CONFIRMED_FRAUD)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        approved, rejected = pool.map(click, ["approve", "reject"])
    assert [one + other for one, other in zip(approved, rejected, strict=True)] == [1] * 60
    states = dict(Review.objects.values_list("pk", "state"))
    for review, was_approved in zip(reviews, approved, strict=True):
        assert states[review.pk] == ("approved" if was_approved else "rejected")
        assert payload(review)["decision"] == ("approve" if was_approved else "reject")


@pytest.mark.concurrency
@pytest.mark.django_db(transaction=True)
def test_no_case_is_given_to_two_analysts() -> None:
    ReviewFactory.create_batch(16)
    users = [make_user(f"analyst-{number}") for number in range(16)]
    line = threading.Barrier(16)

    def claim(user: User) -> Review | None:
        try:
            connection.ensure_connection()
            line.wait()
            return services.claim_review(user)
        finally:
            connection.close()

    with ThreadPoolExecutor(16) as pool:
        claimed = list(pool.map(claim, users))
    assert len({review.pk for review in claimed if review}) == 16
