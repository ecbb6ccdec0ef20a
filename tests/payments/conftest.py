"""A floor with a scripted gateway and a scripted screener."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from payments import screening, services
from payments.models import ApiClient, GatewayAccount, Order
from payments.money import Money
from payments.sagas import checkout, effects
from tests.factories.payments import ApiClientFactory, GatewayAccountFactory
from tests.fakes import FakeGateway, ScriptedScreener


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> FakeGateway:
    fake = FakeGateway()
    monkeypatch.setattr(effects, "get_gateway", lambda account: fake)
    return fake


@pytest.fixture
def screener(monkeypatch: pytest.MonkeyPatch) -> ScriptedScreener:
    fake = ScriptedScreener()
    monkeypatch.setattr(checkout, "get_screener", lambda: fake)
    monkeypatch.setattr(screening, "get_screener", lambda: fake)
    return fake


@pytest.fixture
def account(db: None) -> GatewayAccount:
    GatewayAccount.objects.update(is_active=False)
    return GatewayAccountFactory()


@pytest.fixture
def shop(db: None) -> ApiClient:
    return ApiClientFactory()


@pytest.fixture
def place(
    shop: ApiClient, account: GatewayAccount, gateway: FakeGateway, screener: ScriptedScreener
) -> Iterator[Callable[..., Order]]:
    """Place an order of 129.50 EUR; keyword arguments change the draft."""
    numbers = iter(range(1000))

    def place_order(**changes: object) -> Order:
        draft = {
            "reference": f"web-{next(numbers)}",
            "amount": Money(12950, "EUR"),
            "payment_method": "pm_card_visa",
            "shipping": {"country": "DE"},
            **changes,
        }
        return services.place_order(shop, services.OrderDraft(**draft))  # type: ignore[arg-type]

    return place_order
