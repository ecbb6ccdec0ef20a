"""Every failure is a problem, and says no more than it should."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError
from django.test import Client, override_settings

from payments.api import throttling
from payments.api.errors import all_codes, list_errors
from tests.factories import ApiKeyFactory
from tests.storefront import Storefront, assert_problem


@pytest.mark.parametrize(
    ("method", "path"),
    [("delete", "orders"), ("put", "orders/x"), ("get", "orders/x/confirm"), ("options", "orders")],
)
def test_a_wrong_method_is_a_405(method: str, path: str, shop: Storefront) -> None:
    response = getattr(shop.http, method)(
        f"/api/v1/{path}", headers={"Authorization": f"Bearer {shop.key.secret}"}
    )
    assert_problem(response, 405, "method_not_allowed")
    assert response["Allow"]


def test_only_json_is_answered(shop: Storefront) -> None:
    assert_problem(shop.get("orders", accept="application/xml"), 406, "not_acceptable")


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["", "nothing", "orders/", "orders/x/y/z", "%0aFAKE"])
def test_an_unknown_address_is_a_problem_too(path: str) -> None:
    for method in ("get", "post", "delete"):
        assert_problem(getattr(Client(), method)(f"/api/v1/{path}"), 404, "not_found")


def test_a_crash_tells_the_request_id_and_nothing_else(
    shop: Storefront, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def crash(*args: Any) -> None:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr("payments.api.views.EventView.list_page", crash)
    with caplog.at_level(logging.ERROR):
        response = shop.get("events", x_request_id="shop-request-17")
    problem = assert_problem(response, 500, "internal_error")
    assert problem["request_id"] == "shop-request-17"
    assert b"hunter2" not in response.content
    assert b"RuntimeError" not in response.content
    assert "api_unhandled_exception" in caplog.text


@pytest.mark.parametrize("error", [OperationalError("host=10.0.0.1 refused"), InterfaceError("closed")])
def test_a_lost_database_is_a_503(
    error: Exception, shop: Storefront, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr("payments.api.authentication.find_key", fail)
    response = shop.get("orders")
    assert_problem(response, 503, "service_unavailable")
    assert response["Retry-After"]
    assert b"10.0.0.1" not in response.content


@pytest.mark.parametrize(
    "redis_url", [None, "", "redis://127.0.0.1:1/0"], ids=["redis", "none", "redis away"]
)
def test_the_limit_holds_per_key_with_and_without_redis(
    redis_url: str | None, shop: Storefront, other_shop: Storefront, settings: Any
) -> None:
    settings.API_RATE_LIMIT = "3/hour"
    if redis_url is not None:
        settings.REDIS_URL = redis_url
    throttling._counters.cache_clear()
    assert [shop.get("events", x_forwarded_for=f"10.0.0.{n}").status_code for n in range(3)] == [200] * 3
    response = shop.get("events", x_forwarded_for="10.9.9.9")
    assert_problem(response, 429, "rate_limited")
    assert 1 <= int(response["Retry-After"]) <= 3600
    assert other_shop.get("events").status_code == 200


@pytest.mark.django_db
def test_redis_is_left_alone_after_it_failed(settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    throttling._counters.cache_clear()
    assert not throttling.count_call("somebody").is_exceeded
    counters = throttling._counters()
    resting_until = counters.redis_rests_until
    assert resting_until > 0
    assert not throttling.count_call("somebody").is_exceeded
    assert counters.redis_rests_until == resting_until


def test_every_type_resolves_to_its_line_on_the_page() -> None:
    page = Client().get("/api/docs/errors")
    assert page.status_code == 200
    for code in all_codes():
        assert f'id="{code}"' in page.content.decode()


def test_pointers_are_escaped_and_nested() -> None:
    detail = {"a/b~": {"c": ["wrong"]}, "lines": [{}, {"sku": ["missing"]}], "non_field_errors": ["all"]}
    assert [error["pointer"] for error in list_errors(detail, locator="pointer")] == [
        "/a~1b~0/c",
        "/lines/1/sku",
        "",
    ]


def test_a_thousand_faults_are_not_repeated(shop: Storefront) -> None:
    problem = assert_problem(shop.post("orders", {f"x{n}": 0 for n in range(900)}), 400, "invalid_request")
    assert len(problem["errors"]) == 50


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", ["/api/v1/orders", "/api/schema/", "/api/docs/", "/api/docs/errors", "/healthz"]
)
@override_settings(DEBUG=False)
def test_every_answer_has_its_id_and_headers(path: str) -> None:
    response = Storefront(ApiKeyFactory.create()).http.get(path)
    assert response["X-Request-ID"]
    assert response["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'self'" in response["Content-Security-Policy"]
