"""Fifty requests at once with one Idempotency-Key: one charge."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from tests.journeys.shop import Shop, run_together

pytestmark = pytest.mark.concurrency


def test_fifty_requests_with_one_key_charge_once(shop: Shop) -> None:
    request: dict[str, Any] = {
        "key": secrets.token_hex(16),
        "reference": "fifty",
        "payment_method": "pm_card_de_fifty",
        "customer": {"id": "cus_50", "email": "fifty@example.com"},
    }
    answers = run_together(50, lambda _: shop.place(**request))
    bodies = {answer.content for answer in answers if answer.status_code == 201}
    others = {(answer.status_code, answer.json()["code"]) for answer in answers if answer.status_code != 201}
    assert len(bodies) == 1
    assert others <= {(409, "idempotency_in_flight")}
    [(order_id,)] = shop.sql("SELECT id FROM payments_order WHERE reference = 'fifty'")
    intent = shop.intent(order_id)
    assert (intent["charges"], intent["captures"], intent["captured"]) == (1, 1, 12950)
    assert shop.place(**request).content in bodies
