"""Story 1: paid after two transient network errors."""

from __future__ import annotations

import pytest

from tests.journeys.shop import Shop

pytestmark = pytest.mark.journey


def test_an_order_is_paid_once_after_two_network_errors(shop: Shop) -> None:
    order = shop.pay(payment_method="tok_network_twice_story1")
    assert order["payment"]["captured"] == 12950
    intent = shop.intent(order["id"])
    assert (intent["charges"], intent["captures"], intent["captured"]) == (1, 1, 12950)
