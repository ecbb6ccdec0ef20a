"""The documentation in a real browser, under our own Content-Security-Policy."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Browser, expect


@pytest.mark.browser
def test_the_documentation_works_offline_and_under_the_policy(chromium: Browser, live_server: Any) -> None:
    page = chromium.new_page()
    complaints: list[str] = []
    foreign: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: foreign.append(request.url))
    page.goto(f"{live_server.url}/api/docs/")
    expect(page.get_by_text("Place and pay an order")).to_be_visible()
    expect(page.get_by_text("Refund an order, wholly or in part")).to_be_visible()
    page.close()
    assert complaints == []
    assert [url for url in foreign if not url.startswith((live_server.url, "data:", "blob:"))] == []
