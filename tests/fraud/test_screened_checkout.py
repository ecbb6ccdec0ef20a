"""The rules inside the checkout: what is blocked never reaches the gateway, what is decided moves the money."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError
from django.utils import timezone
from pytest_django import Settings

from fraud import lists, services
from fraud.models import Assessment, ReasonCode, Review, ReviewState
from payments.models import ApiClient, GatewayAccount, Order, Payment
from payments.money import Money
from payments.sagas import effects
from payments.services import OrderDraft, cancel_order, place_order
from tests.factories.payments import ApiClientFactory, GatewayAccountFactory
from tests.fakes import FakeGateway

pytestmark = pytest.mark.django_db

Place = Callable[..., Order]


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> FakeGateway:
    fake = FakeGateway()
    monkeypatch.setattr(effects, "get_gateway", lambda account: fake)
    return fake


@pytest.fixture
def place(gateway: FakeGateway, settings: Settings) -> Place:
    """Place an order of 129.50 EUR with the default rules; keyword arguments change the draft."""
    settings.REDIS_URL = ""
    GatewayAccount.objects.update(is_active=False)
    GatewayAccountFactory()
    client: ApiClient = ApiClientFactory()

    def place_one(**changes: Any) -> Order:
        draft = {
            "reference": f"web-{Order.objects.count()}",
            "amount": Money(12950, "EUR"),
            "payment_method": "pm_card_visa",
            "customer_email": "buyer@example.com",
            "billing": {"country": "DE"},
            "shipping": {"country": "DE"},
            **changes,
        }
        return place_order(client, OrderDraft(**draft))

    return place_one


def test_an_ordinary_order_is_screened_twice_and_paid(place: Place) -> None:
    order = place()
    assert order.state == "paid"
    assert list(Assessment.objects.order_by("id").values_list("stage", "decision")) == [
        ("before", "approve"),
        ("after", "approve"),
    ]


def test_a_blocklisted_email_never_reaches_the_gateway(place: Place, gateway: FakeGateway) -> None:
    lists.add_to_list("block", "email", "buyer@example.com", reason="fraud")
    order = place()
    assert order.state == "blocked"
    assert gateway.calls == []
    assert Assessment.objects.get().decision == "block"


def test_an_approved_review_is_captured(
    place: Place, gateway: FakeGateway, django_capture_on_commit_callbacks: Any
) -> None:
    order = place(amount=Money(150_000, "EUR"))
    assert (order.state, gateway.captured) == ("review", {})
    review = Review.objects.get()
    with django_capture_on_commit_callbacks(execute=True):
        services.approve_review(review.pk, actor="user:ana")
    order.refresh_from_db()
    review.refresh_from_db()
    assert (order.state, gateway.money_kept(), review.state) == ("paid", 150_000, "approved")


def test_a_rejected_review_is_voided(
    place: Place, gateway: FakeGateway, django_capture_on_commit_callbacks: Any
) -> None:
    order = place(amount=Money(150_000, "EUR"))
    review = Review.objects.get()
    with django_capture_on_commit_callbacks(execute=True):
        services.reject_review(review.pk, actor="user:ana", reason_code=ReasonCode.STOLEN_CARD)
    review.refresh_from_db()
    assert len(gateway.voided) == 1
    assert (Payment.objects.get(order=order).state, review.state) == ("canceled", "rejected")


def test_a_review_that_nobody_takes_is_voided_in_time(
    place: Place, gateway: FakeGateway, django_capture_on_commit_callbacks: Any
) -> None:
    place(amount=Money(150_000, "EUR"))
    with django_capture_on_commit_callbacks(execute=True):
        assert services.expire_reviews(now=timezone.now() + timedelta(days=30)) == 1
    assert len(gateway.voided) == 1
    assert Review.objects.get().state == ReviewState.EXPIRED


def test_a_canceled_order_leaves_the_queue(place: Place, django_capture_on_commit_callbacks: Any) -> None:
    order = place(amount=Money(150_000, "EUR"))
    with django_capture_on_commit_callbacks(execute=True):
        cancel_order(order, reason="requested_by_customer", actor="api:shop")
    assert Review.objects.get().state == ReviewState.CLOSED


def test_a_screening_that_fails_holds_the_order_for_a_person(
    place: Place, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise DatabaseError("the lists cannot be read")

    monkeypatch.setattr("fraud.gathering.find_matches", fail)
    order = place()
    assert (order.state, gateway.captured) == ("review", {})
    assert Review.objects.get().is_open
