"""Two storefronts, and an endpoint of the first with what was sent there."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from tests.factories import ApiKeyFactory
from tests.factories.webhooks import DeliveryFactory, EndpointFactory
from tests.storefront import Storefront
from webhooks.models import Delivery, DeliveryState, Endpoint


@pytest.fixture
def shop(db: None) -> Storefront:
    return Storefront(ApiKeyFactory.create())


@pytest.fixture
def other_shop(db: None) -> Storefront:
    return Storefront(ApiKeyFactory.create())


@pytest.fixture
def endpoint(shop: Storefront) -> Endpoint:
    made: Endpoint = EndpointFactory.create(client=shop.client)
    return made


@pytest.fixture
def failed(endpoint: Endpoint) -> Delivery:
    """Gave up after a 500; its one try is on record."""
    made: Delivery = DeliveryFactory.create(
        endpoint=endpoint,
        state=DeliveryState.FAILED,
        attempts=10,
        next_try_at=None,
        last_status=500,
        last_error="answered 500",
    )
    made.tries.create(
        started_at=timezone.now(),
        duration_ms=12,
        status=500,
        headers={"webhook-id": made.message_id, "webhook-attempt": "1"},
        answer="out of order",
    )
    return made


def make_url(endpoint: Endpoint, rest: str = "") -> str:
    return f"webhook_endpoints/{endpoint.pk}{rest}"


def since_long_ago() -> dict[str, Any]:
    return {"since": "2026-01-01T00:00:00Z"}
