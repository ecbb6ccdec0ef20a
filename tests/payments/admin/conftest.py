"""Logged-in people of each role, and a shop whose gateway is scripted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.test import Client

from payments import services
from payments.controls.roles import sync_roles
from payments.models import ApiClient, GatewayAccount, Order
from payments.money import Money
from payments.sagas import checkout, effects
from tests.factories.payments import ApiClientFactory, GatewayAccountFactory
from tests.fakes import FakeGateway, ScriptedScreener

Login = Callable[..., Client]


@pytest.fixture
def log_in(db: None) -> Login:
    """A client of a person with the role; `check_csrf` makes it as strict as a browser."""
    cache.clear()
    sync_roles()

    def make_client(role: str, *, check_csrf: bool = False) -> Client:
        name = role.lower().replace(" ", "_")
        user, _ = User.objects.get_or_create(username=name, defaults={"is_staff": True})
        user.groups.add(Group.objects.get(name=role))
        client = Client(enforce_csrf_checks=check_csrf)
        client.force_login(user)
        return client

    return make_client


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> FakeGateway:
    fake = FakeGateway()
    monkeypatch.setattr(effects, "get_gateway", lambda account: fake)
    return fake


@pytest.fixture
def shop(db: None) -> ApiClient:
    return ApiClientFactory()


@pytest.fixture
def account(db: None) -> GatewayAccount:
    GatewayAccount.objects.update(is_active=False)
    return GatewayAccountFactory()


@pytest.fixture
def place(
    shop: ApiClient, account: GatewayAccount, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Order]:
    """Place an order of 129.50 EUR; keyword arguments change the draft."""
    screener = ScriptedScreener()
    monkeypatch.setattr(checkout, "get_screener", lambda: screener)
    numbers = iter(range(1000))

    def place_order(**changes: object) -> Order:
        draft = {
            "reference": f"web-{next(numbers)}",
            "amount": Money(12950, "EUR"),
            "payment_method": "pm_card_visa",
            "customer_email": "Buyer@example.com",
            "shipping": {"country": "DE"},
            **changes,
        }
        return services.place_order(shop, services.OrderDraft(**draft))  # type: ignore[arg-type]

    return place_order


@pytest.fixture
def paid(place: Callable[..., Order]) -> Order:
    return place()


@pytest.fixture
def authorized(place: Callable[..., Order]) -> Order:
    return place(capture="manual")
