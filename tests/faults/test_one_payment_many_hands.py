"""Captures, cancellations, refunds and webhooks of one payment at once: right totals, and no deadlock for anybody."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable

import pytest
import requests

from tests.journeys.shop import Shop, run_together
from tests.journeys.test_05_webhook import deliver, sign
from tests.journeys.waiting import wait_until

pytestmark = pytest.mark.concurrency

THREADS = 20


@pytest.mark.parametrize("turn", range(3))
def test_twenty_hands_on_one_payment_leave_right_totals(shop: Shop, turn: int) -> None:
    order_id = shop.place(reference=f"hands-{turn}", capture="manual").json()["id"]
    reference = shop.get(f"orders/{order_id}")["payment"]["gateway_reference"]
    hands: list[Callable[[], requests.Response]] = [
        lambda: shop.post(f"orders/{order_id}/capture"),
        lambda: shop.post(f"orders/{order_id}/cancel"),
        lambda: shop.post(f"orders/{order_id}/refunds", {"amount": 1000}),
        lambda: repeat_webhook(shop, reference),
    ]
    answers = run_together(THREADS, lambda number: hands[number % len(hands)]())
    assert {answer.status_code for answer in answers} <= {200, 201, 202, 409, 422}, [a.text for a in answers]
    await_quiet(shop, order_id)

    intent = shop.intent(order_id)
    payment = shop.get(f"orders/{order_id}")["payment"]
    assert (payment["captured"], payment["refunded"]) == (intent["captured"], intent["refunded"])
    assert intent["captured"] + intent["released"] == 12950
    accepted = sum(answer.ok and answer.json().get("id", "").startswith("re_") for answer in answers)
    assert intent["refunded"] == 1000 * accepted
    assert "deadlock detected" not in shop.logs()
    shop.assert_books_hold()


def test_refunds_at_once_never_give_back_more_than_was_captured(shop: Shop) -> None:
    order_id = shop.pay()["id"]
    answers = run_together(THREADS, lambda _: shop.post(f"orders/{order_id}/refunds", {"amount": 1000}))
    accepted = [answer for answer in answers if answer.ok]
    assert len(accepted) == 12
    assert {answer.json()["code"] for answer in answers if not answer.ok} == {"amount_too_large"}
    await_quiet(shop, order_id)
    assert (shop.intent(order_id)["refunds"], shop.intent(order_id)["refunded"]) == (12, 12000)
    assert shop.get(f"orders/{order_id}")["payment"]["refunded"] == 12000
    shop.assert_books_hold()


def repeat_webhook(shop: Shop, reference: str) -> requests.Response:
    """The gateway's word on the payment as it is now, as a new event."""
    intent = shop.call_gateway(f"payment_intents/{reference}?expand[]=latest_charge", method="GET")
    kind = {"succeeded": "succeeded", "canceled": "canceled"}.get(
        intent["status"], "amount_capturable_updated"
    )
    event = {
        "id": f"evt_{secrets.token_hex(8)}",
        "object": "event",
        "type": f"payment_intent.{kind}",
        "created": intent["created"],
        "data": {"object": intent},
    }
    body = json.dumps(event).encode()
    return deliver(shop, body, sign(body, shop.webhook_secret))


def await_quiet(shop: Shop, order_id: str) -> None:
    """No saga of the order is under way, and every webhook was processed."""
    sagas = (
        "SELECT kind, state, step, last_error FROM payments_sagarun WHERE order_id = %s AND state <> ALL(%s)"
    )
    wait_until(
        lambda: not shop.sql(sagas, order_id, ["COMPLETED", "COMPENSATED"]),
        what=lambda: shop.sql(sagas, order_id, ["COMPLETED", "COMPENSATED"]),
    )
    webhooks = "SELECT event_type, state, last_error FROM webhooks_inboundwebhook WHERE state <> ALL(%s)"
    wait_until(
        lambda: not shop.sql(webhooks, ["processed", "ignored"]),
        what=lambda: shop.sql(webhooks, ["processed", "ignored"]),
    )
