"""Fixtures of the gateway tests: a running sandbox, and asserts of the contract that explain themselves."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
import stamina
from django.conf import settings
from redis import Redis

from payments.sandbox import Sandbox, start

for part in ("contract", "contract_shop", "contract_disputes"):
    pytest.register_assert_rewrite(f"tests.payments.gateways.{part}")


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """One sandbox for all tests: each has its own operations, so they do not meet."""
    with start() as running:
        yield running


@pytest.fixture
def _no_backoff() -> Iterator[None]:
    """Retries happen, but at once."""
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


@pytest.fixture
def redis_prefix() -> Iterator[str]:
    """Begins the names of a test's keys in Redis; they are gone afterwards."""
    prefix = f"test-{uuid4()}"
    yield prefix
    forget(f"{prefix}*")


@pytest.fixture
def name() -> Iterator[str]:
    """A gateway account that nobody else uses."""
    name = f"stripe/{uuid4()}"
    yield name
    forget(f"gateway-breaker:{name}*", f"LIMITS*{name}*")


def forget(*patterns: str) -> None:
    if not settings.REDIS_URL:
        return
    client = Redis.from_url(settings.REDIS_URL)
    for pattern in patterns:
        for key in client.scan_iter(pattern, count=1000):
            client.delete(key)
