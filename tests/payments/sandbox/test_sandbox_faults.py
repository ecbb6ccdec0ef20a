"""Each fault does what its name says, and the books tell what really happened."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
import stripe

from payments.sandbox import Sandbox
from tests.payments.sandbox.shop import PATIENCE, Endpoint, Shop, wait_until

KEY: stripe.RequestOptions = {"idempotency_key": "k-1"}


@pytest.mark.parametrize("token", ["tok_timeout_after", "tok_reset_after"])
def test_a_lost_answer_hides_a_payment_that_was_made(shop: Shop, hurried: Shop, token: str) -> None:
    with pytest.raises(stripe.APIConnectionError):
        hurried.pay(token, options=KEY)
    wait_until(lambda: shop.books()["totals"] != {})
    assert shop.only_entry()["captures"] == 1
    assert shop.pay(token, options=KEY).status == "succeeded"
    assert shop.only_entry()["captures"] == 1


def test_a_request_lost_on_its_way_did_nothing(sandbox: Sandbox, shop: Shop, hurried: Shop) -> None:
    with pytest.raises(stripe.APIConnectionError):
        hurried.pay("tok_timeout_before", options=KEY)
    assert sandbox.server.await_silence(1, seconds=PATIENCE)
    assert shop.books()["payment_intents"] == {}
    assert shop.pay("tok_timeout_before", options=KEY).status == "succeeded"
    assert shop.only_entry()["captures"] == 1


def test_the_network_fails_twice_and_the_third_attempt_pays(
    shop: Shop, stubborn: stripe.StripeClient
) -> None:
    assert dataclasses.replace(shop, client=stubborn).pay("tok_network_twice").status == "succeeded"
    assert shop.only_entry()["charges"] == 1


def test_each_key_meets_the_fault_of_its_token(shop: Shop) -> None:
    for key in ("k-1", "k-2"):
        with pytest.raises(stripe.APIError):
            shop.pay("tok_500_after", options={"idempotency_key": key})
    assert shop.books()["totals"]["eur"]["charges"] == 2


def test_an_error_after_the_act_is_followed_by_the_true_answer(shop: Shop) -> None:
    with pytest.raises(stripe.APIError) as caught:
        shop.pay("tok_500_after", options=KEY)
    assert caught.value.http_status == 500
    assert shop.pay("tok_500_after", options=KEY).status == "succeeded"
    assert shop.only_entry()["charges"] == 1


def test_a_wrong_amount_is_answered_while_the_books_are_right(shop: Shop) -> None:
    intent = shop.pay("tok_wrong_amount")
    assert (intent.amount, intent.amount_received) == (1001, 1001)
    assert shop.client.v1.payment_intents.retrieve(intent.id).amount == 1000
    assert shop.entry(intent.id)["captured"] == 1000


def test_a_slow_token_outlasts_a_hasty_client(hurried: Shop, shop: Shop) -> None:
    with pytest.raises(stripe.APIConnectionError):
        hurried.pay("tok_slow")
    assert shop.pay("tok_slow").status == "succeeded"


def test_a_capture_is_declined_while_the_hold_stays(shop: Shop) -> None:
    held = shop.hold("tok_capture_fails")
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            shop.client.v1.payment_intents.capture(held.id)
    assert shop.client.v1.payment_intents.retrieve(held.id).status == "requires_capture"
    assert shop.client.v1.payment_intents.cancel(held.id).status == "canceled"
    entry = shop.entry(held.id)
    assert (entry["capture_failures"], entry["captures"], entry["released"]) == (2, 0, 1000)


def test_a_capture_that_fails_once_works_the_second_time(shop: Shop) -> None:
    held = shop.hold("tok_capture_fails_once")
    with pytest.raises(stripe.CardError):
        shop.client.v1.payment_intents.capture(held.id)
    assert shop.client.v1.payment_intents.capture(held.id).status == "succeeded"


def test_a_refund_that_fails_later_gives_the_money_back_to_the_shop(shop: Shop, listening: Endpoint) -> None:
    intent = shop.pay("tok_refund_fails_later")
    refund = shop.client.v1.refunds.create({"payment_intent": intent.id})
    assert refund.status == "pending"
    listening.wait_for(lambda events: any(event.type == "refund.failed" for event in events))
    assert shop.client.v1.refunds.retrieve(refund.id).status == "failed"
    entry = shop.entry(intent.id)
    assert (entry["refunds"], entry["refund_failures"], entry["refunded"]) == (1, 1, 0)
    assert shop.client.v1.balance.retrieve().available[0].amount == 1000 - 54


@pytest.mark.parametrize("fault", ["timeout_after", "timeout_before", "reset_after", "reset_before"])
@pytest.mark.parametrize("operation", ["authorize", "capture", "cancel", "refund", "retrieve"])
def test_any_operation_can_go_unanswered(
    sandbox: Sandbox, shop: Shop, hurried: Shop, fault: str, operation: str
) -> None:
    held, paid = shop.hold(), shop.pay()

    def call(one: Shop) -> object:
        intents = one.client.v1.payment_intents
        calls: dict[str, Callable[[], object]] = {
            "authorize": lambda: one.pay(options=KEY),
            "capture": lambda: intents.capture(held.id, options=KEY),
            "cancel": lambda: intents.cancel(held.id, options=KEY),
            "refund": lambda: one.client.v1.refunds.create({"payment_intent": paid.id}, options=KEY),
            "retrieve": lambda: intents.retrieve(held.id),
        }
        return calls[operation]()

    def effects() -> int:
        total = shop.books()["totals"]["eur"]
        return sum(total[name] for name in ("captures", "cancels", "refunds"))

    before, hangs = effects(), fault.startswith("timeout")
    shop.control("/_faults", {"operation": operation, "fault": fault})
    with pytest.raises(stripe.APIConnectionError):
        call(hurried if hangs else shop)
    assert not hangs or sandbox.server.await_silence(1, seconds=PATIENCE)
    acts = operation != "retrieve"
    expected = 1 if acts and fault.endswith("after") else 0
    wait_until(lambda: effects() - before == expected)
    call(shop)
    assert effects() - before == (1 if acts else 0)


def test_a_fault_can_be_meant_for_one_order_and_a_number_of_times(shop: Shop) -> None:
    shop.control(
        "/_faults", {"operation": "capture", "fault": "500", "times": 2, "match": {"order_id": "o-1"}}
    )
    other, held = shop.hold(metadata={"order_id": "o-2"}), shop.hold(metadata={"order_id": "o-1"})
    assert shop.client.v1.payment_intents.capture(other.id).status == "succeeded"
    for _ in range(2):
        with pytest.raises(stripe.APIError):
            shop.client.v1.payment_intents.capture(held.id)
    assert shop.client.v1.payment_intents.capture(held.id).status == "succeeded"
    assert shop.control("/_faults", method="GET")["faults"] == []


def test_too_many_requests_are_a_rate_limit_error(shop: Shop) -> None:
    shop.control("/_faults", {"operation": "any", "fault": "429"})
    with pytest.raises(stripe.RateLimitError):
        shop.client.v1.balance.retrieve()


def test_faults_can_be_cleared_and_must_be_known(shop: Shop) -> None:
    shop.control("/_faults", {"operation": "any", "fault": "500", "times": 99})
    shop.control("/_faults", method="DELETE")
    assert shop.pay().status == "succeeded"
    for body in ({"fault": "meteor"}, {"operation": "any"}, {"fault": "500", "when": "now"}):
        assert requests.post(shop.url + "/_faults", json=body, timeout=60).status_code == 400


@pytest.mark.concurrency
def test_hanging_connections_do_not_keep_others_from_being_served(shop: Shop, hurried: Shop) -> None:
    def hang(number: int) -> None:
        with pytest.raises(stripe.APIConnectionError):
            hurried.pay("tok_timeout_after", options={"idempotency_key": f"k-{number}"})

    with ThreadPoolExecutor(40) as pool:
        hanging = [pool.submit(hang, number) for number in range(32)]
        assert shop.pay().status == "succeeded"
        for one in hanging:
            one.result()
    wait_until(lambda: shop.books()["totals"]["eur"]["charges"] == 33)
