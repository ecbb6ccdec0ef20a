"""A delivery is verified, archived once and acknowledged only after the commit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction
from django.test import Client
from django.utils import timezone

from payments.models import GatewayAccount
from payments.redaction import contains_card_data
from tests.factories.payments import GatewayAccountFactory, GatewaySecretFactory
from tests.factories.webhooks import SECRET, InboundWebhookFactory, encode, make_event, sign
from webhooks import inbound
from webhooks.models import InboundSource, InboundState, InboundWebhook, RejectedDelivery

Deliver = Callable[..., Any]
BODY = encode(make_event())


def test_a_signed_delivery_is_archived_and_acknowledged(
    account: GatewayAccount, deliver: Deliver, rings: list[str], django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        answer = deliver(BODY)
    assert (answer.status_code, answer.json()) == (200, {"received": True})
    webhook = InboundWebhook.objects.get()
    assert webhook.account == account
    assert (webhook.event_id, webhook.event_type, webhook.subject) == (
        "evt_1",
        "payment_intent.succeeded",
        "pi_1",
    )
    assert bytes(webhook.payload) == BODY
    assert webhook.sha256 == hashlib.sha256(BODY).hexdigest()
    assert webhook.state == InboundState.RECEIVED
    assert webhook.stored.headers["content-type"] == "application/json"
    assert webhook.verified_with == f"secret {account.secrets.get().pk}"
    assert rings == ["inbound"]


def test_a_duplicate_is_acknowledged_and_only_counted(
    account: GatewayAccount, deliver: Deliver, rings: list[str], django_capture_on_commit_callbacks: Any
) -> None:
    deliver(BODY)
    with django_capture_on_commit_callbacks(execute=True):
        assert [deliver(BODY).status_code for _ in range(2)] == [200, 200]
    assert InboundWebhook.objects.get().duplicates == 2
    assert rings == []


def test_a_redelivery_that_the_gateway_wrote_anew_is_a_duplicate(
    account: GatewayAccount, deliver: Deliver
) -> None:
    deliver(BODY)
    assert deliver(encode(make_event(pending_webhooks=0))).status_code == 200
    assert InboundWebhook.objects.get().duplicates == 1


def test_a_late_webhook_of_an_event_from_the_gateways_list_is_a_duplicate(
    account: GatewayAccount, deliver: Deliver
) -> None:
    InboundWebhookFactory(account=account, event_id="evt_1", source=InboundSource.GATEWAY_LIST)
    assert deliver(BODY).status_code == 200
    assert InboundWebhook.objects.get().duplicates == 1


def test_the_same_event_id_with_other_content_is_kept_as_a_conflict(
    account: GatewayAccount, deliver: Deliver
) -> None:
    deliver(BODY)
    other = encode(make_event(data={"object": {"object": "payment_intent", "id": "pi_other"}}))
    assert [deliver(other).status_code for _ in range(2)] == [200, 200]
    conflict = InboundWebhook.objects.get(conflict_of__isnull=False)
    assert conflict.conflict_of == InboundWebhook.objects.get(conflict_of__isnull=True)
    assert bytes(conflict.payload) == other
    assert (conflict.state, conflict.duplicates) == (InboundState.QUARANTINED, 1)
    assert "content is not" in conflict.last_error


def test_the_same_event_id_of_another_account_is_another_event(
    account: GatewayAccount, deliver: Deliver
) -> None:
    GatewaySecretFactory(account=GatewayAccountFactory(name="second"), value=SECRET)
    deliver(BODY)
    assert deliver(BODY, address="/webhooks/stripe/second/").status_code == 200
    assert InboundWebhook.objects.count() == 2


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        ("", "webhook_signature"),
        ("t=1,v1=" + "0" * 64, "webhook_signature"),
        (sign(BODY, secret="whsec_wrong"), "webhook_signature"),
        (sign(BODY, age=400), "webhook_replay"),
        (sign(BODY, age=-40_000), "webhook_replay"),
        (sign(BODY + b" "), "webhook_signature"),
    ],
)
def test_a_forged_or_stale_delivery_is_refused_and_leaves_a_trace_without_its_body(
    account: GatewayAccount, deliver: Deliver, signature: str, reason: str
) -> None:
    answer = deliver(BODY, signature=signature)
    assert (answer.status_code, answer.json()["code"]) == (400, reason)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert not InboundWebhook.objects.exists()
    trace = RejectedDelivery.objects.get()
    assert (trace.reason, trace.size, trace.ip) == (reason, len(BODY), "127.0.0.1")
    assert trace.sha256 == hashlib.sha256(BODY).hexdigest()


@pytest.mark.parametrize(
    ("proxies", "forwarded", "ip"),
    [
        (0, "203.0.113.9", "127.0.0.1"),
        (1, "203.0.113.9, 198.51.100.7", "198.51.100.7"),
        (2, "203.0.113.9, 198.51.100.7", "203.0.113.9"),
        (3, "203.0.113.9, 198.51.100.7", "127.0.0.1"),
        (1, "nonsense", None),
    ],
)
def test_a_trace_names_the_sender_as_far_as_the_proxies_can_be_trusted(
    account: GatewayAccount, client: Client, settings: Any, proxies: int, forwarded: str, ip: str | None
) -> None:
    settings.TRUSTED_PROXIES = proxies
    client.post("/webhooks/stripe/main/", BODY, "application/json", headers={"X-Forwarded-For": forwarded})
    assert RejectedDelivery.objects.get().ip == ip


def test_a_repeated_forgery_is_one_counted_row(account: GatewayAccount, deliver: Deliver) -> None:
    for _ in range(3):
        deliver(BODY, signature="t=1,v1=" + "0" * 64)
    assert RejectedDelivery.objects.get().times == 3


def test_the_rows_of_an_hour_are_capped_and_the_rest_is_counted(
    account: GatewayAccount, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbound, "REJECTED_ROWS_PER_HOUR", 3)
    for number in range(10):
        deliver(BODY + b" " * number, signature="t=1,v1=" + "0" * 64)
    assert RejectedDelivery.objects.count() == 4
    assert RejectedDelivery.objects.get(sha256="").times == 7


def test_a_signed_body_that_is_no_event_is_refused(account: GatewayAccount, deliver: Deliver) -> None:
    assert deliver(b"[1, 2]").status_code == 400
    assert RejectedDelivery.objects.get().detail == "the body is not a JSON object"


def test_an_unknown_account_or_gateway_is_not_found(account: GatewayAccount, deliver: Deliver) -> None:
    assert deliver(BODY, address="/webhooks/stripe/other/").status_code == 404
    assert deliver(BODY, address="/webhooks/unheard/main/").status_code == 404


def test_without_a_secret_the_gateway_is_asked_to_come_again(deliver: Deliver, db: None) -> None:
    GatewayAccountFactory(name="main")
    answer = deliver(BODY)
    assert (answer.status_code, answer.json()["code"]) == (503, "no_secret")
    assert not InboundWebhook.objects.exists()


def test_a_secret_counts_only_between_its_dates(deliver: Deliver, db: None) -> None:
    now = timezone.now()
    account = GatewayAccountFactory(name="main")
    GatewaySecretFactory(account=account, value="whsec_old", not_after=now + timedelta(hours=1))
    GatewaySecretFactory(account=account, value="whsec_new", not_before=now - timedelta(hours=1))
    GatewaySecretFactory(account=account, value="whsec_ended", not_after=now - timedelta(seconds=1))
    GatewaySecretFactory(account=account, value="whsec_to_come", not_before=now + timedelta(hours=1))
    answers = {
        secret: deliver(BODY, signature=sign(BODY, secret=f"whsec_{secret}")).status_code
        for secret in ("old", "new", "ended", "to_come")
    }
    assert answers == {"old": 200, "new": 200, "ended": 400, "to_come": 400}


def test_a_body_above_the_cap_is_refused_before_it_is_verified(
    account: GatewayAccount, deliver: Deliver
) -> None:
    body = encode(make_event(padding="x" * inbound.MAX_BODY_BYTES))
    assert deliver(body).status_code == 413
    assert RejectedDelivery.objects.get().reason == "body_too_large"


def test_a_body_at_the_cap_is_accepted(account: GatewayAccount, deliver: Deliver) -> None:
    room = inbound.MAX_BODY_BYTES - len(encode(make_event(padding="")))
    body = encode(make_event(padding="x" * room))
    assert len(body) == inbound.MAX_BODY_BYTES
    assert deliver(body).status_code == 200


def test_only_post_is_answered(account: GatewayAccount, client: Client) -> None:
    answer = client.get("/webhooks/stripe/main/")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_a_gateway_needs_no_csrf_token(account: GatewayAccount) -> None:
    strict = Client(enforce_csrf_checks=True)
    answer = strict.post(
        "/webhooks/stripe/main/",
        BODY,
        content_type="application/json",
        headers={"Stripe-Signature": sign(BODY)},
    )
    assert answer.status_code == 200
    assert not answer.cookies


def test_card_data_never_reaches_the_archive(account: GatewayAccount, deliver: Deliver) -> None:
    intent = {
        "object": "payment_intent",
        "id": "pi_1",
        "description": "card 4242 4242 4242 4242",
        "cvc": "123",
    }
    body = encode(make_event(data={"object": intent}))
    assert deliver(body).status_code == 200
    webhook = InboundWebhook.objects.get()
    stored = bytes(webhook.payload).decode()
    assert webhook.stored.is_redacted
    assert "4242 4242 4242 4242" not in stored
    assert '"123"' not in stored
    assert webhook.subject == "pi_1"
    assert webhook.sha256 == hashlib.sha256(body).hexdigest()
    assert deliver(body).status_code == 200
    assert InboundWebhook.objects.get().duplicates == 1


def make_intent(members: str) -> bytes:
    return (
        b'{"id":"evt_1","type":"x","data":{"object":{"object":"payment_intent","id":"pi_1",%s}}}'
        % members.encode()
    )


@pytest.mark.parametrize(
    "members",
    [
        '"note":"4242424242424242","note":"nothing"',
        '"note":"nothing","note":"4242424242424242"',
        '"cvc":"123","cvc":null',
        '"cvc":["123"],"cvc":null',
        '"note":{"a":"4242424242424242"},"note":{"b":1}',
        '"note":"\\u0034\\u0032\\u00342424242424242"',
        '"note":4242424242424242',
        '"note":4242424242424242.0',
        '"4242424242424242":1,"4242424242424242":2',
        '"note":"4242 4242 4242 4242 \\ud800"',
    ],
)
def test_card_data_is_found_in_all_that_would_be_stored_read_or_not(
    account: GatewayAccount, deliver: Deliver, members: str
) -> None:
    assert deliver(make_intent(members)).status_code == 200
    webhook = InboundWebhook.objects.get()
    assert webhook.stored.is_redacted
    stored = json.loads(bytes(webhook.payload))
    assert contains_card_data(stored) is None
    assert "4242424242424242" not in webhook.payload.decode()
    assert stored["data"]["object"]["id"] == "pi_1"


@pytest.mark.parametrize("members", ['"note":"one","note":"two"', '"note":"\\ud800"', '"amount":1e999'])
def test_what_is_odd_and_no_card_data_is_kept_to_the_byte(
    account: GatewayAccount, deliver: Deliver, members: str
) -> None:
    body = make_intent(members)
    assert [deliver(body).status_code for _ in range(2)] == [200, 200]
    webhook = InboundWebhook.objects.get()
    assert (bytes(webhook.payload), webhook.duplicates) == (body, 1)


@pytest.mark.parametrize("depth", [60, 900, 960, 980, 990, 995, 1000, 5000])
def test_nesting_ends_in_a_row_or_a_refusal(account: GatewayAccount, deliver: Deliver, depth: int) -> None:
    body = make_intent('"note":' + "[" * depth + "]" * depth)
    assert deliver(body).status_code in (200, 400)
    assert InboundWebhook.objects.count() + RejectedDelivery.objects.count() == 1


def test_headers_that_are_no_text_for_the_database_are_kept_without_what_offends(
    account: GatewayAccount, client: Client
) -> None:
    headers = {"Stripe-Signature": sign(BODY), "User-Agent": "a\0b\ud800c\u2028", "X-Request-Id": "é" * 900}
    answer = client.post("/webhooks/stripe/main/", BODY, "application/json", headers=headers)
    assert answer.status_code == 200
    kept = InboundWebhook.objects.get().stored.headers
    assert (kept["user-agent"], kept["x-request-id"]) == ("a?b?c?", "é" * 500)


def test_conflicts_of_one_event_are_capped_and_the_rest_is_counted(
    account: GatewayAccount, deliver: Deliver
) -> None:
    deliver(BODY)
    for number in range(inbound.CONFLICTS_PER_EVENT + 5):
        other = encode(make_event(data={"object": {"object": "payment_intent", "id": f"pi_{number + 2}"}}))
        assert deliver(other).status_code == 200
    conflicts = InboundWebhook.objects.filter(conflict_of__isnull=False).order_by("id")
    assert conflicts.count() == inbound.CONFLICTS_PER_EVENT
    assert [conflict.duplicates for conflict in conflicts] == [0] * (inbound.CONFLICTS_PER_EVENT - 1) + [5]


def test_a_verifier_that_stumbles_refuses(
    account: GatewayAccount, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(**_: Any) -> int:
        raise KeyError("signature")

    monkeypatch.setattr("webhooks.verifiers.stripe.verify", stumble)
    assert deliver(BODY).status_code == 400
    assert RejectedDelivery.objects.get().detail == "the verifier failed: KeyError"


def test_while_the_database_is_down_the_gateway_is_asked_to_come_again(
    account: GatewayAccount, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(encode(make_event("evt_before")))

    def refuse(*_: Any) -> Any:
        raise OperationalError("the server closed the connection unexpectedly")

    with monkeypatch.context() as broken:
        broken.setattr("payments.sql._cursor", refuse)
        answer = deliver(BODY)
    assert (answer.status_code, answer.json()["code"]) == (503, "not_stored")
    assert answer.headers["Retry-After"]
    assert not InboundWebhook.objects.filter(event_id="evt_1").exists()


def test_a_refusal_stands_although_its_trace_cannot_be_written(
    account: GatewayAccount, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(BODY)

    monkeypatch.setattr(inbound, "_COUNT_REJECTED", "INSERT INTO nowhere VALUES (1)")
    with transaction.atomic():
        answer = deliver(BODY, signature="t=1,v1=" + "0" * 64)
        transaction.set_rollback(True)
    assert answer.status_code == 400


@pytest.mark.concurrency
@pytest.mark.django_db(transaction=True)
def test_twenty_simultaneous_deliveries_of_one_event_are_one_row_and_twenty_acknowledgements() -> None:
    GatewaySecretFactory(account=GatewayAccountFactory(name="main"), value=SECRET)
    header = sign(BODY)

    def deliver_once(_: int) -> int:
        try:
            headers = {"Stripe-Signature": header}
            return (
                Client()
                .post("/webhooks/stripe/main/", BODY, content_type="application/json", headers=headers)
                .status_code
            )
        finally:
            connections.close_all()

    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(deliver_once, range(20)))
    assert statuses == [200] * 20
    assert InboundWebhook.objects.get().duplicates == 19
