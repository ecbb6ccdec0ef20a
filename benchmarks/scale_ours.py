"""Child of the scale benchmark: times the calls that its parent names, on a database that `scale_fill` has filled.

A line `<call> <times>` on stdin is answered by one line: a JSON list of seconds.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import uuid
from collections.abc import Callable, Iterator

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402

from benchmarks import instant  # noqa: E402
from benchmarks.scale_fill import SHOP, draft_order  # noqa: E402
from payments import services  # noqa: E402
from payments.facts import FactOutcome  # noqa: E402
from payments.gateways.base import ChargeResult, ChargeStatus, GatewayFact  # noqa: E402
from payments.kinds import OperationKind  # noqa: E402
from payments.management.commands.create_api_client import create_key  # noqa: E402
from payments.models import ApiClient, GatewayAccount, Order, Payment  # noqa: E402

Work = Callable[[], object]
SAMPLE = 3_000  # orders picked at random


def pick_paid() -> Iterator[str]:
    """Ids of paid orders from everywhere in the table, in random order."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT reltuples FROM pg_class WHERE oid = 'payments_order'::regclass")
        share = min(100.0, 100 * 20 * SAMPLE / max(cursor.fetchone()[0], 1))
        cursor.execute(
            f"SELECT id FROM payments_order TABLESAMPLE SYSTEM ({share}) WHERE state = 'paid' "
            f"ORDER BY random() LIMIT {SAMPLE}"
        )
        return iter([row[0] for row in cursor.fetchall()])


def pick_open() -> Iterator[str]:
    """Ids of orders that may be captured, in random order."""
    ids = list(Payment.objects.filter(capturable__gt=0).values_list("order_id", flat=True)[:SAMPLE])
    random.shuffle(ids)
    return iter(ids)


class Shop:
    """The calls, each as a method that gets ready what is not to be timed and returns the rest."""

    def __init__(self) -> None:
        instant.install()
        self.client = ApiClient.objects.get(name=SHOP)
        self.account = GatewayAccount.objects.get(gateway="stripe", name="default")
        _, secret = create_key(SHOP, scopes=["orders:read"])
        self.http = Client(SERVER_NAME="127.0.0.1", HTTP_AUTHORIZATION=f"Bearer {secret}")
        self.open, self.paid, self.known = pick_open(), pick_paid(), pick_paid()

    def place(self) -> Work:
        draft = draft_order(uuid.uuid4().hex[:12], "automatic")

        def work() -> None:
            assert services.place_order(self.client, draft).state == "paid"

        return work

    def capture(self) -> Work:
        order = services.find_order(next(self.open))

        def work() -> None:
            assert services.capture_order(order, amount=None, actor="system").state == "paid"

        return work

    def refund(self) -> Work:
        order = services.find_order(next(self.paid))
        return lambda: services.refund_order(order, amount=100, reason="duplicate", actor="system")

    def read(self) -> Work:
        address = f"/api/v1/orders/{next(self.known)}"
        return lambda: self.get(address)

    def list(self) -> Work:
        return lambda: self.get("/api/v1/orders")

    def get(self, address: str) -> None:
        response = self.http.get(address)
        assert response.status_code == 200, response.content

    def fact(self) -> Work:
        """A capture that somebody made at the gateway's own pages, of an order that we hold authorized."""
        payment = Payment.objects.get(order_id=next(self.open))
        result = ChargeResult(ChargeStatus.CAPTURED, payment.gateway_reference, payment.total)
        fact = GatewayFact(OperationKind.CAPTURE, result, reference=payment.gateway_reference)

        def work() -> None:
            assert services.apply_gateway_fact(self.account, fact) == FactOutcome.APPLIED

        return work

    def sweep(self) -> Work:
        return services.sweep_sagas

    def ask(self) -> Work:
        return services.ask_due_operations


def main() -> None:
    shop = Shop()
    assert Order.objects.exists()
    for line in sys.stdin:
        name, times = line.split()
        seconds = []
        for _ in range(int(times)):
            work = getattr(shop, name)()
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()
