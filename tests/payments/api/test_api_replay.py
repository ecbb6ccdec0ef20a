"""One key, one execution, the same bytes: over HTTP."""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import RequestFactory
from django.utils import timezone
from rest_framework.request import Request

from payments import idempotency, services
from payments.api.replay import read_key
from payments.errors import ConflictError, NetworkError
from payments.models import IdempotencyKey, Order, OrderState
from tests.factories import ApiKeyFactory, PaymentFactory
from tests.storefront import Storefront, assert_problem

MakeOrder = Callable[..., dict[str, Any]]
KEY = "cart-9-attempt-1-0001"


class Shopkeeper:
    """Stands in for the domain: makes the order, attaches it to the key as the domain does, and counts."""

    def __init__(self) -> None:
        self.state = "paid"
        self.error: BaseException | None = None
        self.placed: list[str] = []
        self.resumed: list[str] = []

    def place_order(self, client: Any, draft: Any, *, key: Any, drive: bool = True) -> Order:
        if self.error and not isinstance(self.error, KeyboardInterrupt):
            raise self.error
        order: Order = PaymentFactory.create(order__client=client, order__state=self.state).order
        idempotency.attach(key, order.pk)
        self.placed.append(order.pk)
        if self.error:
            raise self.error
        return order

    def resume_order(self, order: Order) -> Order:
        self.resumed.append(order.pk)
        Order.objects.filter(pk=order.pk).update(state="paid")
        order.refresh_from_db()
        return order


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Shopkeeper:
    made = Shopkeeper()
    monkeypatch.setattr(services, "place_order", made.place_order)
    monkeypatch.setattr(services, "resume_order", made.resume_order, raising=False)
    return made


@pytest.mark.parametrize(
    "path",
    ["orders", "orders/{id}/confirm", "orders/{id}/capture", "orders/{id}/cancel", "orders/{id}/refunds"],
)
def test_a_post_without_a_key_is_refused(path: str, shop: Storefront, make_order: MakeOrder) -> None:
    order = PaymentFactory.create(order__client=shop.client).order
    body = make_order() if path == "orders" else {}
    response = shop.post(path.format(id=order.pk), body, idempotency_key="")
    assert_problem(response, 400, "idempotency_key_missing")


@pytest.mark.parametrize(
    "key", ["short", "x" * 256, '""', "sixteen chars or é more", "order 4242424242424242"]
)
def test_a_strange_key_is_refused(
    key: str, shop: Storefront, make_order: MakeOrder, keeper: Shopkeeper
) -> None:
    response = shop.post("orders", make_order(), idempotency_key=key)
    assert_problem(response, 400, "invalid_request")
    assert key.encode() not in response.content
    assert keeper.placed == []


def test_the_same_key_gets_the_same_bytes(
    shop: Storefront, make_order: MakeOrder, keeper: Shopkeeper
) -> None:
    first = shop.post("orders", make_order(), idempotency_key=KEY)
    Order.objects.update(state=OrderState.CANCELED)
    again = shop.post("orders", make_order(), idempotency_key=f'"{KEY}"')
    assert (again.status_code, again.content, again["Location"]) == (201, first.content, first["Location"])
    assert (again["Idempotent-Replayed"], again["Idempotency-Key"]) == ("true", KEY)
    assert "Idempotent-Replayed" not in first
    assert first["Idempotency-Key"] == KEY
    assert len(keeper.placed) == 1


@pytest.mark.parametrize(("state", "status"), [("declined", 402), ("blocked", 403), ("canceled", 409)])
def test_every_outcome_is_kept(
    state: str, status: int, shop: Storefront, make_order: MakeOrder, keeper: Shopkeeper
) -> None:
    keeper.state = state
    answers = [shop.post("orders", make_order(), idempotency_key=KEY) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [status, status]
    assert answers[0].content == answers[1].content
    assert answers[0]["Content-Type"] == answers[1]["Content-Type"]
    assert len(keeper.placed) == 1


def test_an_undecided_answer_is_not_kept_but_asked_for_again(
    shop: Storefront, make_order: MakeOrder, keeper: Shopkeeper
) -> None:
    keeper.state = "review"
    first = shop.post("orders", make_order(), idempotency_key=KEY)
    second = shop.post("orders", make_order(), idempotency_key=KEY)
    third = shop.post("orders", make_order(), idempotency_key=KEY)
    assert [first.status_code, second.status_code, third.status_code] == [202, 201, 201]
    assert third.content == second.content
    assert (len(keeper.placed), keeper.resumed) == (1, keeper.placed)


def test_another_payload_under_the_key_is_refused(
    shop: Storefront, make_order: MakeOrder, keeper: Shopkeeper
) -> None:
    shop.post("orders", make_order(), idempotency_key=KEY)
    response = shop.post("orders", make_order(amount=1, lines=None), idempotency_key=KEY)
    assert_problem(response, 422, "idempotency_key_reused")
    assert b"12950" not in response.content
    assert len(keeper.placed) == 1


def test_the_order_of_members_does_not_matter(
    shop: Storefront, make_order: MakeOrder, keeper: Shopkeeper
) -> None:
    shop.post("orders", make_order(), idempotency_key=KEY)
    turned = dict(reversed(make_order().items()))
    assert shop.post("orders", turned, idempotency_key=KEY)["Idempotent-Replayed"] == "true"


def test_keys_of_two_clients_are_strangers(
    shop: Storefront, other_shop: Storefront, make_order: MakeOrder, keeper: Shopkeeper
) -> None:
    mine, theirs = (each.post("orders", make_order(), idempotency_key=KEY) for each in (shop, other_shop))
    assert mine.json()["id"] != theirs.json()["id"]


def test_the_same_key_for_another_order_is_another_payload(
    shop: Storefront, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "cancel_order", lambda order, **kwargs: order)
    first, second = (
        PaymentFactory.create(order__client=shop.client, is_authorized=True).order for _ in range(2)
    )
    assert shop.post(f"orders/{first.pk}/cancel", idempotency_key=KEY).status_code == 202
    assert_problem(
        shop.post(f"orders/{second.pk}/cancel", idempotency_key=KEY), 422, "idempotency_key_reused"
    )


def test_what_was_not_begun_frees_the_key(
    shop: Storefront, make_order: MakeOrder, keeper: Shopkeeper
) -> None:
    assert_problem(shop.post("orders", {"amount": 0}, idempotency_key=KEY), 400, "invalid_request")
    keeper.error = NetworkError("Down.")
    assert_problem(shop.post("orders", make_order(), idempotency_key=KEY), 503, "network_error")
    keeper.error = None
    assert shop.post("orders", make_order(), idempotency_key=KEY).status_code == 201


def test_a_refusal_of_the_domain_is_kept(shop: Storefront, make_order: MakeOrder, keeper: Shopkeeper) -> None:
    keeper.error = ConflictError("There is a living order with this reference; nothing was done.")
    first = shop.post("orders", make_order(), idempotency_key=KEY)
    keeper.error = None
    again = shop.post("orders", make_order(), idempotency_key=KEY)
    assert_problem(first, 409, "conflict")
    assert (again.status_code, again.content, again["Idempotent-Replayed"]) == (409, first.content, "true")


def test_while_the_first_runs_the_second_is_told_to_wait(
    shop: Storefront, make_order: MakeOrder, keeper: Shopkeeper
) -> None:
    keeper.error = RuntimeError("the process dies")
    assert_problem(shop.post("orders", make_order(), idempotency_key=KEY), 500, "internal_error")
    response = shop.post("orders", make_order(), idempotency_key=KEY)
    assert_problem(response, 409, "idempotency_in_flight")
    assert 1 <= int(response["Retry-After"]) <= 30


def test_a_dead_first_request_is_resumed_and_never_restarted(
    shop: Storefront, make_order: MakeOrder, keeper: Shopkeeper
) -> None:
    keeper.state, keeper.error = "processing", KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        shop.post("orders", make_order(), idempotency_key=KEY)
    IdempotencyKey.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    resumed = shop.post("orders", make_order(), idempotency_key=KEY)
    assert (resumed.status_code, resumed.json()["id"]) == (201, keeper.placed[0])
    replayed = shop.post("orders", make_order(), idempotency_key=KEY)
    assert replayed.content == resumed.content
    assert keeper.placed == keeper.resumed


def test_an_expired_key_never_charges_again(
    shop: Storefront, make_order: MakeOrder, keeper: Shopkeeper
) -> None:
    shop.post("orders", make_order(), idempotency_key=KEY)
    IdempotencyKey.objects.update(is_tombstone=True, answer=None)
    assert_problem(shop.post("orders", make_order(), idempotency_key=KEY), 409, "idempotency_key_expired")


@pytest.mark.concurrency
@pytest.mark.django_db(transaction=True)
def test_fifty_threads_with_one_key_place_one_order(make_order: MakeOrder, keeper: Shopkeeper) -> None:
    key, body = ApiKeyFactory.create(), make_order()
    idempotency_key = secrets.token_hex(16)
    start, answers = threading.Barrier(50), []

    def place() -> None:
        start.wait()
        try:
            answers.append(Storefront(key).post("orders", body, idempotency_key=idempotency_key))
        finally:
            connection.close()

    threads = [threading.Thread(target=place) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = Counter(answer.status_code for answer in answers)
    bodies = {answer.content for answer in answers if answer.status_code == 201}
    assert len(keeper.placed) == Order.objects.count() == 1
    assert len(bodies) == 1
    assert statuses[201] + statuses[409] == 50
    for answer in answers:
        if answer.status_code == 409:
            assert_problem(answer, 409, "idempotency_in_flight")


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("cart-9-attempt-1-0001", "cart-9-attempt-1-0001"),
        ('"cart-9-attempt-1-0001"', "cart-9-attempt-1-0001"),
        (r'"cart-9-\"attempt\"-\\1"', r'cart-9-"attempt"-\1'),
    ],
)
def test_a_quoted_key_is_unquoted(header: str, key: str) -> None:
    request = RequestFactory().post("/", headers={"Idempotency-Key": header})
    assert read_key(Request(request)) == key
