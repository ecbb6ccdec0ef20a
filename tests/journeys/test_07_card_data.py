"""Story 7: a card number in a log line, an exception, a webhook or a note is masked wherever it ends."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
import requests

from tests.journeys.shop import WEBHOOK_PATH, Shop
from tests.journeys.test_05_webhook import deliver, sign
from tests.journeys.waiting import wait_until

pytestmark = pytest.mark.journey

NUMBER = "4000056655665556"
SPACED = "4000 0566 5566 5556"
SPELLINGS = (NUMBER, SPACED, SPACED.replace(" ", "-"))
SCRIPT = f"""
import logging
from payments.models import Order
from payments.services import add_note
logging.getLogger("payments.story").error("the customer said %s", "{SPACED}")
add_note(Order.objects.get(reference="story-7"), text="card {NUMBER}, call back", actor="user:finance")
raise ValueError("cannot charge {NUMBER}")
"""


def test_a_card_number_is_masked_wherever_it_ends(shop: Shop) -> None:
    shop.pay(reference="story-7")
    refused = shop.place(reference="story-7-api", metadata={"said": SPACED})
    assert (refused.status_code, refused.json()["code"]) == (422, "card_data_refused"), refused.text
    requests.get(f"{shop.url}/api/v1/orders/{NUMBER}", headers={"User-Agent": f"phone {SPACED}"}, timeout=60)
    script = shop.manage("shell", "-c", SCRIPT, check=False)
    assert "ValueError" in script.stderr
    send_webhooks_with_numbers(shop)

    where = find_numbers(
        {"log files": shop.logs(), "script": script.stdout + script.stderr, "answer": refused.text}
    )
    where += find_numbers(dump(shop))
    assert where == []
    [(note,)] = shop.sql("SELECT data->>'note' FROM payments_event WHERE type = 'order.note'")
    assert note.endswith(", call back")
    assert "5556" in note
    assert "cannot charge" in script.stderr


def send_webhooks_with_numbers(shop: Shop) -> None:
    """One that is archived and needs nothing done, and one whose processing fails over the number."""
    about = {"id": "pi_story7", "object": "payment_intent", "description": f"paid with {SPACED}"}
    broken = {**about, "status": "succeeded", "amount": SPACED, "currency": NUMBER, "metadata": {}}
    for name, kind, content in (
        ("evt_story7_plain", "customer.updated", about),
        ("evt_story7_broken", "payment_intent.succeeded", broken),
    ):
        event = {"id": name, "object": "event", "type": kind, "created": 1, "data": {"object": content}}
        body = json.dumps(event).encode()
        assert deliver(shop, body, sign(body, shop.webhook_secret)).status_code == 200
    requests.post(f"{shop.url}{WEBHOOK_PATH}?card={NUMBER}", data=NUMBER, timeout=60)
    waiting = (
        "SELECT event_id FROM webhooks_inboundwebhook WHERE event_id LIKE 'evt_story7%%' AND attempts = 0"
    )
    wait_until(lambda: not shop.sql(waiting, *()), what="the worker has not seen both webhooks")


def dump(shop: Shop) -> dict[str, str]:
    """Every table as text, with the content of binary columns."""
    with psycopg.connect(shop.database) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        return {
            f"table {table}": "\n".join(
                " ".join(map(as_text, row)) for row in connection.execute(f'SELECT * FROM "{table}"'.encode())
            )
            for (table,) in tables
        }


def as_text(value: Any) -> str:
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode(errors="replace")
    return json.dumps(value, default=str) if isinstance(value, dict | list) else str(value)


def find_numbers(texts: dict[str, str]) -> list[tuple[str, str]]:
    """Where a spelling of the number stands in the clear, with what surrounds it."""
    return [
        (name, text[max(0, at - 80) : at + 40])
        for name, text in texts.items()
        for spelling in SPELLINGS
        if (at := text.find(spelling)) >= 0
    ]
