"""While a secret is rotated no delivery is refused, and after the overlap the old secret is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import connections
from django.test import Client
from django.utils import timezone

from payments.models import GatewayAccount
from tests.factories.payments import GatewayAccountFactory, GatewaySecretFactory
from tests.factories.webhooks import SECRET, encode, make_event, sign
from webhooks import inbound
from webhooks.accounts import forget_receivers
from webhooks.models import InboundWebhook, RejectedDelivery

Deliver = Callable[..., Any]
NEW = "whsec_the_new_one"
BODY = encode(make_event())
SENDERS, EACH = 6, 40


def status_of(deliver: Deliver, secret: str, **kwargs: Any) -> int:
    return int(deliver(BODY, signature=sign(BODY, secret=secret), **kwargs).status_code)


def test_the_first_delivery_under_a_new_secret_is_taken(account: GatewayAccount, deliver: Deliver) -> None:
    assert status_of(deliver, SECRET) == 200
    account.rotate_webhook_secret(NEW, overlap=timedelta(hours=24))
    assert [status_of(deliver, NEW), status_of(deliver, SECRET)] == [200, 200]
    assert not RejectedDelivery.objects.exists()


def test_secrets_begin_and_end_to_the_second(
    account: GatewayAccount, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without reading them anew: their dates are remembered with them."""
    now = time.time()
    starts = timezone.now() + timedelta(seconds=100)
    account.rotate_webhook_secret(NEW, overlap=timedelta(seconds=60), starts_at=starts)
    seen = {}
    for second in (0, 99, 101, 159, 161):
        with monkeypatch.context() as later:
            later.setattr("webhooks.accounts.time.time", lambda second=second: now + second)
            seen[second] = (status_of(deliver, SECRET), status_of(deliver, NEW))
    assert seen == {0: (200, 400), 99: (200, 400), 101: (200, 200), 159: (200, 200), 161: (400, 200)}


def test_a_throttled_sender_cannot_make_us_look_for_secrets_each_time(
    account: GatewayAccount, deliver: Deliver, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.WEBHOOK_FORGERY_LIMIT = "1/hour"
    monkeypatch.setattr(inbound, "THROTTLED_REFRESH_SECONDS", 3600)
    monkeypatch.setattr(inbound, "count_forgery", lambda ip: True)
    deliver(BODY)
    statements, execute = list[Any](), psycopg.Cursor.execute

    def count(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        statements.append(query)
        return execute(self, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Cursor, "execute", count)
    assert [status_of(deliver, "whsec_wrong") for _ in range(5)] == [429] * 5
    assert statements == []


@pytest.mark.concurrency
@pytest.mark.django_db(transaction=True)
def test_a_stream_of_deliveries_goes_on_through_a_rotation() -> None:
    account = GatewayAccountFactory(name="main")
    GatewaySecretFactory(account=account, value=SECRET)
    signs_with = [SECRET]
    halfway = threading.Barrier(SENDERS + 1)

    def send(sender: int) -> list[int]:
        try:
            statuses = []
            for number in range(EACH):
                if number == EACH // 2:
                    halfway.wait()
                body = encode(make_event(f"evt_{sender}_{number}"))
                headers = {"Stripe-Signature": sign(body, secret=signs_with[-1])}
                answer = Client().post("/webhooks/stripe/main/", body, "application/json", headers=headers)
                statuses.append(answer.status_code)
            return statuses
        finally:
            connections.close_all()

    with ThreadPoolExecutor(SENDERS) as pool:
        sent = [pool.submit(send, sender) for sender in range(SENDERS)]
        halfway.wait()  # all are in the middle of sending
        account.rotate_webhook_secret(NEW, overlap=timedelta(hours=24))
        signs_with.append(NEW)
        statuses = [status for future in sent for status in future.result()]
    assert statuses == [200] * SENDERS * EACH
    signers = set(InboundWebhook.objects.values_list("verified_with", flat=True))
    assert signers == {f"secret {secret.pk}" for secret in account.secrets.all()}, "both were used"
    assert not RejectedDelivery.objects.exists()
    account.secrets.filter(not_after__isnull=False).update(not_after=timezone.now())
    forget_receivers()
    last = encode(make_event("evt_last"))
    headers = {"Stripe-Signature": sign(last, secret=SECRET)}
    answer = Client().post("/webhooks/stripe/main/", last, "application/json", headers=headers)
    assert answer.status_code == 400, "the overlap is over"
