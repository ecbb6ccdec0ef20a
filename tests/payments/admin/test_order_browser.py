"""The order page in a real browser: under the site's own policy, nothing is refused and the dialogs work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.conf import settings
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from payments.models import Order, Payment
from tests.fakes import FakeGateway
from tests.payments.admin.conftest import Login

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def page(
    chromium: Browser, live_server: LiveServer, log_in: Login, paid: Order, complaints: list[str]
) -> Iterator[Page]:
    """The paid order's page, open before a finance clerk with a phone."""
    session = log_in("Finance").cookies[settings.SESSION_COOKIE_NAME].value
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}])
    page = context.new_page()
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{live_server.url}/admin/payments/order/{paid.pk}/change/")
    yield page
    context.close()


def test_a_part_is_refunded_through_the_dialog(
    page: Page, gateway: FakeGateway, complaints: list[str]
) -> None:
    page.get_by_role("button", name="Refund", exact=True).click()
    dialog = page.locator("#refund-dialog")
    dialog.get_by_label("Amount in EUR").fill("29.5")
    expect(dialog).to_contain_text("After this: refunded or pending 29.50 EUR, still refundable 100.00 EUR.")
    dialog.get_by_label("Amount in EUR").fill("129.51")
    expect(dialog).to_contain_text("more than the 129.50 EUR left")
    dialog.get_by_label("Amount in EUR").fill("29.5")
    dialog.get_by_role("button", name="Refund", exact=True).click()
    expect(page.locator("#sum-line")).to_contain_text("€100.00 still refundable")
    assert list(gateway.refunds.values()) == [2950]
    assert complaints == []


def test_rows_of_one_gateway_reference_light_up_together(page: Page, paid: Order) -> None:
    reference = Payment.objects.get(order=paid).gateway_reference
    rows = page.locator(f'[data-ref="{reference}"]')
    assert rows.count() >= 4
    rows.first.hover()
    assert page.locator(".bo-lit").count() == rows.count()


def test_the_phone_needs_no_scrolling_sideways(page: Page) -> None:
    wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wider) == 0
