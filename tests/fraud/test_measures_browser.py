"""The measures in a real browser, on a phone and in the dark: everything fits, and nothing is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from tests.factories.fraud import AssessmentFactory, LabelFactory, VerdictFactory

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture(params=["light", "dark"])
def page(
    request: Any, chromium: Browser, live_server: LiveServer, client: Client, complaints: list[str]
) -> Iterator[Page]:
    client.force_login(User.objects.create_superuser("ann"))
    session = client.cookies[settings.SESSION_COOKIE_NAME].value
    context = chromium.new_context(viewport={"width": 390, "height": 844}, color_scheme=request.param)
    context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}])
    page = context.new_page()
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()


def test_the_measures_fit_a_phone_and_sort_by_a_click(
    page: Page, live_server: LiveServer, complaints: list[str]
) -> None:
    for number in range(12):
        assessment = AssessmentFactory(stage="before")
        VerdictFactory(assessment=assessment, rule_name="Velocity of a card over a long day")
        VerdictFactory(assessment=assessment, rule_name="Blocklist", status="hit" if number < 4 else "miss")
        LabelFactory(order=assessment.order, is_fraud=number < 8)
    page.goto(live_server.url + reverse("admin:fraud_label_measures"))
    assert page.evaluate(WIDER) == 0
    rows = page.get_by_role("region", name="Rules").locator("tbody tr")
    expect(rows.first).to_contain_text("Velocity")
    page.get_by_role("link", name="Rule", exact=True).click()
    expect(rows.first).to_contain_text("Blocklist")
    rows.first.get_by_role("link").click()
    expect(page.get_by_role("heading", name="Blocklist", exact=True)).to_be_visible()
    assert page.evaluate(WIDER) == 0
    page.goto(live_server.url + reverse("admin:fraud_label_add"))
    assert page.evaluate(WIDER) == 0
    assert complaints == []
