"""The curl of every operation of webhooks works as it stands, and the schema says what is answered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from pytest_django.live_server_helper import LiveServer

from payments.events import CATALOGUE
from payments.models.client import Scope
from tests.factories import ApiKeyFactory
from tests.factories.webhooks import DeliveryFactory, EndpointFactory
from tests.payments.api.test_api_samples import run
from tests.storefront import Storefront, assert_problem
from webhooks.models import DeliveryState, Endpoint

OPERATIONS = 16


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    made = SchemaGenerator().get_schema(request=None, public=True)
    whole: dict[str, Any] = json.loads(json.dumps(made, default=str))
    return whole


def make_names(key: Any, operation: str) -> dict[str, str]:
    """An endpoint with a delivery that failed."""
    endpoint = EndpointFactory.create(client=key.client, is_enabled=operation != "webhook_endpoint_enable")
    delivery = DeliveryFactory.create(endpoint=endpoint, state=DeliveryState.FAILED, next_try_at=None)
    delivery.tries.create(started_at=delivery.created_at, duration_ms=7, status=500, answer="no")
    return {"WEBHOOK_ENDPOINT": endpoint.pk, "DELIVERY_ID": delivery.pk, "NAME": "order.paid"}


@pytest.mark.django_db(transaction=True)
def test_the_sample_of_every_operation_works(live_server: LiveServer, schema: dict[str, Any]) -> None:
    operations = [
        operation
        for methods in schema["paths"].values()
        for operation in methods.values()
        if operation["tags"][0] in ("webhook_endpoints", "event_types")
    ]
    assert len(operations) == OPERATIONS
    for operation in operations:
        key: Any = ApiKeyFactory.create()
        names = make_names(key, operation["operationId"]) | {"SHOP": live_server.url, "KEY": key.secret}
        answer = run(operation["x-codeSamples"][0]["source"], names)
        assert answer.returncode == 0, (operation["operationId"], answer.stdout + answer.stderr)
        check_answer(schema, operation, answer.stdout)
    assert Endpoint.objects.filter(url__contains="shop.example").exists()


def check_answer(schema: dict[str, Any], operation: dict[str, Any], text: str) -> None:
    [status] = [status for status in operation["responses"] if status < "300"]
    if status == "204":
        assert text == ""
        return
    declared = operation["responses"][status]["content"]["application/json"]["schema"]
    whole = declared | {"components": schema["components"]}
    validator = Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER)
    validator.validate(json.loads(text))


def test_the_document_has_every_message_with_its_schema(schema: dict[str, Any]) -> None:
    assert list(schema["webhooks"]) == list(CATALOGUE)
    for name, item in schema["webhooks"].items():
        content = item["post"]["requestBody"]["content"]["application/json"]
        Draft202012Validator(content["schema"]).validate(content["examples"][name]["value"])


@pytest.mark.django_db
def test_the_catalogue_is_read_as_a_whole_and_one_by_one() -> None:
    shop = Storefront(ApiKeyFactory.create(scopes=[Scope.EVENTS_READ]))
    rows = shop.get("event_types").json()["results"]
    assert [row["name"] for row in rows] == list(CATALOGUE)
    one = shop.get("event_types/refund.succeeded").json()
    assert one in rows
    Draft202012Validator(one["schema"]).validate(one["example"])
    assert_problem(shop.get("event_types/order.payd"), 404, "not_found")
    assert_problem(shop.get("event_types?colour=red"), 400, "invalid_request")
    lesser = Storefront(ApiKeyFactory.create(scopes=[Scope.ORDERS_READ]))
    assert_problem(lesser.get("event_types"), 403, "insufficient_scope")
    assert_problem(Storefront(None).get("event_types/order.paid"), 401, "unauthorized")
