"""The API over the real domain, with a scripted gateway and a scripted screener."""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from payments import screening, services
from payments.models import GatewayAccount, IdempotencyKey, Order
from payments.sagas import checkout, effects
from payments.screening import Decision, Stage
from tests.factories import ApiKeyFactory, GatewayAccountFactory, StockItemFactory
from tests.fakes import FakeGateway, ScriptedScreener
from tests.storefront import Storefront, assert_problem

MakeOrder = Callable[..., dict[str, Any]]


@pytest.fixture
def screener(monkeypatch: pytest.MonkeyPatch) -> ScriptedScreener:
    fake = ScriptedScreener()
    monkeypatch.setattr(checkout, "get_screener", lambda: fake)
    monkeypatch.setattr(screening, "get_screener", lambda: fake)
    return fake


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch, screener: ScriptedScreener) -> FakeGateway:
    fake = FakeGateway()
    monkeypatch.setattr(effects, "get_gateway", lambda account: fake)
    return fake


@pytest.fixture
def account(db: None) -> GatewayAccount:
    GatewayAccount.objects.update(is_active=False)
    made: GatewayAccount = GatewayAccountFactory.create()
    return made


@pytest.fixture(autouse=True)
def site(account: GatewayAccount, gateway: FakeGateway) -> None:
    """Every test here has one account and the scripted gateway behind it."""


def test_an_order_is_paid_refunded_in_parts_and_told_of(
    shop: Storefront, make_order: MakeOrder, gateway: FakeGateway
) -> None:
    placed = shop.post("orders", make_order())
    assert placed.status_code == 201
    order = placed.json()
    assert order["state"] in ("paid", "fulfilled")
    assert order["payment"]["captured"] == gateway.money_kept() == 12950

    part = shop.post(f"orders/{order['id']}/refunds", {"amount": 2950, "reason": "duplicate"})
    assert (part.status_code, part.json()["state"], part.json()["amount"]) == (201, "succeeded", 2950)
    too_much = assert_problem(
        shop.post(f"orders/{order['id']}/refunds", {"amount": 10001}), 400, "amount_too_large"
    )
    assert (too_much["left"], too_much["errors"][0]["pointer"]) == (10000, "/amount")
    rest = shop.post(f"orders/{order['id']}/refunds")
    assert rest.json()["amount"] == 10000
    assert gateway.money_kept() == 0
    assert shop.get(f"orders/{order['id']}").json()["payment"]["refunded"] == 12950
    assert shop.get(f"payments/{order['payment']['id']}").json()["refund_state"] == "full"

    told = [event["type"] for event in reversed(shop.get("events").json()["results"])]
    assert told[0] == "order.placed"
    assert told.count("refund.succeeded") == 2


def test_a_declined_order_is_paid_with_another_method(
    shop: Storefront, make_order: MakeOrder, gateway: FakeGateway
) -> None:
    declined = shop.post("orders", make_order(payment_method="pm_card_chargeDeclined"))
    problem = assert_problem(declined, 402, "card_declined")
    assert problem["decline_code"] == "card_declined"
    order = problem["order"]
    assert_problem(shop.post(f"orders/{order}/confirm"), 400, "invalid_request")
    again = shop.post(f"orders/{order}/confirm", {"payment_method": "pm_card_chargeDeclined"})
    assert_problem(again, 402, "card_declined")
    paid = shop.post(f"orders/{order}/confirm", {"payment_method": "pm_card_visa"})
    assert (paid.status_code, paid.json()["payment"]["last_error"]) == (200, None)
    assert gateway.money_kept() == 12950


def test_three_d_secure_redirects_and_is_confirmed(
    shop: Storefront, make_order: MakeOrder, gateway: FakeGateway
) -> None:
    placed = shop.post("orders", make_order(payment_method="pm_3ds"))
    order = placed.json()
    assert (placed.status_code, order["state"]) == (201, "awaiting_customer")
    assert order["payment"]["next_action"]["redirect_to_url"]["url"] == "https://3ds.example"
    [reference] = gateway.needs_action
    gateway.authenticate(reference, 12950)
    confirmed = shop.post(f"orders/{order['id']}/confirm")
    assert (confirmed.status_code, confirmed.json()["payment"]["captured"]) == (200, 12950)
    assert confirmed.json()["payment"]["next_action"] is None


def test_a_manual_order_waits_for_its_capture(
    shop: Storefront, make_order: MakeOrder, gateway: FakeGateway
) -> None:
    placed = shop.post("orders", make_order(capture="manual"))
    assert (placed.status_code, placed.json()["payment"]["state"]) == (201, "requires_capture")
    assert gateway.captured == {}
    captured = shop.post(f"orders/{placed.json()['id']}/capture", {"amount": 5000})
    assert (captured.status_code, captured.json()["payment"]["captured"]) == (200, 5000)
    assert_problem(shop.post(f"orders/{placed.json()['id']}/capture"), 409, "conflict")


def test_a_manual_order_can_be_canceled(
    shop: Storefront, make_order: MakeOrder, gateway: FakeGateway
) -> None:
    order = shop.post("orders", make_order(capture="manual")).json()["id"]
    canceled = shop.post(f"orders/{order}/cancel", {"reason": "duplicate"})
    assert (canceled.status_code, canceled.json()["state"]) == (200, "canceled")
    assert gateway.orphans() == set()
    assert_problem(shop.post(f"orders/{order}/cancel"), 409, "conflict")


def test_a_reviewed_order_is_accepted_and_held(
    shop: Storefront, make_order: MakeOrder, gateway: FakeGateway, screener: ScriptedScreener
) -> None:
    screener.decisions[Stage.AFTER_AUTHORIZATION] = Decision.REVIEW
    placed = shop.post("orders", make_order())
    assert (placed.status_code, placed.json()["review"]) == (202, {"state": "open"})
    assert gateway.captured == {}
    assert placed["Location"].endswith(placed.json()["id"])


def test_a_blocked_order_never_reaches_the_gateway(
    shop: Storefront, make_order: MakeOrder, gateway: FakeGateway, screener: ScriptedScreener
) -> None:
    screener.decisions[Stage.BEFORE_AUTHORIZATION] = Decision.BLOCK
    problem = assert_problem(shop.post("orders", make_order()), 403, "fraud_blocked")
    assert problem["order"] == Order.objects.get().pk
    assert gateway.calls == []


def test_what_is_not_in_stock_is_not_charged(
    shop: Storefront, make_order: MakeOrder, gateway: FakeGateway
) -> None:
    StockItemFactory.create(sku="MUG-1", on_hand=1)
    problem = assert_problem(shop.post("orders", make_order()), 409, "out_of_stock")
    assert problem["order"] == Order.objects.get().pk
    assert gateway.money_kept() == 0


def test_a_refused_shipment_is_undone(shop: Storefront, make_order: MakeOrder, gateway: FakeGateway) -> None:
    response = shop.post("orders", make_order(shipping={"country": "AQ"}))
    assert_problem(response, 409, "shipment_refused")
    assert gateway.money_kept() == 0
    assert gateway.orphans() == set()


def test_a_reference_has_one_living_order(shop: Storefront, make_order: MakeOrder) -> None:
    assert shop.post("orders", make_order()).status_code == 201
    assert_problem(shop.post("orders", make_order()), 409, "conflict")


def test_without_a_gateway_account_nothing_begins(shop: Storefront, make_order: MakeOrder) -> None:
    GatewayAccount.objects.update(is_active=False)
    assert_problem(shop.post("orders", make_order()), 503, "network_error")
    assert not IdempotencyKey.objects.exists()


def test_the_shop_may_ask_not_to_wait(shop: Storefront, make_order: MakeOrder, gateway: FakeGateway) -> None:
    placed = shop.post("orders", make_order(), prefer="respond-async")
    assert (placed.status_code, gateway.calls) == (202, [])
    services.sweep_sagas()
    assert shop.get(f"orders/{placed.json()['id']}").json()["payment"]["captured"] == 12950


REQUESTS: list[tuple[str, dict[str, Any], str]] = [
    ("automatic", {"amount": 100}, "refunds"),
    ("manual", {"amount": 5000}, "capture"),
    ("manual", {}, "cancel"),
]


@pytest.mark.parametrize(("capture", "body", "action"), REQUESTS)
@pytest.mark.parametrize("dies_before", [True, False], ids=["before the change", "after the change"])
def test_a_change_whose_process_died_is_made_once(
    dies_before: bool,
    capture: str,
    body: dict[str, Any],
    action: str,
    shop: Storefront,
    make_order: MakeOrder,
    gateway: FakeGateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order, key = shop.post("orders", make_order(capture=capture)).json()["id"], secrets.token_hex(16)
    dying = "payments.api.replay.idempotency.complete"
    if dies_before:
        dying = f"payments.services.{action.removesuffix('s')}_order"

    def die(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dying, die)
        with pytest.raises(KeyboardInterrupt):
            shop.post(f"orders/{order}/{action}", body, idempotency_key=key)
    IdempotencyKey.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    again = shop.post(f"orders/{order}/{action}", body, idempotency_key=key)
    assert again.status_code == (201 if action == "refunds" else 200)
    assert "Idempotent-Replayed" not in again
    replayed = shop.post(f"orders/{order}/{action}", body, idempotency_key=key)
    assert (replayed.content, replayed["Idempotent-Replayed"]) == (again.content, "true")
    changes = [kind for kind, _ in gateway.calls if kind in ("refund", "capture", "void")]
    assert changes == {"refunds": ["capture", "refund"], "capture": ["capture"], "cancel": ["void"]}[action]


@pytest.mark.concurrency
@pytest.mark.django_db(transaction=True)
def test_fifty_threads_with_one_key_charge_once(make_order: MakeOrder, gateway: FakeGateway) -> None:
    answers = call_at_once(50, "orders", make_order(), ApiKeyFactory.create())
    assert len(gateway.authorized) == len(gateway.captured) == Order.objects.count() == 1
    check_one_outcome(answers)


@pytest.mark.concurrency
@pytest.mark.django_db(transaction=True)
def test_twenty_threads_with_one_key_refund_once(make_order: MakeOrder, gateway: FakeGateway) -> None:
    key = ApiKeyFactory.create()
    order = Storefront(key).post("orders", make_order()).json()["id"]
    answers = call_at_once(20, f"orders/{order}/refunds", {"amount": 100}, key)
    assert list(gateway.refunds.values()) == [100]
    check_one_outcome(answers)


def call_at_once(count: int, path: str, body: Any, key: Any) -> list[Any]:
    """The answers of so many threads that send the same request with the same Idempotency-Key."""
    idempotency_key = secrets.token_hex(16)
    start, answers = threading.Barrier(count), []

    def call() -> None:
        start.wait()
        try:
            answers.append(Storefront(key).post(path, body, idempotency_key=idempotency_key))
        finally:
            connection.close()

    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == count
    return answers


def check_one_outcome(answers: list[Any]) -> None:
    """One body for all that succeeded; whoever else came was told to wait."""
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses[201] >= 1
    assert statuses[201] + statuses[409] == len(answers)
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert sum("Idempotent-Replayed" not in answer for answer in answers if answer.status_code == 201) == 1
    for answer in answers:
        if answer.status_code == 409:
            assert_problem(answer, 409, "idempotency_in_flight")
