"""What the tests of webhooks share: an account with a secret, signed deliveries, a bell that only counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import Client

from payments.models import GatewayAccount
from tests.factories.payments import GatewayAccountFactory, GatewaySecretFactory
from tests.factories.webhooks import SECRET, sign
from webhooks import accounts, tasks

Deliver = Callable[..., Any]


@pytest.fixture(autouse=True)
def rings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No test has a worker; who wants to know whether it would be woken counts the rings."""
    heard: list[str] = []
    monkeypatch.setattr(tasks.inbound_bell, "ring", lambda: heard.append("inbound"))
    monkeypatch.setattr(tasks.outbound_bell, "ring", lambda: heard.append("outbound"))
    return heard


@pytest.fixture(autouse=True)
def _private_addresses(settings: Any) -> None:
    """The storefronts of the tests live on this machine."""
    settings.WEBHOOK_ALLOW_PRIVATE = True


@pytest.fixture(autouse=True)
def _patience(settings: Any) -> None:
    """All tests forge from one address; who wants to be told to wait says so."""
    settings.WEBHOOK_FORGERY_LIMIT = "1000000/minute"


@pytest.fixture(autouse=True)
def _fresh_receivers() -> Iterator[None]:
    accounts.forget_receivers()
    yield
    accounts.forget_receivers()


@pytest.fixture
def account(db: None) -> GatewayAccount:
    account: GatewayAccount = GatewayAccountFactory(name="main")
    GatewaySecretFactory(account=account, value=SECRET)
    return account


@pytest.fixture
def deliver(client: Client) -> Deliver:
    """POSTs a body to the account `main`, correctly signed unless told otherwise."""

    def post(body: bytes, *, signature: str | None = None, address: str = "/webhooks/stripe/main/") -> Any:
        header = sign(body) if signature is None else signature
        return client.post(
            address, data=body, content_type="application/json", headers={"Stripe-Signature": header}
        )

    return post
