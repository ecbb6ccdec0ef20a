"""One key, one effect: replays, conflicts, and many threads at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import stripe

from payments.sandbox import start
from tests.payments.sandbox.shop import Shop

PAYMENT = {"amount": "1000", "currency": "eur", "confirm": "true", "payment_method": "pm_card_visa"}


def post(shop: Shop, key: str, **change: str) -> requests.Response:
    headers = {"Authorization": "Bearer sk_test_x", "Idempotency-Key": key}
    return requests.post(f"{shop.url}/v1/payment_intents", data=PAYMENT | change, headers=headers, timeout=60)


def test_the_same_request_again_gets_the_same_bytes(shop: Shop) -> None:
    first, second = post(shop, "k-1"), post(shop, "k-1")
    assert (first.status_code, first.content) == (second.status_code, second.content)
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.headers["Original-Request"] == first.headers["Request-Id"]
    assert shop.only_entry()["charges"] == 1


def test_a_decline_is_replayed_too(shop: Shop) -> None:
    first = post(shop, "k-1", payment_method="pm_card_chargeDeclined")
    again = post(shop, "k-1", payment_method="pm_card_chargeDeclined")
    assert (first.status_code, first.content) == (402, again.content)
    assert shop.only_entry()["declines"] == 1


def test_a_refused_parameter_does_not_use_up_the_key(shop: Shop) -> None:
    assert post(shop, "k-1", amount="0").status_code == 400
    assert post(shop, "k-1").status_code == 200


def test_the_same_key_with_other_parameters_is_refused(shop: Shop) -> None:
    shop.pay(options={"idempotency_key": "k-1"})
    with pytest.raises(stripe.IdempotencyError) as caught:
        shop.pay(amount=2000, options={"idempotency_key": "k-1"})
    assert caught.value.http_status == 400
    assert shop.only_entry()["authorized"] == 1000


def test_a_key_that_is_still_at_work_is_a_conflict(shop: Shop) -> None:
    body = {"operation": "authorize", "fault": "slow", "seconds": 1.5}
    shop.control("/_faults", body)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: post(shop, "k-1"), range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert refused.json()["error"]["code"] == "idempotency_key_in_use"


@pytest.mark.concurrency
def test_fifty_threads_with_one_key_make_one_charge(shop: Shop) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: post(shop, "k-1"), range(50)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert len({answer.content for answer in answers if answer.status_code == 200}) == 1
    entry = shop.only_entry()
    assert (entry["charges"], entry["captures"], entry["idempotency_keys"]) == (1, 1, ["k-1"])


@pytest.mark.concurrency
def test_thirty_two_threads_of_the_sdk_each_get_their_own_payment(shop: Shop) -> None:
    with ThreadPoolExecutor(32) as pool:
        intents = list(pool.map(lambda number: shop.pay(f"pm_card_visa_{number}", 100 + number), range(96)))
    assert {intent.amount for intent in intents} == set(range(100, 196))
    total = shop.books()["totals"]["eur"]
    assert (total["charges"], total["captured"]) == (96, sum(range(100, 196)))


@pytest.mark.concurrency
def test_two_captures_or_refunds_at_once_never_take_more_than_there_is(shop: Shop) -> None:
    held, paid = shop.hold(), shop.pay()

    def attempt(call: Callable[[], object]) -> object:
        try:
            return call()
        except stripe.InvalidRequestError:
            return None

    intents, refunds = shop.client.v1.payment_intents, shop.client.v1.refunds
    with ThreadPoolExecutor(16) as pool:
        captures = [pool.submit(attempt, lambda: intents.capture(held.id)) for _ in range(8)]
        returns = [
            pool.submit(attempt, lambda: refunds.create({"payment_intent": paid.id, "amount": 400}))
            for _ in range(8)
        ]
        done = [sum(bool(one.result()) for one in some) for some in (captures, returns)]
    assert done == [1, 2]
    assert (shop.entry(held.id)["captured"], shop.entry(paid.id)["refunded"]) == (1000, 800)


def test_keys_and_books_outlive_a_restart(tmp_path: Path) -> None:
    def pay(url: str) -> requests.Response:
        headers = {"Authorization": "Bearer sk_test_x", "Idempotency-Key": "k-1"}
        return requests.post(f"{url}/v1/payment_intents", data=PAYMENT, headers=headers, timeout=60)

    with start(tmp_path) as running:
        first = pay(running.url)
    with start(tmp_path) as running:
        again = pay(running.url)
    assert (again.headers["Idempotent-Replayed"], again.content) == ("true", first.content)
