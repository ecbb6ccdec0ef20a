"""What becomes of a review that nobody decided: the policy, and the authorization's end above it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.checks import run_checks
from django.utils import timezone

from fraud import policy, services
from fraud.models import Review, ReviewState
from payments.models import SagaSignal
from payments.money import Money
from tests.factories.fraud import ReviewFactory

pytestmark = pytest.mark.django_db
NOW = timezone.now
SECOND = timedelta(seconds=1)


def decision(review: Review) -> Any:
    return SagaSignal.objects.get(run__order=review.order, name="review").payload


def state(review: Review) -> tuple[str, str]:
    review.refresh_from_db()
    return review.state, review.decided_by


def test_it_is_rejected_by_default() -> None:
    late = ReviewFactory(expires_at=NOW() - SECOND)
    ReviewFactory()
    assert services.expire_reviews() == 1
    assert state(late) == (ReviewState.EXPIRED, "system")
    assert decision(late) == {"decision": "reject", "actor": "system", "reason": "review_expired"}
    assert late.events.get().kind == "expired"


def test_whoever_holds_it_does_not_hold_up_the_clock(django_user_model: Any) -> None:
    late = ReviewFactory(expires_at=NOW() - SECOND, claimed_by=django_user_model.objects.create_user("ana"))
    Review.objects.update(claim_expires_at=NOW() + timedelta(minutes=5), escalated_at=NOW())
    assert services.expire_reviews() == 1
    assert state(late)[0] == ReviewState.EXPIRED


class TestApproving:
    @pytest.fixture(autouse=True)
    def _policy(self, settings: Any) -> None:
        settings.REVIEW_AT_EXPIRY = "approve"
        settings.REVIEW_APPROVE_BELOW = {"default": "200"}

    def test_a_small_order_goes_on_before_its_saga_gives_up(self) -> None:
        near = ReviewFactory(expires_at=NOW() + policy.APPROVAL_LEAD - SECOND)
        assert services.expire_reviews() == 1
        assert state(near) == (ReviewState.APPROVED, "system")
        assert decision(near) == {"decision": "approve", "actor": "system"}

    def test_a_larger_one_is_rejected_and_not_too_early(self) -> None:
        dear = ReviewFactory(
            expires_at=NOW() + policy.APPROVAL_LEAD - SECOND, assessment__payment__order__amount=20_000
        )
        assert services.expire_reviews() == 0
        assert services.expire_reviews(now=NOW() + policy.APPROVAL_LEAD) == 1
        assert state(dear)[0] == ReviewState.EXPIRED

    def test_the_end_of_the_authorization_wins(self) -> None:
        gone = ReviewFactory(
            expires_at=NOW() - SECOND, assessment__payment__authorization_expires_at=NOW() - SECOND
        )
        assert services.expire_reviews() == 1
        assert state(gone)[0] == ReviewState.EXPIRED

    @pytest.mark.parametrize("change", [{"escalated_at": NOW()}, {"assessment": None}, {}])
    def test_the_clock_does_not_stand_for_a_person(self, settings: Any, change: dict[str, Any]) -> None:
        """Escalated, never screened, or of an amount that takes two."""
        settings.REVIEW_FOUR_EYES = {} if change else {"default": "100"}
        late = ReviewFactory(expires_at=NOW() - SECOND)
        Review.objects.filter(pk=late.pk).update(**change)
        assert services.expire_reviews() == 1
        assert state(late)[0] == ReviewState.EXPIRED

    def test_a_currency_without_a_limit_is_never_approved(self, settings: Any) -> None:
        settings.REVIEW_APPROVE_BELOW = {"JPY": "200"}
        late = ReviewFactory(expires_at=NOW() - SECOND)
        assert services.expire_reviews() == 1
        assert state(late)[0] == ReviewState.EXPIRED


def test_it_is_escalated_once_and_then_rejected(settings: Any, django_user_model: Any) -> None:
    settings.REVIEW_AT_EXPIRY = "escalate"
    near, far = ReviewFactory(expires_at=NOW() + policy.ESCALATION_LEAD - SECOND), ReviewFactory()
    in_hands = ReviewFactory(expires_at=near.expires_at)
    services.claim_review(django_user_model.objects.create_user("ana"), in_hands.pk)
    assert (services.expire_reviews(), services.expire_reviews()) == (0, 0)
    assert list(Review.objects.filter(escalated_at__isnull=False)) == [near]
    assert near.events.get().actor == "system"
    assert services.expire_reviews(now=NOW() + policy.ESCALATION_LEAD) == 2
    assert state(near)[0] == ReviewState.EXPIRED
    assert state(far)[0] == ReviewState.OPEN


@pytest.mark.parametrize(
    ("limits", "currency", "minor"),
    [
        ({"default": "50", "JPY": "7500"}, "EUR", 5000),
        ({"default": "50", "JPY": "7500"}, "JPY", 7500),
        ({"default": "50.5"}, "KWD", 50500),
        ({"EUR": "50"}, "USD", None),
        ({}, "EUR", None),
    ],
)
def test_a_limit_is_of_the_currency_or_the_default(
    limits: dict[str, str], currency: str, minor: int | None
) -> None:
    assert policy.find_limit(limits, currency) == (Money(minor, currency) if minor is not None else None)


@pytest.mark.parametrize(
    ("setting", "value", "found"),
    [
        ("REVIEW_AT_EXPIRY", "aprove", "fraud.E003"),
        ("REVIEW_FOUR_EYES", {"EUR": "much"}, "fraud.E004"),
        ("REVIEW_APPROVE_BELOW", {"EURO": "50"}, "fraud.E004"),
        ("REVIEW_APPROVE_BELOW", {"default": "NaN"}, "fraud.E004"),
    ],
)
def test_a_policy_that_cannot_be_read_is_found_at_the_start(
    settings: Any, setting: str, value: Any, found: str
) -> None:
    setattr(settings, setting, value)
    assert [message.id for message in run_checks() if message.id and message.id.startswith("fraud.")] == [
        found
    ]
