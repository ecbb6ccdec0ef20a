"""Story 2: the same key again gives the same bytes, and no second charge."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from tests.journeys.shop import Shop

pytestmark = pytest.mark.journey


def test_the_same_key_gives_the_same_bytes_and_no_second_charge(shop: Shop) -> None:
    request: dict[str, Any] = {
        "key": secrets.token_hex(16),
        "reference": "story-2",
        "payment_method": "pm_card_de_story2",
        "customer": {"id": "cus_2", "email": "story2@example.com"},
    }
    first, again = shop.place(**request), shop.place(**request)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    intent = shop.intent(first.json()["id"])
    assert (intent["charges"], intent["captures"]) == (1, 1)


def test_the_same_key_with_another_amount_is_refused(shop: Shop) -> None:
    key = secrets.token_hex(16)
    shop.place(key=key, reference="story-2-other")
    refused = shop.place(key=key, reference="story-2-other", amount=1, lines=[])
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
