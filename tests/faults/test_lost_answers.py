"""Answers of the gateway that are lost on either side of its act: the order is paid, and once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.journeys.shop import HASTE, Shop, free_url, run_together
from tests.journeys.waiting import wait_until

pytestmark = pytest.mark.faults

FAULTS = ("timeout_after", "timeout_before", "reset_after", "500_after")
TOKENS = ("tok_timeout_after", "tok_timeout_before", "tok_reset_after", "tok_500_after", "tok_network_twice")


@pytest.fixture(scope="module")
def hasty(shop: Shop) -> Iterator[str]:
    """The address of a web process that gives a lost answer up soon."""
    url = free_url()
    web = shop.start_web("hasty web", url=url, **HASTE)
    yield url
    web.stop(5)


@pytest.fixture(scope="module")
def orders(shop: Shop, hasty: str) -> dict[str, str]:
    """The id of the order placed with each token, all at once, among others that go well."""
    run_together(6, lambda _: shop.pay())  # or the circuit breaker would rightly see a gateway that fails
    answers = run_together(
        len(TOKENS), lambda number: shop.place(payment_method=f"{TOKENS[number]}_lost", url=hasty)
    )
    assert {answer.status_code for answer in answers} <= {201, 202}, [answer.text for answer in answers]
    return {token: answer.json()["id"] for token, answer in zip(TOKENS, answers, strict=True)}


@pytest.mark.parametrize("token", TOKENS)
def test_a_lost_answer_is_asked_for_and_paid_once(shop: Shop, orders: dict[str, str], token: str) -> None:
    order = shop.await_state(orders[token], "paid")
    assert order["payment"]["captured"] == 12950
    intent = shop.intent(orders[token])
    assert (intent["charges"], intent["captures"], intent["released"]) == (1, 1, 0)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lost_answer_of_the_capture_is_asked_for(shop: Shop, hasty: str, fault: str) -> None:
    order_id = shop.place(capture="manual").json()["id"]
    shop.control("/_faults", {"operation": "capture", "fault": fault, "match": {"order_id": order_id}})
    answer = shop.post(f"orders/{order_id}/capture", url=hasty)
    assert answer.status_code in (200, 202), answer.text
    shop.await_state(order_id, "paid")
    intent = shop.intent(order_id)
    assert (intent["charges"], intent["captures"], intent["captured"]) == (1, 1, 12950)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lost_answer_of_the_refund_is_asked_for(shop: Shop, hasty: str, fault: str) -> None:
    order_id = shop.pay()["id"]
    shop.control("/_faults", {"operation": "refund", "fault": fault, "match": {"order_id": order_id}})
    answer = shop.post(f"orders/{order_id}/refunds", {"amount": 950}, url=hasty)
    assert answer.status_code in (201, 202), answer.text
    refund = f"refunds/{answer.json()['id']}"
    wait_until(lambda: shop.get(refund)["state"] == "succeeded", what=lambda: shop.get(refund))
    intent = shop.intent(order_id)
    assert (intent["captures"], intent["refunds"], intent["refunded"]) == (1, 1, 950)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lost_answer_of_the_void_is_asked_for(shop: Shop, hasty: str, fault: str) -> None:
    order_id = shop.place(capture="manual").json()["id"]
    shop.control("/_faults", {"operation": "cancel", "fault": fault, "match": {"order_id": order_id}})
    answer = shop.post(f"orders/{order_id}/cancel", url=hasty)
    assert answer.status_code in (200, 202), answer.text
    shop.await_state(order_id, "canceled")
    intent = shop.intent(order_id)
    assert (intent["charges"], intent["cancels"], intent["released"]) == (1, 1, 12950)


def test_the_ledger_holds_after_all_of_it(shop: Shop, orders: dict[str, str]) -> None:
    shop.assert_books_hold()
