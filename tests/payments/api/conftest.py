"""Two storefronts with keys of their own, and an order for them to place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from payments.api import throttling
from tests.factories import ApiKeyFactory
from tests.storefront import ORDER, Storefront


@pytest.fixture
def make_order() -> Callable[..., dict[str, Any]]:
    """The order of the documentation, with members replaced; None removes one."""

    def make(**members: Any) -> dict[str, Any]:
        return {name: value for name, value in (ORDER | members).items() if value is not None}

    return make


@pytest.fixture(autouse=True)
def no_throttle_memory(settings: Any) -> None:
    """All tests call from one address, whose calls Redis counts."""
    settings.TOKEN_RATE_LIMIT = "100000/minute"
    throttling._counters.cache_clear()


@pytest.fixture
def shop(db: None) -> Storefront:
    return Storefront(ApiKeyFactory.create())


@pytest.fixture
def other_shop(db: None) -> Storefront:
    return Storefront(ApiKeyFactory.create())
