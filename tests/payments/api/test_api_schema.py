"""The OpenAPI document: valid, complete, closed, and true."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import Client
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from payments import services
from payments.kinds import OperationKind
from payments.models import Order
from tests.factories import AttemptFactory, EventFactory, OperationFactory, PaymentFactory
from tests.payments.api.test_api_authentication import ROUTES
from tests.storefront import Storefront


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(
        json.dumps(SchemaGenerator().get_schema(request=None, public=True), default=str)
    )
    return made


def check(schema: dict[str, Any], part: dict[str, Any], instance: Any) -> None:
    whole = {**part, "components": schema["components"]}
    Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(instance)


def operations_of(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_it_is_valid_openapi_3_1(schema: dict[str, Any]) -> None:
    assert schema["openapi"] == "3.1.0"
    validate_schema(schema)


def test_it_is_served_and_so_are_its_pages(db: None) -> None:
    client = Client()
    served = client.get("/api/schema/", headers={"Accept": "application/vnd.oai.openapi+json"})
    assert served.json()["openapi"] == "3.1.0"
    page = client.get("/api/docs/")
    assert page.status_code == 200
    assert page.content.count(b"<script") == page.content.count(
        b"<script src="
    )  # the policy allows no inline script
    assert b"//cdn" not in page.content
    script = client.get("/api/docs/?script=")
    assert script["Content-Type"].startswith("application/javascript")
    assert b"SwaggerUIBundle" in script.content


def test_it_names_every_route_of_the_storefront(schema: dict[str, Any]) -> None:
    documented = {(method.upper(), path) for path, method, _ in operations_of(schema)}
    names = dict.fromkeys(("{ord}", "{re}", "{pay}", "{cus}", "{dp}"), "{id}") | {"{spm}": "{method_id}"}
    for method, route, _ in ROUTES:
        for ours, theirs in names.items():
            route = route.replace(ours, theirs)
        assert (method, f"/api/v1/{route}") in documented


def test_every_operation_wants_a_key_and_declares_its_problems(schema: dict[str, Any]) -> None:
    for path, method, operation in operations_of(schema):
        if path == "/api/v1/oauth/token":
            continue  # has errors of its own form
        key, token = operation["security"]
        assert (key, list(token)) == ({"apiKey": []}, ["accessToken"]), path
        assert len(token["accessToken"]) == 1, path
        problems = {status for status in operation["responses"] if status >= "400"}
        assert {"401", "403", "429", "500", "503"} <= problems
        if "{id}" in path:
            assert "404" in problems
        if method == "post" and path.startswith("/api/v1/orders"):
            assert {"400", "402", "409", "413", "415", "422"} <= problems
            headers = [p["name"] for p in operation["parameters"] if p["in"] == "header"]
            assert headers == ["Idempotency-Key", "Prefer"]
        for status in problems:
            assert list(operation["responses"][status]["content"]) == ["application/problem+json"]


def test_objects_are_closed(schema: dict[str, Any]) -> None:
    for name, component in schema["components"]["schemas"].items():
        # RFC 6749, 3.2: a token request's unknown parameters are ignored.
        if component.get("type") == "object" and name != "TokenRequest":
            assert component.get("additionalProperties") is False, name


def test_every_example_is_true(schema: dict[str, Any]) -> None:
    checked = 0
    for _, _, operation in operations_of(schema):
        for content in [operation.get("requestBody", {}), *operation["responses"].values()]:
            for media in content.get("content", {}).values():
                for example in media.get("examples", {}).values():
                    check(schema, media["schema"], example["value"])
                    checked += 1
    assert checked


@pytest.fixture
def answers(
    shop: Storefront, make_order: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, str, Any]]:
    """One live answer of each kind, with the path and method that gave it."""
    card = {"brand": "visa", "last4": "4242"}
    payment = PaymentFactory.create(
        order__client=shop.client, is_captured=True, card=card, last_error={"code": "x"}
    )
    refund = OperationFactory.create(
        attempt=AttemptFactory.create(payment=payment), kind=OperationKind.REFUND
    )
    EventFactory.create(order=payment.order)

    def place_order(client: Any, draft: Any, **kwargs: Any) -> Order:
        error = {"decline_code": "expired_card"}
        order: Order = PaymentFactory.create(
            order__client=client, order__state=draft.reference, last_error=error
        ).order
        return order

    monkeypatch.setattr(services, "place_order", place_order)
    monkeypatch.setattr(services, "refund_order", lambda *args, **kwargs: refund)
    order = f"orders/{payment.order_id}"
    placed = [
        ("/orders", "post", shop.post("orders", make_order(reference=state)))
        for state in ("paid", "review", "declined", "blocked", "canceled")
    ]
    return [
        *placed,
        ("/orders", "post", shop.post("orders", {})),
        ("/orders", "post", shop.post("orders", make_order(), idempotency_key="")),
        ("/orders", "get", shop.get("orders?page_size=1")),
        ("/orders", "get", shop.get("orders?page_size=0")),
        ("/orders", "get", Storefront(None).get("orders")),
        ("/orders/{id}", "get", shop.get(order)),
        ("/orders/{id}", "get", shop.get("orders/x")),
        ("/orders/{id}/refunds", "post", shop.post(f"{order}/refunds")),
        ("/refunds/{id}", "get", shop.get(f"refunds/{refund.pk}")),
        ("/payments/{id}", "get", shop.get(f"payments/{payment.pk}")),
        ("/events", "get", shop.get("events")),
    ]


def test_live_answers_are_as_declared(schema: dict[str, Any], answers: list[tuple[str, str, Any]]) -> None:
    statuses = set()
    for path, method, response in answers:
        declared = schema["paths"][f"/api/v1{path}"][method]["responses"][str(response.status_code)]
        media = declared["content"][response["Content-Type"].partition(";")[0]]
        check(schema, media["schema"], response.json())
        statuses.add(response.status_code)
    assert statuses == {200, 201, 202, 400, 401, 402, 403, 404, 409}
