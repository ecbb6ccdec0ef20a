"""Story 5: a gateway's webhook is accepted once; duplicates are acknowledged, forgeries and old ones refused."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

import pytest
import requests

from tests.journeys.shop import WEBHOOK_PATH, Shop
from tests.journeys.waiting import wait_until

pytestmark = pytest.mark.journey


def sign(body: bytes, secret: str, *, at: float | None = None) -> str:
    """Stripe's header: HMAC-SHA256 over `timestamp.body`."""
    moment = int(time.time() if at is None else at)
    digest = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={digest}"


def deliver(shop: Shop, body: bytes, signature: str) -> requests.Response:
    headers = {"Content-Type": "application/json", "Stripe-Signature": signature}
    return requests.post(shop.url + WEBHOOK_PATH, data=body, headers=headers, timeout=60)


def find_event(shop: Shop, order_id: str, kind: str) -> dict[str, Any]:
    """An event that the gateway has made about an order."""
    for event in shop.call_gateway(f"events?type={kind}&limit=100", method="GET")["data"]:
        if event["data"]["object"].get("metadata", {}).get("order_id") == order_id:
            return dict(event)
    raise AssertionError(f"no {kind} of {order_id}")


def test_a_webhook_is_accepted_once_and_forgeries_are_refused(shop: Shop) -> None:
    order = shop.pay(reference="story-5")
    event = find_event(shop, order["id"], "payment_intent.succeeded") | {"id": "evt_story5"}
    body = json.dumps(event).encode()

    accepted = deliver(shop, body, sign(body, shop.webhook_secret))
    duplicate = deliver(shop, body, sign(body, shop.webhook_secret))
    tampered = deliver(shop, body.replace(b"12950", b"99950"), sign(body, shop.webhook_secret))
    forged = deliver(shop, body, sign(body, "whsec_of_somebody_else"))
    stale = deliver(shop, body, sign(body, shop.webhook_secret, at=time.time() - 3600))

    assert [answer.status_code for answer in (accepted, duplicate, tampered, forged, stale)] == [
        200,
        200,
        400,
        400,
        400,
    ]
    assert tampered.json()["code"] == "webhook_signature"
    assert stale.json()["code"] == "webhook_replay"
    wait_until(lambda: read_archive(shop)[0][0] == "processed", what=lambda: read_archive(shop))
    assert read_archive(shop) == [("processed", 1)]
    assert shop.get(f"orders/{order['id']}") == order


def read_archive(shop: Shop) -> list[tuple[Any, ...]]:
    return shop.sql("SELECT state, duplicates FROM webhooks_inboundwebhook WHERE event_id = 'evt_story5'")
