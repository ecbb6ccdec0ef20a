"""Customers, the payment methods that they leave with the shop, and charges that they are not there for."""

from typing import Any

import pytest
import stripe

from tests.payments.sandbox.shop import CARD, Shop


def save(shop: Shop, token: str = CARD) -> tuple[str, str]:
    """A customer and the payment method that was kept of a first payment."""
    customer = shop.client.v1.customers.create({"metadata": {"customer_id": "c-1"}})
    paid = shop.pay(token, customer=customer.id, setup_future_usage="off_session")
    if paid.status == "requires_action":
        shop.control(f"/_authenticate/{paid.id}", {"success": True})
    return customer.id, paid.payment_method


def test_a_kept_method_belongs_to_its_customer(shop: Shop) -> None:
    customer, method = save(shop)
    methods = shop.client.v1.payment_methods
    assert methods.retrieve(method).customer == customer
    assert [one.id for one in methods.list({"customer": customer}).data] == [method]
    assert shop.client.v1.customers.retrieve(customer).metadata["customer_id"] == "c-1"


def test_a_method_is_kept_only_when_that_was_asked_for(shop: Shop) -> None:
    customer = shop.client.v1.customers.create().id
    paid = shop.pay(customer=customer)
    assert shop.client.v1.payment_methods.retrieve(paid.payment_method).customer is None


def test_a_declined_card_is_not_kept(shop: Shop) -> None:
    customer = shop.client.v1.customers.create().id
    with pytest.raises(stripe.CardError):
        shop.pay("pm_card_chargeDeclined", customer=customer, setup_future_usage="off_session")
    assert shop.client.v1.payment_methods.list({"customer": customer}).data == []


def test_a_kept_method_is_charged_without_its_holder_but_for_its_customer_alone(shop: Shop) -> None:
    customer, method = save(shop)
    assert shop.pay(method, customer=customer, off_session=True).status == "succeeded"
    other = shop.client.v1.customers.create().id
    for wrong in ({}, {"customer": other}):
        with pytest.raises(stripe.InvalidRequestError, match="belongs to the Customer"):
            shop.pay(method, off_session=True, **wrong)


@pytest.mark.parametrize(
    ("token", "is_paid"),
    [("pm_card_authenticationRequired", False), ("pm_card_authenticationRequiredOnSetup", True)],
)
def test_a_card_may_need_its_holder_each_time_or_only_the_first(
    shop: Shop, token: str, is_paid: bool
) -> None:
    customer, method = save(shop, token)
    if is_paid:
        assert shop.pay(method, customer=customer, off_session=True).status == "succeeded"
        return
    with pytest.raises(stripe.CardError) as caught:
        shop.pay(method, customer=customer, off_session=True)
    error: Any = caught.value.error
    assert (error.code, error.decline_code) == ("authentication_required", "authentication_required")


def test_a_detached_method_is_never_used_again(shop: Shop) -> None:
    customer, method = save(shop)
    methods = shop.client.v1.payment_methods
    assert methods.detach(method).customer is None
    with pytest.raises(stripe.InvalidRequestError, match="not attached"):
        methods.detach(method)
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        methods.attach(method, {"customer": customer})
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        shop.pay(method, customer=customer)


def test_a_customer_that_does_not_exist_is_named(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.pay(customer="cus_nobody")
    assert (caught.value.param, caught.value.code) == ("customer", "resource_missing")
