"""Who gets in, and who sees what."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import get_resolver
from django.utils import timezone

from payments import ids
from payments.kinds import OperationKind
from payments.models import ApiKey
from payments.models.client import Scope
from tests.factories import (
    ApiClientFactory,
    ApiKeyFactory,
    AttemptFactory,
    EventFactory,
    OperationFactory,
    OrderFactory,
    PaymentFactory,
)
from tests.factories.customers import OpenDisputeFactory, SavedPaymentMethodFactory
from tests.storefront import Storefront, assert_problem

ROUTES = [
    ("GET", "orders", Scope.ORDERS_READ),
    ("GET", "orders/{ord}", Scope.ORDERS_READ),
    ("GET", "refunds/{re}", Scope.ORDERS_READ),
    ("GET", "payments/{pay}", Scope.ORDERS_READ),
    ("GET", "events", Scope.EVENTS_READ),
    ("POST", "orders", Scope.ORDERS_WRITE),
    ("POST", "orders/{ord}/confirm", Scope.ORDERS_WRITE),
    ("POST", "orders/{ord}/capture", Scope.ORDERS_WRITE),
    ("POST", "orders/{ord}/cancel", Scope.ORDERS_WRITE),
    ("POST", "orders/{ord}/refunds", Scope.REFUNDS_WRITE),
    ("GET", "customers", Scope.CUSTOMERS_WRITE),
    ("POST", "customers", Scope.CUSTOMERS_WRITE),
    ("GET", "customers/{cus}", Scope.CUSTOMERS_WRITE),
    ("DELETE", "customers/{cus}", Scope.CUSTOMERS_WRITE),
    ("GET", "customers/{cus}/payment_methods", Scope.CUSTOMERS_WRITE),
    ("DELETE", "customers/{cus}/payment_methods/{spm}", Scope.CUSTOMERS_WRITE),
    ("GET", "disputes", Scope.DISPUTES_READ),
    ("GET", "disputes/{dp}", Scope.DISPUTES_READ),
    ("POST", "disputes/{dp}/evidence", Scope.DISPUTES_WRITE),
    ("DELETE", "disputes/{dp}/evidence/{kind}", Scope.DISPUTES_WRITE),
    ("POST", "disputes/{dp}/submit", Scope.DISPUTES_WRITE),
    ("POST", "disputes/{dp}/accept", Scope.DISPUTES_WRITE),
]
OBJECT_ROUTES = [route for route in ROUTES if "{" in route[1]]
FIXED_IDS = {prefix: ids.new_id(prefix) for prefix in ("ord", "pay", "re", "cus", "spm", "dp")}
FIXED_IDS["kind"] = "receipt"


def call(storefront: Storefront, method: str, path: str, names: dict[str, str] = FIXED_IDS) -> Any:
    address = path.format(**names)
    return getattr(storefront, method.lower())(address)


@pytest.mark.django_db
@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_a_request_without_a_key_is_refused(method: str, path: str, scope: str) -> None:
    response = call(Storefront(None), method, path)
    assert_problem(response, 401, "unauthorized")
    assert response["WWW-Authenticate"] == 'Bearer realm="api"'
    assert response["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "header",
    [
        "Basic dXNlcjpwYXNz",
        "Bearer",
        "Bearer x",
        "Bearer aaaaaaaa.bbbb",
        "Bearer a.b.c",
        "aaaaaaaa.bbbb",
        "Bearer a.é",
    ],
)
@pytest.mark.django_db
def test_a_wrong_header_is_refused(header: str) -> None:
    response = Client().get("/api/v1/orders", headers={"Authorization": header})
    assert_problem(response, 401, "unauthorized")
    assert response["WWW-Authenticate"] == 'Bearer realm="api"'


def test_the_prefix_of_a_key_is_not_the_key(shop: Storefront) -> None:
    shop.key.secret = shop.key.prefix + "." + "x" * 32
    assert_problem(shop.get("orders"), 401, "unauthorized")


@pytest.mark.django_db
@pytest.mark.parametrize(
    "make_key",
    [
        lambda: ApiKeyFactory.create(expiry_date=timezone.now() - timedelta(seconds=1)),
        lambda: ApiKeyFactory.create(revoked=True),
        lambda: ApiKeyFactory.create(client=ApiClientFactory.create(is_active=False)),
    ],
    ids=["expired", "revoked", "client off"],
)
def test_a_dead_key_is_refused(make_key: Callable[[], Any]) -> None:
    assert_problem(Storefront(make_key()).get("orders"), 401, "unauthorized")


def test_a_key_is_stored_as_a_hash_only(shop: Storefront) -> None:
    row = ApiKey.objects.values().get(pk=shop.key.pk)
    secret = shop.key.secret.partition(".")[2]
    assert secret not in str(row)


def test_two_keys_of_a_client_live_while_it_rotates(shop: Storefront) -> None:
    second = Storefront(ApiKeyFactory.create(client=shop.client))
    assert shop.get("orders").status_code == second.get("orders").status_code == 200


def test_the_time_of_use_is_written_once_a_minute(shop: Storefront, django_assert_num_queries: Any) -> None:
    shop.get("events")
    first = ApiKey.objects.get(pk=shop.key.pk).last_used_at
    assert first is not None
    with django_assert_num_queries(2):  # the key, the events
        shop.get("events")
    ApiKey.objects.filter(pk=shop.key.pk).update(last_used_at=first - timedelta(minutes=2))
    shop.get("events")
    last = ApiKey.objects.get(pk=shop.key.pk).last_used_at
    assert last is not None
    assert last > first


@pytest.mark.django_db
@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_every_route_wants_its_scope(method: str, path: str, scope: str) -> None:
    others = [value for value in Scope.values if value != scope]
    problem = assert_problem(
        call(Storefront(ApiKeyFactory.create(scopes=others)), method, path), 403, "insufficient_scope"
    )
    assert scope in problem["detail"]


@pytest.mark.django_db
@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_the_one_scope_is_enough(method: str, path: str, scope: str) -> None:
    response = call(Storefront(ApiKeyFactory.create(scopes=[scope])), method, path)
    assert response.status_code in (200, 400, 404)


def test_the_matrix_above_names_every_route() -> None:
    routes = {str(pattern.pattern) for pattern in get_resolver("payments.api.urls").url_patterns}
    assert len(routes - {"oauth/token"}) == len({path for _, path, _ in ROUTES})  # it is how one gets in


def test_a_staff_session_does_not_open_the_api(admin_client: Client) -> None:
    assert_problem(admin_client.get("/api/v1/orders"), 401, "unauthorized")


@pytest.fixture
def foreign_ids(other_shop: Storefront) -> dict[str, str]:
    """One of each of another shop's objects."""
    payment = PaymentFactory.create(order__client=other_shop.client, is_captured=True)
    refund = OperationFactory.create(
        attempt=AttemptFactory.create(payment=payment), kind=OperationKind.REFUND
    )
    EventFactory.create(order=payment.order)
    saved = SavedPaymentMethodFactory.create(customer__client=other_shop.client)
    dispute = OpenDisputeFactory.create(payment=payment)
    ours = {"cus": saved.customer.storefront_id, "spm": saved.pk, "dp": dispute.pk, "kind": "receipt"}
    return {"ord": payment.order_id, "pay": payment.pk, "re": refund.pk, **ours}


@pytest.mark.parametrize(("method", "path", "scope"), OBJECT_ROUTES)
def test_another_clients_object_does_not_exist(
    method: str, path: str, scope: str, shop: Storefront, other_shop: Storefront, foreign_ids: dict[str, str]
) -> None:
    foreign = assert_problem(call(shop, method, path, foreign_ids), 404, "not_found")
    unknown = assert_problem(call(shop, method, path), 404, "not_found")
    malformed = assert_problem(call(shop, method, path, dict.fromkeys(FIXED_IDS, "%00'x")), 404, "not_found")
    foreign.pop("request_id"), unknown.pop("request_id"), malformed.pop("request_id")
    assert foreign == unknown == malformed
    if method == "GET":
        assert call(other_shop, method, path, foreign_ids).status_code == 200


@pytest.mark.parametrize("path", ["orders", "events"])
def test_lists_show_only_ones_own(path: str, shop: Storefront, foreign_ids: dict[str, str]) -> None:
    mine = EventFactory.create(
        order=PaymentFactory.create(order=OrderFactory.create(client=shop.client)).order
    )
    [only] = shop.get(path).json()["results"]
    assert only["id"] == (mine.order_id if path == "orders" else mine.pk)


def test_internal_events_are_not_shown(shop: Storefront) -> None:
    EventFactory.create(order__client=shop.client, is_public=False)
    assert shop.get("events").json()["results"] == []


def test_a_view_that_declares_no_scope_is_closed(shop: Storefront, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("payments.api.views.EventView.required_scopes", {})
    assert_problem(shop.get("events"), 403, "insufficient_scope")
