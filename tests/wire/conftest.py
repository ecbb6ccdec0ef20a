"""A sandbox for the session, and a shop that pays through it for each test."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from payments.gateways.stripe import StripeGateway
from payments.models import GatewayAccount
from payments.sagas import effects
from payments.sandbox import Sandbox, start
from tests.factories.payments import ApiClientFactory, GatewayAccountFactory
from tests.fakes import ScriptedScreener
from tests.payments.conftest import screener as screener
from tests.wire.shop import MortalGateway, WiredShop


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    with start() as running:
        yield running


@pytest.fixture
def wired(
    db: None, sandbox: Sandbox, screener: ScriptedScreener, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WiredShop]:
    """Without the resilience stack: its breaker would rightly stop asking a gateway that fails so often."""
    gateway = MortalGateway(sandbox, partial(StripeGateway, "sk_test_wire", api_base=sandbox.url))
    monkeypatch.setattr(effects, "get_gateway", lambda account: gateway)
    GatewayAccount.objects.update(is_active=False)
    shop = WiredShop(sandbox, gateway, GatewayAccountFactory(), ApiClientFactory())
    shop.control("DELETE", "/_data")
    yield shop
    shop.repair()
    shop.http.close()
