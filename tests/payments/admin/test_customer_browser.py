"""The customer's page in a real browser: an erasure through its dialog, on a phone, with nothing refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.conf import settings
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from payments.models import Customer
from payments.services import customers
from tests.factories import OrderFactory, PaymentFactory
from tests.factories.customers import SavedPaymentMethodFactory
from tests.payments.admin.conftest import Login

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]


@pytest.fixture
def customer(monkeypatch: pytest.MonkeyPatch) -> Customer:
    class Gateway:
        def forget_payment_method(self, saved: object) -> None:
            """Done."""

    monkeypatch.setattr(customers, "get_gateway", lambda account: Gateway())
    method = SavedPaymentMethodFactory(customer__storefront_id="cus_42")
    SavedPaymentMethodFactory(customer=method.customer, brand="mastercard", last4="4444", exp_year=2020)
    for state in ("paid", "processing"):
        order = OrderFactory(client=method.customer.client, customer_id="cus_42", state=state)
        PaymentFactory(order=order, is_captured=state == "paid")
    found: Customer = method.customer
    return found


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def page(
    chromium: Browser, live_server: LiveServer, log_in: Login, customer: Customer, complaints: list[str]
) -> Iterator[Page]:
    session = log_in("Admin").cookies[settings.SESSION_COOKIE_NAME].value
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}])
    page = context.new_page()
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{live_server.url}/admin/payments/customer/{customer.pk}/change/")
    yield page
    context.close()


def test_a_customer_is_erased_through_the_dialog(
    page: Page, customer: Customer, complaints: list[str]
) -> None:
    expect(page.get_by_text("·4242")).to_be_visible()
    expect(page.get_by_text("Expired")).to_be_visible()
    wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wider) == 0
    page.get_by_role("button", name="Erase customer", exact=True).click()
    dialog = page.locator("#erase-dialog")
    dialog.get_by_label("Reason").fill("Asked for by letter.")
    dialog.get_by_role("button", name="Erase customer", exact=True).click()
    expect(page.get_by_text("Orders not finished: 1;")).to_be_visible()
    expect(page.locator("body")).not_to_contain_text("buyer@example.com")
    expect(page.get_by_role("button", name="Erase customer", exact=True)).to_be_disabled()
    customer.refresh_from_db()
    assert customer.state == "erasing"
    assert complaints == []
