"""Claiming and deciding: whose case it is, what leaves the queue, who decides, and the saga hears of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.utils import timezone

from fraud import services
from fraud.lists import add_to_list
from fraud.models import LEASE_MINUTES, ListEntry, ReasonCode, Review, ReviewEvent, ReviewState
from fraud.services import Outcome
from payments.errors import ConflictError, InvalidRequestError
from payments.models import Event, OrderState, SagaSignal
from tests.factories.fraud import ReviewFactory

pytestmark = pytest.mark.django_db


SUPERVISOR = ("claim_review", "decide_review", "decide_escalated_review", "confirm_review")


def make_user(name: str = "ana", *rights: str) -> User:
    user = User.objects.create_user(name)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="fraud", codename__in=rights))
    return user


def tell_events(review: Review) -> list[tuple[str, str, str]]:
    return list(review.events.order_by("id").values_list("kind", "actor", "note"))


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


def test_a_value_of_the_case_goes_on_a_list() -> None:
    review = ReviewFactory()
    services.list_case(review, "block", ["email"], reason="fraud", actor="user:ana")
    assert ListEntry.objects.get().value_masked == "b***@example.com"
    with pytest.raises(InvalidRequestError, match="no card"):
        services.list_case(review, "block", ["card"], reason="fraud", actor="user:ana")


class TestHolding:
    def test_a_heartbeat_extends_the_claim_of_its_holder_alone(self) -> None:
        ana, ben = make_user(), make_user("ben")
        review = ReviewFactory()
        assert not services.heartbeat(review.pk, ana), "nobody claimed it"
        services.claim_review(ana, review.pk)
        soon = timezone.now() + timedelta(minutes=1)
        Review.objects.update(claim_expires_at=soon)
        assert not services.heartbeat(review.pk, ben)
        assert services.heartbeat(review.pk, ana)
        review.refresh_from_db()
        assert review.claim_expires_at > soon + timedelta(minutes=LEASE_MINUTES - 2)
        Review.objects.update(claim_expires_at=timezone.now() - timedelta(seconds=1))
        services.claim_review(ben, review.pk)
        assert not services.heartbeat(review.pk, ana)

    def test_what_somebody_holds_nobody_else_decides(self) -> None:
        review = ReviewFactory()
        services.claim_review(make_user(), review.pk)
        deeds: list[Any] = [
            lambda actor: services.approve_review(review.pk, actor=actor),
            lambda actor: services.reject_review(review.pk, actor=actor, reason_code="stolen_card"),
            lambda actor: services.escalate_review(review.pk, actor=actor, note="look"),
            lambda actor: services.snooze_review(review.pk, until=hours(2), actor=actor),
            lambda actor: services.hand_over(review.pk, to=make_user("cleo"), actor=actor),
        ]
        for deed in deeds:
            with pytest.raises(ConflictError, match="held by ana now"):
                deed("user:ben")
        assert not ReviewEvent.objects.exists()
        assert services.approve_review(review.pk, actor="user:ana").state == ReviewState.APPROVED

    def test_a_lapsed_claim_holds_nobody_off(self) -> None:
        review = ReviewFactory()
        services.claim_review(make_user(), review.pk)
        Review.objects.update(claim_expires_at=timezone.now() - timedelta(seconds=1))
        assert not services.approve_review(review.pk, actor="user:ben").is_open

    def test_a_case_is_handed_over_to_who_may_have_it(self) -> None:
        ana, ben = make_user("ana", *SUPERVISOR), make_user("ben", "claim_review")
        review = ReviewFactory()
        services.claim_review(ana, review.pk)
        gone = make_user("gone", "claim_review")
        gone.is_active = False
        gone.save()
        for receiver, words in (
            (make_user("guest"), "may not claim"),
            (gone, "may not claim"),
            (ana, "else"),
        ):
            with pytest.raises(InvalidRequestError, match=words):
                services.hand_over(review.pk, to=receiver, actor="user:ana")
        given = services.hand_over(review.pk, to=ben, actor="user:ana", note="speaks Danish")
        assert given.holder() == ben
        assert tell_events(review) == [("handed_over", "user:ana", "to ben: speaks Danish")]
        services.heartbeat(review.pk, ben)
        review.refresh_from_db()
        assert review.claim_expires_at > timezone.now() + timedelta(minutes=50), "a heartbeat never shortens"

    def test_an_escalated_case_goes_to_supervisors_only(self) -> None:
        ana, eva = make_user("ana", *SUPERVISOR[:2]), make_user("eva", *SUPERVISOR)
        review = ReviewFactory()
        with pytest.raises(InvalidRequestError, match="needs a note"):
            services.escalate_review(review.pk, actor="user:ana", note=" ")
        services.claim_review(ana, review.pk)
        services.escalate_review(review.pk, actor="user:ana", note="the buyer is a minister")
        with pytest.raises(ConflictError, match="a supervisor decides"):
            services.escalate_review(review.pk, actor="user:ana", note="again")
        assert services.claim_review(ana) is None
        with pytest.raises(ConflictError, match="only a supervisor can claim"):
            services.claim_review(ana, review.pk)
        with pytest.raises(ConflictError, match="a supervisor decides"):
            services.approve_review(review.pk, actor="user:ana")
        assert services.claim_review(eva) == review
        with pytest.raises(InvalidRequestError, match="may not decide this case"):
            services.hand_over(review.pk, to=ana, actor="user:eva")
        assert not services.approve_review(review.pk, actor="user:eva").is_open
        assert [kind for kind, *_ in tell_events(review)] == ["escalated", "approved"]


def hours(count: float) -> Any:
    return timezone.now() + timedelta(hours=count)


class TestSnooze:
    def test_it_leaves_the_queue_until_then(self) -> None:
        ana = make_user()
        review = ReviewFactory()
        services.claim_review(ana)
        services.snooze_review(review.pk, until=hours(4), actor="user:ana", note="calls back")
        assert services.claim_review(ana) is None
        assert list(Review.objects.asleep()) == [review]
        Review.objects.update(snoozed_until=hours(-1))
        assert not Review.objects.asleep().exists()
        assert services.claim_review(ana) == review

    def test_an_event_of_the_order_ends_it(self) -> None:
        review = ReviewFactory()
        services.snooze_review(review.pk, until=hours(4), actor="user:ana")
        review.refresh_from_db()
        assert review.is_asleep
        Event.objects.record(review.order, "order.note", data={})
        review.refresh_from_db()
        assert not review.is_asleep
        assert list(Review.objects.awake()) == [review]

    def test_who_asks_for_it_by_name_ends_it(self) -> None:
        review = ReviewFactory()
        services.snooze_review(review.pk, until=hours(4), actor="user:ana")
        claimed = services.claim_review(make_user(), review.pk)
        assert claimed is not None
        assert not claimed.is_asleep

    @pytest.mark.parametrize(
        ("span", "words"), [(-1, "is past"), (0, "is past"), (23.5, "at most"), (30, "at most")]
    )
    def test_only_for_a_time_that_leaves_some_to_decide(self, span: float, words: str) -> None:
        with pytest.raises(InvalidRequestError, match=words):
            services.snooze_review(ReviewFactory().pk, until=hours(span), actor="user:ana")


class TestFourEyes:
    @pytest.fixture(autouse=True)
    def _limit(self, settings: Any) -> None:
        settings.REVIEW_FOUR_EYES = {"default": "100"}

    @pytest.fixture
    def proposed(self) -> Review:
        review: Review = ReviewFactory()
        make_user("ana", *SUPERVISOR)
        return services.approve_review(review.pk, actor="user:ana", reason_code="verified", note="called her")

    def test_an_approval_is_a_proposal_at_first(self, proposed: Review) -> None:
        assert (proposed.is_open, proposed.proposed_by, proposed.reason_code) == (
            True,
            "user:ana",
            "verified",
        )
        assert not SagaSignal.objects.exists()
        with pytest.raises(ConflictError, match="ana proposed to approve"):
            services.approve_review(proposed.pk, actor="user:ben")

    def test_another_person_confirms_it(self, proposed: Review) -> None:
        with pytest.raises(ConflictError, match="a second person must"):
            services.confirm_review(proposed.pk, actor="user:ana")
        make_user("ben", *SUPERVISOR[:2])
        with pytest.raises(ConflictError, match="You may not confirm"):
            services.confirm_review(proposed.pk, actor="user:ben")
        eva = make_user("eva", *SUPERVISOR)
        assert services.claim_review(eva) == proposed
        done = services.confirm_review(proposed.pk, actor="user:eva")
        assert (done.state, done.decided_by, done.note) == (ReviewState.APPROVED, "user:eva", "called her")
        assert payload(proposed) == {"decision": "approve", "actor": "user:eva"}
        assert [kind for kind, *_ in tell_events(proposed)] == ["proposed", "confirmed", "approved"]

    def test_it_is_nobodys_case_but_the_seconds(self, proposed: Review) -> None:
        assert services.claim_review(User.objects.get(username="ana")) is None
        assert services.claim_review(make_user("ben", *SUPERVISOR[:2])) is None

    def test_it_can_be_returned_and_proposed_anew(self, proposed: Review) -> None:
        make_user("eva", *SUPERVISOR)
        with pytest.raises(InvalidRequestError, match="needs a note"):
            services.return_proposal(proposed.pk, actor="user:eva", note="")
        back = services.return_proposal(proposed.pk, actor="user:eva", note="which number?")
        assert (back.proposed_by, back.reason_code, back.note) == ("", "", "")
        assert services.approve_review(proposed.pk, actor="user:eva").proposed_by == "user:eva"
        with pytest.raises(ConflictError, match="Nobody has proposed"):
            services.confirm_review(ReviewFactory().pk, actor="user:ana")

    def test_rejecting_takes_one(self, proposed: Review) -> None:
        assert not services.reject_review(proposed.pk, actor="user:ben", reason_code="stolen_card").is_open

    def test_the_database_refuses_one_person_twice(self, proposed: Review) -> None:
        decided = {"state": "approved", "decided_by": "user:ana", "decided_at": timezone.now()}
        with pytest.raises(IntegrityError, match="fraud_review_two_people"), transaction.atomic():
            Review.objects.filter(pk=proposed.pk).update(**decided)
        Review.objects.filter(pk=proposed.pk).update(**decided | {"decided_by": "user:eva"})

    def test_below_the_limit_one_is_enough(self, settings: Any) -> None:
        settings.REVIEW_FOUR_EYES = {"default": "100", "EUR": "129.51", "USD": "129.51"}
        assert not services.approve_review(ReviewFactory().pk, actor="user:ana").is_open


class TestMany:
    def test_each_row_has_its_own_end(self, settings: Any, django_capture_on_commit_callbacks: Any) -> None:
        settings.REVIEW_FOUR_EYES = {"default": "500"}
        good, held, done, escalated, moved = ReviewFactory.create_batch(5)
        dear = ReviewFactory(assessment__payment__order__amount=50_000)
        services.claim_review(make_user("ben"), held.pk)
        services.reject_review(done.pk, actor="user:ben", reason_code="stolen_card")
        services.escalate_review(escalated.pk, actor="user:ben", note="look")
        moved.order.move_to(OrderState.CANCELED)
        rows = [good, held, done, escalated, moved, dear]
        with django_capture_on_commit_callbacks() as driven:
            results = services.decide_many(
                [row.pk for row in rows] + ["rev_none", good.pk],
                decision="approve",
                actor="user:ana",
                reason_code="genuine",
            )
        lost, refused = Outcome.LOST, Outcome.REFUSED
        outcomes = [result.outcome for result in results]
        assert outcomes == [Outcome.DONE, lost, lost, lost, lost, refused, refused]
        words = [
            "captured",
            "held by ben",
            "rejected by ben",
            "a supervisor",
            "not in review",
            "two people",
            "no review",
        ]
        for result, word in zip(results, words, strict=True):
            assert word in result.message, result
        assert results[0].reference == good.order.reference
        assert driven == [], "no gateway is asked while somebody waits for the page"
        assert payload(good)["decision"] == "approve"

    def test_not_too_many_and_not_without_a_reason(self) -> None:
        common: Any = {"decision": "reject", "actor": "user:ana"}
        with pytest.raises(InvalidRequestError, match="101 reviews are more than 100"):
            services.decide_many([str(n) for n in range(101)], reason_code="stolen_card", **common)
        with pytest.raises(InvalidRequestError, match="does not fit"):
            services.decide_many([ReviewFactory().pk], reason_code="genuine", **common)


def test_a_history_is_never_changed() -> None:
    review = ReviewFactory()
    services.escalate_review(review.pk, actor="user:ana", note="look")
    for statement in ("UPDATE fraud_reviewevent SET note = ''", "DELETE FROM fraud_reviewevent"):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            connection.cursor().execute(statement)


def test_several_values_of_a_case_go_on_a_list_at_once() -> None:
    review = ReviewFactory()
    add_to_list("block", "email", review.order.customer_email, reason="fraud")
    review.order.customer_id = "cus_1"
    added = services.list_case(review, "block", ["email", "customer"], reason="fraud", actor="user:ana")
    assert [entry.kind for entry in added] == ["customer"], "the e-mail is there already"
    assert [kind for kind, *_ in tell_events(review)] == ["listed"]
