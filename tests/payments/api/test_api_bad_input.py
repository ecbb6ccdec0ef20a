"""Whatever is wrong with a POST: it is told what and where, nothing of it comes back, and nothing changes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.apps import apps
from django.db import connection

from payments.models import GatewayAccount, IdempotencyKey, Operation
from payments.sagas import effects
from tests.factories import ApiKeyFactory
from tests.fakes import FakeGateway, ScriptedScreener
from tests.storefront import ORDER, Storefront, assert_problem

CARD = "4242 4242 4242 4242"
KEY = "cart-9-attempt-1-0001"
# Each POST of the API, the order that it is for, and a body that would go through.
ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "orders": ("", ORDER | {"reference": "web-new"}),
    "orders/{}/confirm": ("declined", {"payment_method": "pm_card_visa"}),
    "orders/{}/capture": ("held", {"amount": 1000}),
    "orders/{}/cancel": ("held", {"reason": "duplicate"}),
    "orders/{}/refunds": ("paid", {"amount": 1000, "note": "late"}),
}
Body = dict[str, Any] | bytes


@pytest.fixture(autouse=True)
def site(account: GatewayAccount, gateway: FakeGateway, screener: ScriptedScreener) -> None:
    """One account with the scripted gateway behind it."""


@pytest.fixture
def orders(shop: Storefront, gateway: FakeGateway) -> dict[str, str]:
    """An order in each state that a POST may be for."""
    declined = shop.post("orders", ORDER | {"reference": "d", "payment_method": "pm_card_chargeDeclined"})
    return {
        "": "",
        "declined": declined.json()["order"],
        "held": shop.post("orders", ORDER | {"reference": "h", "capture": "manual"}).json()["id"],
        "paid": shop.post("orders", ORDER | {"reference": "p"}).json()["id"],
    }


def read_tables(*, but: tuple[str, ...] = ()) -> dict[str, list[Any]]:
    """Every row of ours, but for the times at which keys were used."""
    models = [
        model for app in ("payments", "fraud", "webhooks") for model in apps.get_app_config(app).get_models()
    ]
    tables = {model.__name__: list(model._default_manager.order_by("pk").values()) for model in models}
    for row in tables["ApiKey"]:
        del row["last_used_at"]
    return {name: rows for name, rows in tables.items() if name not in but}


def list_broken_bodies() -> Iterator[tuple[str, Body, int, str, str | None]]:
    """What no route takes, as (name, body, status, code, pointer)."""
    deep = b'{"a":' * 40 + b"1" + b"}" * 40
    yield "no JSON", b'{"amount": ', 400, "invalid_json", ""
    yield "a blank", b" ", 400, "invalid_json", ""
    yield "twice", b'{"note": "a", "note": "b"}', 400, "invalid_json", ""
    yield "deep", deep, 400, "invalid_json", ""
    yield "huge", b'{"note": "' + b"x" * 70_000 + b'"}', 413, "body_too_large", None
    yield "many names", json.dumps({str(n): 0 for n in range(1001)}).encode(), 400, "invalid_json", ""
    yield "NaN", b'{"amount": NaN}', 400, "invalid_json", ""
    yield "Infinity", b'{"amount": -Infinity}', 400, "invalid_json", ""
    yield "out of range", b'{"amount": 1e999}', 400, "invalid_json", ""
    yield "19 digits", b'{"amount": 1000000000000000000}', 400, "invalid_json", ""
    yield "no UTF-8", b'{"note": "\xff\xfe"}', 400, "invalid_json", ""
    yield "NUL", b'{"note": "\\u0000"}', 400, "invalid_json", ""
    yield "half a pair", b'{"note": "\\ud800"}', 400, "invalid_json", ""
    yield "a list", b"[]", 400, "invalid_request", ""
    yield "a number", b"5", 400, "invalid_request", ""
    yield "an unknown member", {"surprise": 1}, 400, "invalid_request", "/surprise"
    yield (
        "a card in an unknown member",
        {"surprise": {"a": [CARD]}},
        422,
        "card_data_refused",
        "/surprise/a/0",
    )
    yield "a card as a number", b'{"x": 4242424242424242}', 422, "card_data_refused", "/x"
    yield "a security code", {"card": {"cvc": "123"}}, 422, "card_data_refused", "/card/cvc"


AMOUNTS: list[tuple[str, bytes]] = [
    ("zero", b"0"),
    ("negative", b"-1"),
    ("a fraction", b"1.5"),
    ("a whole fraction", b"10.0"),
    ("text", b'"10"'),
    ("an exponent", b"1e3"),
    ("true", b"true"),
    ("null", b"null"),
    ("a list", b"[10]"),
    ("an object", b'{"minor": 10}'),
]


def list_cases() -> Iterator[tuple[str, str, Body, int, str, str | None]]:
    """As (route, name, body, status, code, pointer)."""
    for route, (_, good) in ROUTES.items():
        for name, body, status, code, pointer in list_broken_bodies():
            sent = good | body if isinstance(body, dict) else body
            yield route, name, sent, status, code, pointer
        if "amount" in good:
            text = json.dumps(good | {"amount": "?"}).encode()
            for name, amount in AMOUNTS:
                body = text.replace(b'"?"', amount)
                yield route, name, body, 400, "invalid_request", "/amount"
    for name, members, pointer in [
        ("no such currency", {"currency": "XYZ"}, "/currency"),
        ("a currency in small letters", {"currency": "eur"}, "/currency"),
        ("gold has no exponent", {"currency": "XAU"}, "/currency"),
        ("a card as token", {"payment_method": "4242424242424242"}, "/payment_method"),
        (
            "a card in the address",
            {"return_url": "https://shop.example/?card=4242424242424242"},
            "/return_url",
        ),
        ("a card in metadata", {"metadata": {"note": f"pays with {CARD}"}}, "/metadata/note"),
        ("a card among its names", {"metadata": {CARD: "x"}}, None),
        ("a card as user agent", {"context": {"user_agent": f"Mozilla {CARD}"}}, "/context/user_agent"),
        ("a card as reference", {"reference": CARD}, "/reference"),
        ("lines that do not add up", {"lines": [{"sku": "A", "quantity": 1, "unit_amount": 1}]}, "/lines"),
    ]:
        is_card = "card" in name
        status, code = (422, "card_data_refused") if is_card else (400, "invalid_request")
        yield "orders", name, ORDER | members, status, code, pointer
    for route, members, pointer in [
        ("orders/{}/capture", {"final": "yes"}, "/final"),
        ("orders/{}/capture", {"final": 1}, "/final"),
        ("orders/{}/refunds", {"capture": 7}, "/capture"),
        ("orders/{}/refunds", {"reason": "bored"}, "/reason"),
        ("orders/{}/cancel", {"reason": "bored"}, "/reason"),
        ("orders/{}/confirm", {"payment_method": "no token!"}, "/payment_method"),
        ("orders/{}/confirm", {"redirect_result": 5}, "/redirect_result"),
        ("orders/{}/confirm", {"redirect_result": "x" * 4001}, "/redirect_result"),
        ("orders/{}/confirm", {"redirect_result": "a b"}, "/redirect_result"),
        ("orders/{}/confirm", {"redirect_result": "a\nb"}, "/redirect_result"),
        ("orders", {"payment_methods": "pm_card_visa"}, "/payment_methods"),
        ("orders", {"payment_methods": {"stripe": 5}}, "/payment_methods/stripe"),
        ("orders", {"payment_methods": {"stripe": ""}}, "/payment_methods/stripe"),
        ("orders", {"payment_methods": {"stripe/main": "no token!"}}, "/payment_methods/stripe~1main"),
        ("orders", {"payment_methods": {"stripe": "spm_1"}}, "/payment_methods"),
        ("orders", {"payment_methods": {"nobody": "tok_1"}}, "/payment_methods"),
        ("orders", {"payment_methods": {"stripe/": "tok_1"}}, "/payment_methods"),
        ("orders", {"payment_methods": {f"stripe/{n}": "tok_1" for n in range(11)}}, "/payment_methods"),
    ]:
        body = ROUTES[route][1] | members
        yield route, str(members), body, 400, "invalid_request", pointer
    for route, amount in [
        ("orders/{}/capture", 12951),
        ("orders/{}/refunds", 12951),
        ("orders/{}/refunds", 10**17),
    ]:
        yield route, "too much", {"amount": amount}, 400, "amount_too_large", "/amount"


@pytest.mark.parametrize("route", ROUTES)
def test_a_bad_body_is_named_and_changes_nothing(
    route: str, shop: Storefront, orders: dict[str, str], gateway: FakeGateway
) -> None:
    """All of them in turn against the same orders, since none may leave a trace."""
    before, calls = read_tables(), list(gateway.calls)
    address = route.format(orders[ROUTES[route][0]])
    cases = [case[1:] for case in list_cases() if case[0] == route]
    assert len(cases) > 15
    for name, body, status, code, pointer in cases:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = shop.post(address, raw=raw)
        problem = assert_problem(response, status, code)
        pointers = [error["pointer"] for error in problem["errors"]]
        assert pointer is None or pointers == [pointer], name
        for digits in (b"4242 4242", b"42424242", b'"123"'):
            assert digits not in response.content, name
        assert gateway.calls == calls, name
        assert read_tables() == before, name


HEADERS: dict[str, tuple[dict[str, str], int, str]] = {
    "no key": ({"idempotency_key": ""}, 400, "idempotency_key_missing"),
    "a short key": ({"idempotency_key": "x"}, 400, "invalid_request"),
    "a long key": ({"idempotency_key": "x" * 256}, 400, "invalid_request"),
    "a card as key": ({"idempotency_key": "4242424242424242"}, 400, "invalid_request"),
    "a key that is no ASCII": ({"idempotency_key": "é" * 20}, 400, "invalid_request"),
    "a form": ({"content_type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
    "another charset": ({"content_type": "application/json; charset=latin-1"}, 415, "unsupported_media_type"),
    "compressed": ({"content_encoding": "gzip"}, 415, "unsupported_media_type"),
    "no JSON wanted": ({"accept": "text/html"}, 406, "not_acceptable"),
}


@pytest.mark.parametrize("route", ROUTES)
def test_a_bad_header_is_named_and_changes_nothing(
    route: str, shop: Storefront, orders: dict[str, str], gateway: FakeGateway
) -> None:
    state, body = ROUTES[route]
    before, calls = read_tables(), list(gateway.calls)
    for name, (headers, status, code) in HEADERS.items():
        response = shop.post(route.format(orders[state]), body, **headers)
        assert_problem(response, status, code)
        assert b"42424242" not in response.content, name
        assert (read_tables(), gateway.calls) == (before, calls), name


QUERIES = {
    "dry_run=true": (400, "invalid_request"),
    "expand[]=payment": (400, "invalid_request"),
    "x=4242424242424242": (422, "card_data_refused"),
    "4242424242424242=x": (422, "card_data_refused"),
}
NOTHING = ["ord_unknown", "4242424242424242", "%00", "ord_" + "z" * 26]


@pytest.mark.parametrize("route", ROUTES)
def test_a_bad_address_is_named_and_changes_nothing(
    route: str, shop: Storefront, other_shop: Storefront, orders: dict[str, str]
) -> None:
    state, body = ROUTES[route]
    before = read_tables()
    for query, (status, code) in QUERIES.items():
        response = shop.post(f"{route.format(orders[state])}?{query}", body)
        problem = assert_problem(response, status, code)
        assert "parameter" in problem["errors"][0]
        assert b"42424242" not in response.content
    for wrong in NOTHING if "{}" in route else []:
        response = shop.post(route.format(wrong), body)
        assert_problem(response, 404, "not_found")
        assert b"42424242" not in response.content
    if "{}" in route:
        assert_problem(other_shop.post(route.format(orders[state]), body), 404, "not_found")
    assert read_tables() == before


UNTIMELY = [
    ("paid", "confirm"),
    ("paid", "capture"),
    ("paid", "cancel"),
    ("held", "confirm"),
    ("held", "refunds"),
    ("declined", "capture"),
    ("declined", "refunds"),
]


def test_an_untimely_change_is_refused(
    shop: Storefront, orders: dict[str, str], gateway: FakeGateway
) -> None:
    before, calls = read_tables(but=("IdempotencyKey",)), list(gateway.calls)
    for state, action in UNTIMELY:
        assert_problem(shop.post(f"orders/{orders[state]}/{action}"), 409, "conflict")
    assert (read_tables(but=("IdempotencyKey",)), gateway.calls) == (before, calls)


def test_nothing_follows_a_cancellation(
    shop: Storefront, orders: dict[str, str], gateway: FakeGateway
) -> None:
    assert shop.post(f"orders/{orders['held']}/cancel").status_code == 200
    before = read_tables(but=("IdempotencyKey",))
    for action in ("capture", "cancel", "confirm", "refunds"):
        assert_problem(shop.post(f"orders/{orders['held']}/{action}"), 409, "conflict")
    assert read_tables(but=("IdempotencyKey",)) == before


def test_confirming_twice_charges_once(
    shop: Storefront, orders: dict[str, str], gateway: FakeGateway
) -> None:
    card = {"payment_method": "pm_card_visa"}
    confirmed = shop.post(f"orders/{orders['declined']}/confirm", card, idempotency_key=KEY)
    assert confirmed.status_code == 200
    kept = gateway.money_kept()
    assert (
        shop.post(f"orders/{orders['declined']}/confirm", card, idempotency_key=KEY).content
        == confirmed.content
    )
    assert_problem(shop.post(f"orders/{orders['declined']}/confirm", card), 409, "conflict")
    assert gateway.money_kept() == kept


def test_a_key_with_another_body_or_for_another_order_changes_nothing(
    shop: Storefront, orders: dict[str, str]
) -> None:
    refunds = f"orders/{orders['paid']}/refunds"
    assert shop.post(refunds, {"amount": 100}, idempotency_key=KEY).status_code == 201
    before = read_tables()
    assert_problem(shop.post(refunds, {"amount": 101}, idempotency_key=KEY), 422, "idempotency_key_reused")
    elsewhere = f"orders/{orders['held']}/refunds"
    assert_problem(shop.post(elsewhere, {"amount": 100}, idempotency_key=KEY), 422, "idempotency_key_reused")
    assert read_tables() == before


@pytest.mark.concurrency
@pytest.mark.django_db(transaction=True)
def test_two_who_refund_at_once_give_back_no_more_than_was_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = FakeGateway()
    monkeypatch.setattr(effects, "get_gateway", lambda account: gateway)
    key = ApiKeyFactory.create()
    order = Storefront(key).post("orders", ORDER).json()["id"]
    answers = call_together(
        [lambda: Storefront(key).post(f"orders/{order}/refunds", {"amount": 8000}) for _ in range(4)]
    )
    assert sorted(answer.status_code for answer in answers) == [201, 400, 400, 400]
    for answer in answers:
        if answer.status_code == 400:
            problem = assert_problem(answer, 400, "amount_too_large")
            assert (problem["left"], problem["errors"][0]["pointer"]) == (4950, "/amount")
    assert list(gateway.refunds.values()) == [8000]
    assert Operation.objects.refunds().count() == 1
    assert IdempotencyKey.objects.count() == 2  # the order's and the one refund's


def call_together(calls: list[Callable[[], Any]]) -> list[Any]:
    """The answers of calls that begin at the same moment."""
    start, answers = threading.Barrier(len(calls)), []

    def run(call: Callable[[], Any]) -> None:
        start.wait()
        try:
            answers.append(call())
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
