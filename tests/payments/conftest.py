"""A floor with a scripted gateway and a scripted screener."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from payments import screening, services
from payments.events import CATALOGUE
from payments.models import ApiClient, Event, GatewayAccount, Order
from payments.models.event import EventQuerySet
from payments.money import Money
from payments.sagas import checkout, effects
from tests.factories.payments import ApiClientFactory, GatewayAccountFactory
from tests.fakes import FakeGateway, ScriptedScreener


@pytest.fixture(autouse=True)
def told_types(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """The types of the public events that the test's services record: each fits its schema, with nothing beside."""
    seen: set[str] = set()
    misfits: list[str] = []
    record = EventQuerySet.record

    def record_and_check(self: EventQuerySet, order: Order, event_type: str, **kwargs: Any) -> Event:
        event = record(self, order, event_type, **kwargs)
        if event.is_public and event.data:  # a test's own event may have none
            seen.add(event_type)
            misfits.extend(find_misfits(event))
        return event

    monkeypatch.setattr(EventQuerySet, "record", record_and_check)
    yield seen
    assert misfits == []


def find_misfits(event: Event) -> list[str]:
    stored = json.loads(json.dumps(event.data, default=str))
    message = {
        "type": event.type,
        "timestamp": event.created_at.isoformat(),
        "data": {**stored, "sequence": event.sequence},
    }
    return [f"{event.type}: {error.message}" for error in make_validator(event.type).iter_errors(message)]


@cache
def make_validator(event_type: str) -> Draft202012Validator:
    schema = close(CATALOGUE[event_type].schema)
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def close(schema: Any) -> Any:
    """The schema with every object closed: what we tell must be written down."""
    if isinstance(schema, list):
        return [close(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: close(part) for name, part in schema.items()}
    return closed | ({"additionalProperties": False} if "properties" in schema else {})


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
