"""Story 8: an analyst approves one order in the browser, which captures it, and rejects another, which voids it."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.journeys.shop import Shop

pytestmark = [pytest.mark.journey, pytest.mark.browser]

DEAR: dict[str, Any] = {"amount": 150000, "lines": []}  # above the limit from which an order is reviewed


def test_an_analyst_approves_one_order_and_rejects_another(shop: Shop, chromium: Browser) -> None:
    good, bad = (hold(shop, reference) for reference in ("story-8-good", "story-8-bad"))
    page = chromium.new_page(base_url=shop.url)
    log_in(page, "analyst", shop.passwords["analyst"])

    decide(page, "story-8-good", "Approve", "was approved")
    paid = shop.await_state(good, "paid")
    assert (paid["payment"]["captured"], paid["review"]) == (150000, None)
    assert (shop.intent(good)["captured"], shop.intent(good)["released"]) == (150000, 0)

    decide(page, "story-8-bad", "Reject", "was rejected")
    rejected = shop.await_state(bad, "blocked", "canceled")
    assert rejected["payment"]["captured"] == 0
    assert (shop.intent(bad)["captured"], shop.intent(bad)["released"]) == (0, 150000)
    page.close()


def hold(shop: Shop, reference: str) -> str:
    """An order that waits for an analyst: authorized, not captured."""
    response = shop.place(reference=reference, **DEAR)
    assert (response.status_code, response.json()["state"]) == (202, "review"), response.text
    order_id: str = response.json()["id"]
    assert (shop.intent(order_id)["charges"], shop.intent(order_id)["captures"]) == (1, 0)
    return order_id


def log_in(page: Page, username: str, password: str) -> None:
    page.goto("/admin/login/")
    page.fill("input[name=username]", username)
    page.fill("input[name=password]", password)
    page.press("input[name=password]", "Enter")
    page.wait_for_url("**/admin/")


def decide(page: Page, reference: str, action: str, told: str) -> None:
    """Open the case from the queue, choose the decision with its first reason, and send it."""
    page.goto("/admin/fraud/review/")
    page.get_by_role("link", name=reference).click()
    page.get_by_role("group", name=action).get_by_role("radio").first.check()
    page.get_by_role("button", name=f"{action}:").click()
    page.get_by_text(told).first.wait_for()
