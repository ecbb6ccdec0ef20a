"""Child of the receipt benchmark: payments to be captured, and the worker that applies what was received.

`prepare <count>` places so many orders that are only authorized, captures each at the gateway itself, as somebody at
its own pages would, and prints the events that the gateway would send, one per line. `work` processes what is due
until its stdin ends.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
import uuid

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

import requests  # noqa: E402
from django.conf import settings  # noqa: E402

from payments import services  # noqa: E402
from payments.models import ApiClient, GatewayAccount, Payment  # noqa: E402
from payments.money import Money  # noqa: E402
from webhooks.processing import process_due  # noqa: E402

IDLE_SECONDS = 0.005


def prepare(count: int) -> None:
    GatewayAccount.objects.update(is_active=True)
    client = ApiClient.objects.create(name=uuid.uuid4().hex)
    gateway = requests.Session()
    gateway.headers["Authorization"] = f"Bearer {settings.STRIPE_API_KEY}"
    for _ in range(count):
        reference = place_order(client)
        answer = gateway.post(
            f"{settings.STRIPE_API_BASE}/v1/payment_intents/{reference}/capture", timeout=10
        )
        answer.raise_for_status()
        print(json.dumps(make_event(answer.json())))


def place_order(client: ApiClient) -> str:
    """The gateway's reference of the payment."""
    number = uuid.uuid4().hex[:12]
    order = services.place_order(
        client,
        services.OrderDraft(
            reference=f"B-{number}",
            amount=Money(4200, "USD"),
            payment_method=f"pm_card_visa_c{number}",
            lines=[{"sku": "MUG-1", "quantity": 1, "unit_amount": 4200}],
            shipping={"country": "DE"},
            capture="manual",
        ),
    )
    payment = Payment.objects.get(order=order)
    assert payment.capturable, (order.state, payment.state)
    return payment.gateway_reference


def make_event(intent: dict) -> dict:
    return {
        "id": f"evt_{uuid.uuid4().hex}",
        "object": "event",
        "api_version": "2024-06-20",
        "created": int(time.time()),
        "data": {"object": intent},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": "payment_intent.succeeded",
    }


def work() -> None:
    while not select.select([sys.stdin], [], [], 0)[0]:
        if not process_due():
            time.sleep(IDLE_SECONDS)


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(int(sys.argv[2]))
    else:
        work()
