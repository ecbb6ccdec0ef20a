"""Story 10: kill -9 of the web process between the authorization and its outcome."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import requests

from tests.journeys.shop import Shop, free_url
from tests.journeys.waiting import wait_until

pytestmark = [pytest.mark.journey, pytest.mark.faults]


def test_a_killed_web_process_charges_once_and_gives_the_same_answer(shop: Shop) -> None:
    request: dict[str, Any] = {
        "key": secrets.token_hex(16),
        "reference": "story-10",
        "payment_method": "tok_timeout_after_story10",  # authorizes, and keeps the answer to itself
        "customer": {"id": "cus_10", "email": "story10@example.com"},
    }
    url = free_url()
    shop.start_web("mortal web", url=url, SAGA_LEASE_SECONDS="2")
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(place_and_lose, shop, request, url)
        wait_until(lambda: find_charges(shop) == 1)
        shop.kill("mortal web")
        assert lost.result() is None

    first = wait_until(lambda: answered(shop, request))
    again = shop.place(**request)
    assert again.content == first.content
    assert again.headers["Idempotent-Replayed"] == "true"
    order = shop.await_state(first.json()["id"], "paid")
    intent = shop.intent(order["id"])
    assert (intent["charges"], intent["captures"], intent["captured"]) == (1, 1, 12950)
    shop.assert_books_hold()


def place_and_lose(shop: Shop, request: dict[str, Any], url: str) -> requests.Response | None:
    with suppress(requests.ConnectionError):
        return shop.place(**request, url=url)
    return None


def find_charges(shop: Shop) -> int:
    ids = shop.sql("SELECT id FROM payments_order WHERE reference = 'story-10'")
    return sum(intent["charges"] for (order_id,) in ids for intent in shop.intents(order_id))


def answered(shop: Shop, request: dict[str, Any]) -> requests.Response | None:
    """The answer to the same key, once the first request no longer counts as running and all is decided."""
    response = shop.place(**request)
    assert response.status_code in (201, 202, 409), response.text
    return response if response.status_code == 201 else None
