"""The pages of customers: masked, for who may see them, and an erasure that takes a POST, a right and a reason."""

from __future__ import annotations

import pytest
from django.urls import reverse

from payments.models import Customer
from payments.services import customers
from tests.factories import OrderFactory, PaymentFactory
from tests.factories.customers import SavedPaymentMethodFactory
from tests.payments.admin.conftest import Login

pytestmark = pytest.mark.django_db


@pytest.fixture
def customer(monkeypatch: pytest.MonkeyPatch) -> Customer:
    class Gateway:
        def forget_payment_method(self, saved: object) -> None:
            """Done."""

    monkeypatch.setattr(customers, "get_gateway", lambda account: Gateway())
    method = SavedPaymentMethodFactory(token="pm_secret", customer__storefront_id="cus_42")
    order = OrderFactory(
        client=method.customer.client, customer_id="cus_42", reference="web-77", state="paid"
    )
    PaymentFactory(order=order, is_captured=True)
    found: Customer = method.customer
    return found


def page_of(customer: Customer, action: str = "change") -> str:
    return reverse(f"admin:payments_customer_{action}", args=[customer.pk])


@pytest.mark.parametrize("role", ["Finance", "On-call", "Auditor", "Admin"])
def test_the_page_shows_cards_masked_and_orders(log_in: Login, customer: Customer, role: str) -> None:
    html = log_in(role).get(page_of(customer)).content.decode()
    assert "·4242" in html
    assert "web-77" in html
    assert "pm_secret" not in html
    assert "cus_at_gateway" not in html
    assert ("Erase customer" in html) == (role == "Admin")


def test_who_may_not_see_customers_does_not(log_in: Login, customer: Customer) -> None:
    assert log_in("Fraud analyst").get(page_of(customer)).status_code == 403


@pytest.mark.parametrize("term", ["cus_42", "buyer@example.com"])
def test_customers_are_found_by_what_a_person_holds_in_hand(
    log_in: Login, customer: Customer, term: str
) -> None:
    html = log_in("Finance").get(reverse("admin:payments_customer_changelist"), {"q": term}).content.decode()
    assert customer.pk.removeprefix("cus_") in html


def test_an_erasure_wants_a_post_a_right_and_a_reason(log_in: Login, customer: Customer) -> None:
    data = {"token": "t" * 20, "reason": "Asked for by letter."}
    assert log_in("Finance").post(page_of(customer, "erase"), data).status_code == 403
    client = log_in("Admin")
    assert client.get(page_of(customer, "erase")).status_code == 405
    assert client.post(page_of(customer, "erase"), {"token": "t" * 20}).status_code == 422
    customer.refresh_from_db()
    assert customer.state == "known"


def test_an_erasure_leaves_a_page_that_names_nobody(log_in: Login, customer: Customer) -> None:
    client = log_in("Admin")
    data = {"token": "t" * 20, "reason": "Asked for by letter."}
    html = client.post(page_of(customer, "erase"), data, follow=True).content.decode()
    assert "The customer is erased." in html
    assert "Asked for by letter." in html
    assert "cus_42" not in html
    assert "buyer@example.com" not in html
    assert "web-77" in html, "the order is still theirs, by its digest"
    customer.refresh_from_db()
    assert customer.state == "erased"
    assert customer.erasure_requested_by.startswith("user:")
