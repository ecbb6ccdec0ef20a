"""Customers and their saved payment methods over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from payments.errors import NetworkError
from payments.models import Customer, Order, SavedPaymentMethod
from payments.services import customers
from tests.factories import OrderFactory, PaymentFactory
from tests.factories.customers import CustomerFactory, SavedPaymentMethodFactory
from tests.storefront import ORDER, Storefront, assert_problem

NEW = {"id": "cus_42", "email": "buyer@example.com", "name": "Bea Buyer"}


class Gateway:
    is_down = False

    def forget_payment_method(self, saved: Any) -> None:
        if self.is_down:
            raise NetworkError("The gateway is down.")


@pytest.fixture(autouse=True)
def gateway(monkeypatch: pytest.MonkeyPatch) -> Gateway:
    fake = Gateway()
    monkeypatch.setattr(customers, "get_gateway", lambda account: fake)
    return fake


@pytest.fixture
def saved(shop: Storefront) -> SavedPaymentMethod:
    method: SavedPaymentMethod = SavedPaymentMethodFactory.create(
        customer__client=shop.client, customer__storefront_id="cus_42", token="pm_secret"
    )
    return method


def test_a_customer_is_kept_read_and_brought_up_to_date(shop: Storefront) -> None:
    made = shop.post("customers", NEW, idempotency_key="")
    assert (made.status_code, made.json()["id"], made.json()["name"]) == (201, "cus_42", "Bea Buyer")
    again = shop.post("customers", {"id": "cus_42", "email": "new@example.com"})
    assert (again.status_code, again.json()["email"], again.json()["name"]) == (
        200,
        "new@example.com",
        "Bea Buyer",
    )
    assert shop.get("customers/cus_42").json() == again.json()
    assert [row["id"] for row in shop.get("customers").json()["results"]] == ["cus_42"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/id"),
        ({"id": 42}, "/id"),
        ({"id": "a/b"}, "/id"),
        ({"id": "erased:x"}, "/id"),
        ({"id": "x" * 101}, "/id"),
        ({"id": "c", "email": "no"}, "/email"),
        ({"id": "c", "token": "pm_1"}, "/token"),
    ],
)
def test_a_bad_customer_is_refused_by_pointer(shop: Storefront, body: dict[str, Any], pointer: str) -> None:
    problem = assert_problem(shop.post("customers", body), 400, "invalid_request")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert not Customer.objects.exists()


def test_a_card_number_as_a_name_is_refused(shop: Storefront) -> None:
    body = {"id": "c", "name": "4242 4242 4242 4242"}
    assert_problem(shop.post("customers", body), 422, "card_data_refused")


def test_saved_methods_are_listed_without_their_token(shop: Storefront, saved: SavedPaymentMethod) -> None:
    removed = {"removed_at": timezone.now(), "forget_at": timezone.now()}
    SavedPaymentMethodFactory.create(customer=saved.customer, **removed)
    answer = shop.get("customers/cus_42/payment_methods")
    [shown] = answer.json()["results"]
    assert (shown["id"], shown["brand"], shown["last4"]) == (saved.pk, "visa", "4242")
    assert b"pm_secret" not in answer.content
    assert b"cus_at_gateway" not in answer.content


def test_a_method_is_removed_once_and_for_all(shop: Storefront, saved: SavedPaymentMethod) -> None:
    address = f"customers/cus_42/payment_methods/{saved.pk}"
    assert [shop.delete(address).status_code for _ in range(2)] == [204, 204]
    assert shop.get("customers/cus_42/payment_methods").json()["results"] == []
    saved.refresh_from_db()
    assert saved.token == ""


def test_a_method_of_another_customer_is_not_found(shop: Storefront, saved: SavedPaymentMethod) -> None:
    CustomerFactory.create(client=shop.client, storefront_id="cus_43")
    assert_problem(shop.delete(f"customers/cus_43/payment_methods/{saved.pk}"), 404, "not_found")
    saved.refresh_from_db()
    assert saved.removed_at is None


def test_an_erasure_is_answered_and_may_be_repeated(shop: Storefront, saved: SavedPaymentMethod) -> None:
    first, again = shop.delete("customers/cus_42"), shop.delete("customers/cus_42")
    assert first.status_code == again.status_code == 200
    assert first.json() == {"state": "erased", "open_orders": 0, "open_tokens": 0} == again.json()
    assert_problem(shop.get("customers/cus_42"), 404, "not_found")
    assert_problem(shop.get("customers/cus_42/payment_methods"), 404, "not_found")


def test_an_erasure_with_open_ends_goes_on_by_itself(
    shop: Storefront, saved: SavedPaymentMethod, gateway: Gateway
) -> None:
    gateway.is_down = True
    PaymentFactory.create(
        order=OrderFactory.create(client=shop.client, customer_id="cus_42", state="processing")
    )
    answer = shop.delete("customers/cus_42")
    assert (answer.status_code, answer.json()) == (
        202,
        {"state": "erasing", "open_orders": 1, "open_tokens": 1},
    )


def test_an_order_with_somebody_elses_method_is_refused(
    shop: Storefront, other_shop: Storefront, saved: SavedPaymentMethod
) -> None:
    body = {**ORDER, "payment_method": saved.pk}
    problem = assert_problem(other_shop.post("orders", body), 400, "invalid_request")
    assert [error["pointer"] for error in problem["errors"]] == ["/payment_method"]
    assert "nothing was charged" in problem["detail"]
    assert not Order.objects.exists()


@pytest.mark.parametrize(
    ("members", "pointer"),
    [
        ({"save_payment_method": "yes"}, "/save_payment_method"),
        ({"save_payment_method": True, "customer": {}}, "/customer/id"),
        ({"off_session": 1}, "/off_session"),
        ({"off_session": True}, "/off_session"),
    ],
)
def test_the_flags_of_an_order_are_checked(shop: Storefront, members: dict[str, Any], pointer: str) -> None:
    problem = assert_problem(shop.post("orders", {**ORDER, **members}), 400, "invalid_request")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]


def test_answers_are_as_the_schema_declares_them(
    shop: Storefront, saved: SavedPaymentMethod, gateway: Gateway
) -> None:
    schema = json.loads(json.dumps(SchemaGenerator().get_schema(request=None, public=True), default=str))
    method = f"customers/cus_42/payment_methods/{saved.pk}"
    listed, one = "/customers/{id}/payment_methods", "/customers/{id}/payment_methods/{method_id}"
    answers = [
        ("/customers", "post", shop.post("customers", NEW)),
        ("/customers", "post", shop.post("customers", {**NEW, "id": "new"})),
        ("/customers", "post", shop.post("customers", {})),
        ("/customers", "get", shop.get("customers")),
        ("/customers", "get", shop.get("customers?page_size=0")),
        ("/customers/{id}", "get", shop.get("customers/cus_42")),
        ("/customers/{id}", "get", shop.get("customers/none")),
        (listed, "get", shop.get("customers/cus_42/payment_methods")),
        (listed, "get", shop.get("customers/cus_42/payment_methods?page_size=0")),
        (one, "delete", shop.delete(f"{method}x")),
        (one, "delete", shop.delete(method)),
        ("/customers/{id}", "delete", shop.delete("customers/cus_42")),
    ]
    for path, verb, answer in answers:
        declared = schema["paths"][f"/api/v1{path}"][verb]["responses"][str(answer.status_code)]
        if answer.status_code == 204:
            assert "content" not in declared
            continue
        media = declared["content"][answer["Content-Type"].partition(";")[0]]
        whole = {**media["schema"], "components": schema["components"]}
        Draft202012Validator(whole).validate(answer.json())
    assert {answer.status_code for _, _, answer in answers} == {200, 201, 204, 400, 404}
