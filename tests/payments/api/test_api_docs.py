"""The documentation in a real browser, under our own Content-Security-Policy."""

from __future__ import annotations

import os
from typing import Any

import pytest
from playwright.sync_api import Browser, expect


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_documentation_works_offline_and_under_the_policy(
    scheme: Any, chromium: Browser, live_server: Any
) -> None:
    page = chromium.new_page(color_scheme=scheme, viewport={"width": 390, "height": 900})
    complaints: list[str] = []
    foreign: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: foreign.append(request.url))
    page.goto(f"{live_server.url}/api/docs/")
    expect(page.get_by_text("Place and pay an order")).to_be_visible(timeout=60_000)
    expect(page.get_by_text("Refund an order, wholly or in part")).to_be_visible()
    page.get_by_text("Place and pay an order").click()
    expect(page.get_by_text('curl "$SHOP/api/v1/orders"').first).to_be_visible()
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(250, 250, 250)", "dark": "rgb(28, 32, 34)"}[scheme]
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    if shots := os.environ.get("SHOTS"):
        page.screenshot(path=f"{shots}/docs-{scheme}.png")
    page.close()
    assert complaints == []
    assert [url for url in foreign if not url.startswith((live_server.url, "data:", "blob:"))] == []
