"""Story 9: 3-D Secure takes the customer to the bank and back; who stays away loses the hold at the deadline."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.journeys.shop import Shop, free_url

pytestmark = pytest.mark.journey

CARD = "pm_card_threeDSecure2Required"


@pytest.mark.browser
def test_the_customer_authenticates_and_the_order_is_paid(shop: Shop, chromium: Browser) -> None:
    order = challenge(shop, "story-9", return_url=f"{shop.url}/healthz")
    assert shop.intent(order["id"])["charges"] == 0

    page = chromium.new_page()
    page.goto(order["payment"]["next_action"]["redirect_to_url"]["url"])
    page.get_by_role("button", name="Authenticate").click()
    page.wait_for_url(f"{shop.url}/healthz?*")
    page.close()

    confirmed = shop.post(f"orders/{order['id']}/confirm")
    assert confirmed.status_code in (200, 202), confirmed.text
    paid = shop.await_state(order["id"], "paid")
    assert (paid["payment"]["captured"], paid["payment"]["next_action"]) == (12950, None)
    intent = shop.intent(order["id"])
    assert (intent["charges"], intent["captures"]) == (1, 1)


def test_an_abandoned_challenge_is_voided_at_its_deadline(shop: Shop) -> None:
    url = free_url()
    hasty = shop.start_web("hasty web", url=url, CUSTOMER_ACTION_SECONDS="5")
    try:
        order = challenge(shop, "story-9-abandoned", url=url)
        shop.await_state(order["id"], "expired")
    finally:
        hasty.stop(5)
    intent = shop.intent(order["id"])
    assert (intent["status"], intent["charges"], intent["captures"]) == ("canceled", 0, 0)
    shop.assert_books_hold()


def challenge(shop: Shop, reference: str, **changes: Any) -> dict[str, Any]:
    """An order that waits for its customer."""
    response = shop.place(
        reference=reference, payment_method=f"{CARD}_{reference.replace('-', '')}", **changes
    )
    order: dict[str, Any] = response.json()
    assert (response.status_code, order["state"]) == (201, "awaiting_customer"), response.text
    assert order["payment"]["next_action"]["type"] == "redirect_to_url"
    return order
