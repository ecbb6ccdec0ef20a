"""Story 4: an order with a blocklisted e-mail never reaches the gateway."""

from __future__ import annotations

import pytest

from tests.journeys.shop import Shop

pytestmark = pytest.mark.journey

LIST = "from fraud.lists import add_to_list; add_to_list('block', 'email', %r, reason='chargebacks')"


def test_a_blocklisted_email_never_reaches_the_gateway(shop: Shop) -> None:
    shop.manage("shell", "-c", LIST % "Mallory@Example.com")
    refused = shop.place(reference="story-4", customer={"id": "cus_m", "email": "mallory@example.com"})
    assert (refused.status_code, refused.json()["code"]) == (403, "fraud_blocked"), refused.text
    order = shop.get("orders?reference=story-4")["results"][0]
    assert (order["state"], order["payment"]["authorized"]) == ("blocked", 0)
    assert shop.intents(order["id"]) == []
