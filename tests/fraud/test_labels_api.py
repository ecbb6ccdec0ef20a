"""What turned out to be fraud, over the API: of the client's own orders, once under a key."""

from __future__ import annotations

from typing import Any

import pytest

from fraud.models import Label
from payments.models import Order
from payments.models.client import Scope
from tests.factories import ApiKeyFactory, OrderFactory
from tests.storefront import Storefront, assert_problem

pytestmark = pytest.mark.django_db


@pytest.fixture
def shop() -> Storefront:
    return Storefront(ApiKeyFactory.create())


@pytest.fixture
def order(shop: Storefront) -> Order:
    made: Order = OrderFactory.create(client=shop.client)
    return made


def wish(order: Order, /, **members: Any) -> dict[str, Any]:
    return {"order": order.pk, "is_fraud": True, "reason": "Reported by phone", **members}


def test_an_order_is_labelled_once_under_its_key(shop: Storefront, order: Order) -> None:
    first = shop.post("labels", wish(order), idempotency_key="label-this-order-once")
    again = shop.post("labels", wish(order), idempotency_key="label-this-order-once")
    assert (first.status_code, first.content) == (200, again.content)
    label = Label.objects.get()
    assert (label.order_id, label.source, label.actor) == (order.pk, "api", f"api:{shop.client.name}")
    corrected = shop.post("labels", wish(order, is_fraud=False)).json()
    assert [row["is_fraud"] for row in shop.get(f"labels?order={order.pk}").json()["results"]] == [
        False,
        True,
    ]
    assert corrected["reason"] == "Reported by phone"


def test_another_clients_order_is_not_there(order: Order) -> None:
    other = Storefront(ApiKeyFactory.create())
    assert_problem(other.post("labels", wish(order)), 404, "not_found")
    Label.objects.create(order=order, is_fraud=True, source="manual", at=order.created_at)
    assert other.get("labels").json()["results"] == []


def test_what_a_person_said_is_shown_without_the_reason(shop: Storefront, order: Order) -> None:
    Label.objects.create(order=order, is_fraud=True, source="manual", reason="a gang", at=order.created_at)
    [row] = shop.get("labels?source=manual").json()["results"]
    assert row["reason"] == ""


@pytest.mark.parametrize(
    ("members", "pointer"),
    [({"is_fraud": "yes"}, "/is_fraud"), ({"reason": ""}, "/reason"), ({"reason": "x" * 201}, "/reason"),
     ({"order": 7}, "/order"), ({"colour": "red"}, "/colour")],
)  # fmt: skip
def test_a_label_that_is_not_valid_names_its_member(
    shop: Storefront, order: Order, members: dict[str, Any], pointer: str
) -> None:
    problem = assert_problem(shop.post("labels", wish(order, **members)), 400, "invalid_request")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert not Label.objects.exists()


@pytest.mark.parametrize(("method", "scope"), [("get", Scope.REVIEWS_READ), ("post", Scope.LABELS_WRITE)])
def test_each_operation_wants_its_scope(method: str, scope: str) -> None:
    others = Storefront(ApiKeyFactory.create(scopes=[value for value in Scope.values if value != scope]))
    assert_problem(getattr(others, method)("labels"), 403, "insufficient_scope")
    assert_problem(getattr(Storefront(None), method)("labels"), 401, "unauthorized")
