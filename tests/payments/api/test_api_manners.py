"""Manners of HTTP: answers at once, quotas told, browsers on other origins, parts of captures and refunds passed on."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from payments import services
from payments.api import throttling
from payments.models import GatewayAccount, Order
from tests.fakes import FakeGateway, ScriptedScreener
from tests.storefront import ORDER, Storefront, assert_problem

KEY = "cart-9-attempt-1-0001"


@pytest.fixture
def site(account: GatewayAccount, gateway: FakeGateway, screener: ScriptedScreener) -> FakeGateway:
    return gateway


def place(shop: Storefront, **members: Any) -> str:
    response = shop.post("orders", ORDER | members).json()
    order: str = response.get("order") or response["id"]
    return order


# --- Prefer: respond-async ----------------------------------------------------------------------------------


CHANGES: list[tuple[dict[str, Any], str, dict[str, Any], str]] = [
    ({"capture": "manual"}, "capture", {"amount": 5000}, "capture"),
    ({"capture": "manual"}, "cancel", {}, "void"),
    (
        {"payment_method": "pm_card_chargeDeclined"},
        "confirm",
        {"payment_method": "pm_card_visa"},
        "authorize",
    ),
    ({"payment_method": "pm_3ds"}, "cancel", {}, "void"),
    ({}, "refunds", {"amount": 100}, "refund"),
]


@pytest.mark.parametrize(("members", "action", "body", "call"), CHANGES)
def test_a_change_can_be_left_to_the_sweeper(
    members: dict[str, Any], action: str, body: dict[str, Any], call: str, shop: Storefront, site: FakeGateway
) -> None:
    order = place(shop, **members)
    calls = list(site.calls)
    path = f"orders/{order}/{action}"
    accepted = shop.post(path, body, prefer="respond-async", idempotency_key=KEY)
    assert (accepted.status_code, accepted["Preference-Applied"]) == (202, "respond-async"), accepted.content
    assert accepted["Retry-After"]
    assert site.calls == calls
    again = shop.post(path, body, prefer="respond-async, wait=10", idempotency_key=KEY)
    assert (again.status_code, site.calls) == (202, calls)
    services.sweep_sagas()
    assert call in [kind for kind, _ in site.calls[len(calls) :]]
    done = shop.post(path, body, prefer="respond-async", idempotency_key=KEY)
    assert done.status_code == (201 if action == "refunds" else 200)
    assert "Preference-Applied" not in done
    made = list(site.calls)
    assert shop.post(path, body, idempotency_key=KEY).content == done.content
    assert site.calls == made


def test_a_confirmed_challenge_can_be_left_to_the_sweeper(shop: Storefront, site: FakeGateway) -> None:
    order = place(shop, payment_method="pm_3ds")
    [reference] = site.needs_action
    site.authenticate(reference, 12950)
    accepted = shop.post(f"orders/{order}/confirm", prefer="respond-async")
    assert (accepted.status_code, site.captured) == (202, {})
    services.sweep_sagas()
    assert shop.get(f"orders/{order}").json()["payment"]["captured"] == 12950


@pytest.mark.parametrize(
    "prefer", ["", "return=minimal", "respond-asynchronously", 'foo="respond-async"', "wait=5"]
)
def test_other_preferences_are_ignored(prefer: str, shop: Storefront, site: FakeGateway) -> None:
    placed = shop.post("orders", ORDER, prefer=prefer)
    assert (placed.status_code, site.money_kept()) == (201, 12950)
    assert "Preference-Applied" not in placed


@pytest.mark.parametrize("prefer", ["respond-async", "Respond-Async", "wait=5, respond-async;x=1"])
def test_the_preference_is_read_as_rfc_7240_has_it(prefer: str, shop: Storefront, site: FakeGateway) -> None:
    assert shop.post("orders", ORDER, prefer=prefer)["Preference-Applied"] == "respond-async"


# --- parts of captures and refunds --------------------------------------------------------------------------


def test_a_part_of_a_capture_is_passed_on(
    shop: Storefront, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, seen = place(shop, capture="manual"), []

    def capture_order(order: Order, **given: Any) -> Order:
        seen.append((given["amount"], given["final"], given["drive"]))
        return services.find_order(order.pk)

    monkeypatch.setattr(services, "capture_order", capture_order)
    shop.post(f"orders/{order}/capture", {"amount": 5000, "final": False})
    shop.post(f"orders/{order}/capture", {"amount": 7950}, prefer="respond-async")
    shop.post(f"orders/{order}/capture")
    assert seen == [(5000, False, True), (7950, True, False), (None, True, True)]


def test_a_refund_names_the_capture_that_it_gives_back(
    shop: Storefront, site: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = shop.post("orders", ORDER).json()
    payment = shop.get(f"payments/{order['payment']['id']}").json()
    [capture] = [operation["id"] for operation in payment["operations"] if operation["kind"] == "capture"]
    real, seen = services.refund_order, []

    def refund_order(*args: Any, **given: Any) -> Any:
        seen.append(given["capture"])
        return real(*args, **given)

    monkeypatch.setattr(services, "refund_order", refund_order)
    assert shop.post(f"orders/{order['id']}/refunds", {"amount": 1, "capture": capture}).status_code == 201
    assert shop.post(f"orders/{order['id']}/refunds", {"amount": 1}).status_code == 201
    assert seen == [capture, ""]


# --- quotas -------------------------------------------------------------------------------------------------


def read_quota(response: Any) -> tuple[str, int, int]:
    name, left, seconds = response["RateLimit"].split(";")
    return name, int(left.removeprefix("r=")), int(seconds.removeprefix("t="))


def test_every_answer_tells_the_quota(shop: Storefront, other_shop: Storefront, settings: Any) -> None:
    settings.API_RATE_LIMIT = "4/hour"
    answers = [shop.get("events"), shop.get("orders/x"), shop.post("orders", {}), shop.get("nowhere")]
    assert [answer.status_code for answer in answers] == [200, 404, 400, 404]
    assert [read_quota(answer)[:2] for answer in answers] == [('"key"', left) for left in (3, 2, 1, 0)]
    assert all(1 <= read_quota(answer)[2] <= 3600 for answer in answers)
    assert {answer["RateLimit-Policy"] for answer in answers} == {'"key";q=4;w=3600'}
    refused = shop.get("events")
    assert_problem(refused, 429, "rate_limited")
    assert read_quota(refused)[1] == 0
    assert 1 <= int(refused["Retry-After"]) <= 3600
    assert read_quota(other_shop.get("events"))[1] == 3


def test_a_key_and_its_tokens_have_one_quota(shop: Storefront, settings: Any) -> None:
    settings.API_RATE_LIMIT = "4/hour"
    form = f"grant_type=client_credentials&client_id={shop.key.prefix}&client_secret={shop.key.secret}"
    asked = Client().post("/api/v1/oauth/token", form, content_type="application/x-www-form-urlencoded")
    bearer = {"Authorization": f"Bearer {asked.json()['access_token']}"}
    assert read_quota(Client().get("/api/v1/events", headers=bearer))[1] == 3
    assert read_quota(shop.get("events"))[1] == 2


def test_processes_count_together(shop: Storefront, settings: Any) -> None:
    settings.API_RATE_LIMIT = "9/hour"
    assert read_quota(shop.get("events"))[1] == 8
    throttling._counters.cache_clear()  # another process
    assert read_quota(shop.get("events"))[1] == 7


def test_who_is_nobody_has_no_quota(db: None) -> None:
    assert "RateLimit" not in Storefront(None).get("events")


# --- browsers on other origins ------------------------------------------------------------------------------

SHOP_ORIGIN = "https://shop.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "idempotency-key"}


def call_from(origin: str, path: str = "/api/v1/orders", method: str = "get", **headers: str) -> Any:
    return getattr(Client(), method)(path, headers={"Origin": origin} | headers)


@pytest.fixture
def cors(settings: Any) -> None:
    """As settings.py has it when CORS_ALLOWED_ORIGINS names the origin."""
    settings.CORS_ALLOWED_ORIGINS = [SHOP_ORIGIN]
    settings.MIDDLEWARE = ["corsheaders.middleware.CorsMiddleware", *settings.MIDDLEWARE]


@pytest.mark.django_db
def test_without_origins_no_page_elsewhere_may_call(settings: Any) -> None:
    assert not settings.CORS_ALLOWED_ORIGINS
    assert "corsheaders.middleware.CorsMiddleware" not in settings.MIDDLEWARE
    answer = call_from(SHOP_ORIGIN, method="options", **PREFLIGHT)
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.django_db
@pytest.mark.usefixtures("cors")
def test_a_listed_origin_may_call_the_api_without_cookies() -> None:
    allowed = call_from(SHOP_ORIGIN, method="options", **PREFLIGHT)
    assert (allowed.status_code, allowed["Access-Control-Allow-Origin"]) == (200, SHOP_ORIGIN)
    assert "idempotency-key" in allowed["Access-Control-Allow-Headers"]
    answer = call_from(SHOP_ORIGIN)
    assert_problem(answer, 401, "unauthorized")
    assert answer["Access-Control-Allow-Origin"] == SHOP_ORIGIN
    exposed = answer["Access-Control-Expose-Headers"]
    assert all(
        name in exposed for name in ("RateLimit", "Retry-After", "Idempotent-Replayed", "X-Request-ID")
    )
    assert "Access-Control-Allow-Credentials" not in answer
    assert "origin" in answer["Vary"].lower()


@pytest.mark.django_db
@pytest.mark.usefixtures("cors")
@pytest.mark.parametrize(
    ("origin", "path"),
    [
        ("https://evil.example", "/api/v1/orders"),
        ("https://shop.example.evil.example", "/api/v1/orders"),
        ("http://shop.example", "/api/v1/orders"),
        ("null", "/api/v1/orders"),
        (SHOP_ORIGIN, "/admin/login/"),
        (SHOP_ORIGIN, "/healthz"),
        (SHOP_ORIGIN, "/webhooks/stripe/default/"),
    ],
)
def test_others_and_other_pages_are_closed(origin: str, path: str) -> None:
    for method in ("get", "options"):
        answer = call_from(origin, path, method, **PREFLIGHT)
        assert "Access-Control-Allow-Origin" not in answer


def test_the_settings_open_the_api_alone(settings: Any) -> None:
    assert settings.CORS_URLS_REGEX == r"^/api/"
    assert settings.CORS_ALLOW_CREDENTIALS is False
    assert not getattr(settings, "CORS_ALLOW_ALL_ORIGINS", False)
