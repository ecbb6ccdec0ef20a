"""Who sends many bad signatures waits; who signs well never does. And an account may name where it is told from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisGone

from payments.gateways import resilience
from payments.models import GatewayAccount
from tests.factories.webhooks import encode, make_event, sign
from tests.payments.gateways.conftest import forget
from webhooks import forgeries, inbound
from webhooks.accounts import forget_receivers
from webhooks.models import InboundWebhook, RejectedDelivery

Deliver = Callable[..., Any]
BODY = encode(make_event())
FORGED = "t=1,v1=" + "0" * 64


@pytest.fixture(autouse=True)
def _clean_counters(settings: Any) -> Iterator[None]:
    settings.WEBHOOK_FORGERY_LIMIT = "3/hour"
    settings.TRUSTED_PROXIES = 1
    resilience.local_limiter().storage.reset()
    forget("*forgeries*")
    yield
    forget("*forgeries*")


@pytest.fixture
def forge(client: Any) -> Callable[..., Any]:
    def post(ip: str = "203.0.113.9", signature: str = FORGED) -> Any:
        headers = {"Stripe-Signature": signature, "X-Forwarded-For": ip}
        return client.post("/webhooks/stripe/main/", BODY, "application/json", headers=headers)

    return post


def test_the_fourth_bad_signature_waits_and_leaves_nothing(account: GatewayAccount, forge: Any) -> None:
    assert [forge().status_code for _ in range(3)] == [400] * 3
    answers = [forge() for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429] * 3
    assert answers[0].json()["code"] == "too_many_bad_signatures"
    assert answers[0].headers["Retry-After"] == "3600"
    assert RejectedDelivery.objects.get().times == 3


def test_a_good_signature_is_never_held_up_whoever_else_sits_there(
    account: GatewayAccount, forge: Any
) -> None:
    for _ in range(5):
        forge()
    assert forge(signature=sign(BODY)).status_code == 200
    assert forge(signature=sign(BODY, age=400)).status_code == 400, "authentic, and too old: no forgery"
    assert InboundWebhook.objects.count() == 1


def test_another_address_has_a_limit_of_its_own(account: GatewayAccount, forge: Any) -> None:
    for _ in range(5):
        forge()
    assert forge("198.51.100.7").status_code == 400


def test_what_is_signed_but_no_event_is_no_forgery(account: GatewayAccount, client: Any) -> None:
    for _ in range(5):
        headers = {"Stripe-Signature": sign(b"[]"), "X-Forwarded-For": "203.0.113.9"}
        answer = client.post("/webhooks/stripe/main/", b"[]", "application/json", headers=headers)
        assert answer.status_code == 400


def test_a_flood_that_is_refused_unread_is_not_written_down(account: GatewayAccount, client: Any) -> None:
    huge = b"x" * (inbound.MAX_BODY_BYTES + 1)
    headers = {"Stripe-Signature": FORGED, "X-Forwarded-For": "203.0.113.9"}
    answers = [
        client.post("/webhooks/stripe/main/", huge, "application/json", headers=headers) for _ in range(5)
    ]
    assert [answer.status_code for answer in answers] == [413] * 3 + [429] * 2
    assert RejectedDelivery.objects.get().times == 3


def test_a_subnet_of_ipv6_is_one_sender_and_a_disguised_ipv4_is_itself(
    account: GatewayAccount, forge: Any
) -> None:
    statuses = [forge(f"2001:db8:0:1::{number}").status_code for number in range(5)]
    assert statuses == [400] * 3 + [429] * 2
    statuses = [forge(ip).status_code for ip in ("203.0.113.9", "::ffff:203.0.113.9") * 2]
    assert statuses == [400] * 3 + [429]


def test_without_redis_each_process_counts_for_itself(
    account: GatewayAccount, forge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> Any:
        raise RedisGone("refused")

    health = resilience.RedisHealth()
    monkeypatch.setattr(forgeries, "shared_limiter", gone)
    monkeypatch.setattr(forgeries, "redis_health", lambda: health)
    assert [forge().status_code for _ in range(5)] == [400] * 3 + [429] * 2


def test_memory_is_bounded_whatever_the_addresses() -> None:
    buckets = {forgeries._find_bucket(f"10.0.{number // 250}.{number % 250}") for number in range(1000)}
    assert len(buckets) > 900, "few share one"
    assert all(0 <= int(bucket) < forgeries.BUCKETS for bucket in buckets)


# --- where it may come from ---------------------------------------------------------------------------------


@pytest.fixture
def fenced(account: GatewayAccount) -> GatewayAccount:
    account.options = {"webhook_networks": "203.0.113.0/24, 2001:db8::/32"}
    account.save()
    return account


@pytest.mark.parametrize(
    ("ip", "status"),
    [
        ("203.0.113.9", 200),
        ("::ffff:203.0.113.9", 200),
        ("2001:db8::1", 200),
        ("203.0.114.1", 403),
        ("2001:db9::1", 403),
        ("nonsense", 403),
    ],
)
def test_only_the_named_networks_are_let_in(fenced: GatewayAccount, forge: Any, ip: str, status: int) -> None:
    assert forge(ip, signature=sign(BODY)).status_code == status
    assert InboundWebhook.objects.exists() == (status == 200)


def test_who_is_outside_leaves_a_count_and_no_body(fenced: GatewayAccount, forge: Any) -> None:
    for _ in range(2):
        answer = forge("198.51.100.7", signature=sign(BODY))
        assert answer.json()["code"] == "foreign_address"
    trace = RejectedDelivery.objects.get()
    assert (trace.reason, trace.times, trace.sha256, trace.ip) == ("foreign_address", 2, "", "198.51.100.7")
    assert forge("203.0.113.9", signature=sign(BODY)).status_code == 200


def test_who_is_outside_and_does_not_stop_is_not_written_down(fenced: GatewayAccount, forge: Any) -> None:
    assert [forge("198.51.100.7").status_code for _ in range(5)] == [403] * 3 + [429] * 2
    assert RejectedDelivery.objects.get().times == 3


def test_the_address_is_the_proxys_word_only_as_far_as_it_is_trusted(
    fenced: GatewayAccount, forge: Any, settings: Any
) -> None:
    settings.TRUSTED_PROXIES = 0
    assert forge("203.0.113.9", signature=sign(BODY)).status_code == 403
    settings.TRUSTED_PROXIES = 1
    assert forge("203.0.113.9, 198.51.100.7", signature=sign(BODY)).status_code == 403


def test_a_list_that_cannot_be_read_lets_nobody_in(account: GatewayAccount, forge: Any) -> None:
    GatewayAccount.objects.update(options={"webhook_networks": "env:NETWORKS_OF_THE_TEST"})
    assert forge(signature=sign(BODY)).status_code == 200, "an empty list is none"
    forget_receivers()
    GatewayAccount.objects.update(options={"webhook_networks": "everywhere"})
    assert forge(signature=sign(BODY)).status_code == 403
    assert "everywhere" not in json.dumps(list(RejectedDelivery.objects.values("detail")))
