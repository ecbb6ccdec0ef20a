"""Orders over HTTP: what is accepted, what the domain is asked, and which status says what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from payments import services
from payments.errors import AmountTooLargeError, ConflictError, NetworkError
from payments.kinds import OperationKind
from payments.models import IdempotencyKey, OperationState, Order, OrderState, PaymentState
from payments.models.order import CaptureMethod
from payments.money import Money
from tests.factories import AttemptFactory, OperationFactory, OrderFactory, PaymentFactory
from tests.storefront import Storefront, assert_problem

MakeOrder = Callable[..., dict[str, Any]]


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Has `place_order` make an order with these states; gives the list of drafts that it was asked for."""

    def prepare(state: str, /, **payment: Any) -> list[Any]:
        drafts: list[Any] = []

        def place_order(client: Any, draft: Any, *, key: Any = None, drive: bool = True) -> Order:
            drafts.append(draft)
            order: Order = PaymentFactory.create(order__client=client, order__state=state, **payment).order
            return order

        monkeypatch.setattr(services, "place_order", place_order)
        return drafts

    return prepare


def test_an_order_becomes_one_draft(shop: Storefront, placed: Any, make_order: MakeOrder) -> None:
    drafts = placed("paid", is_captured=True)
    response = shop.post("orders", make_order())
    assert response.status_code == 201
    assert drafts == [
        services.OrderDraft(
            reference="web-1001",
            amount=Money(12950, "EUR"),
            payment_method="pm_card_visa",
            lines=[{"sku": "MUG-1", "quantity": 2, "unit_amount": 6475}],
            capture="automatic",
            return_url="https://shop.example/return",
            customer_id="cus_42",
            customer_email="buyer@example.com",
            customer_created_at=datetime(2026, 1, 5, 10, tzinfo=UTC),
            billing={"country": "DE", "postal_code": "10115"},
            shipping={"country": "DE"},
            context={"ip": "198.51.100.7", "user_agent": "Mozilla/5.0", "device": "d_abc"},
            metadata={"cart": "c-9"},
        )
    ]


def test_the_tokens_of_other_gateways_are_kept_for_failover(
    shop: Storefront, placed: Any, make_order: MakeOrder
) -> None:
    drafts = placed("paid", is_captured=True)
    tokens = {"stripe": "pm_card_visa", "adyen/eu-1": "tok_eu=="}
    assert shop.post("orders", make_order(payment_methods=tokens)).status_code == 201
    assert drafts[0].payment_methods == tokens


def test_a_paid_order_is_shown_whole(shop: Storefront, placed: Any, make_order: MakeOrder) -> None:
    placed("paid", is_captured=True)
    response = shop.post("orders", make_order())
    order = Order.objects.select_related("payment").get()
    assert response.json() == {
        "id": order.pk,
        "state": "paid",
        "reference": order.reference,
        "amount": 12950,
        "currency": "EUR",
        "payment": {
            "id": order.payment.pk,
            "state": "succeeded",
            "authorized": 12950,
            "captured": 12950,
            "refunded": 0,
            "gateway": "stripe",
            "gateway_reference": order.payment.gateway_reference,
            "next_action": None,
            "last_error": None,
        },
        "review": None,
        "metadata": {},
        "created_at": order.created_at.isoformat().replace("+00:00", "Z"),
    }
    assert response["Location"] == f"/api/v1/orders/{order.pk}"
    assert shop.get(f"orders/{order.pk}").json() == response.json()


@pytest.mark.parametrize(
    ("state", "payment", "status"),
    [
        ("paid", {"is_captured": True}, 201),
        ("fulfilled", {"is_captured": True}, 201),
        ("awaiting_customer", {"state": PaymentState.REQUIRES_ACTION}, 201),
        ("processing", {"is_authorized": True, "capture_method": CaptureMethod.MANUAL}, 201),
        ("processing", {"state": PaymentState.PROCESSING}, 202),
        ("placed", {}, 202),
        ("review", {"is_authorized": True}, 202),
    ],
)
def test_the_status_says_how_far_it_came(
    state: str, payment: Any, status: int, shop: Storefront, placed: Any, make_order: MakeOrder
) -> None:
    placed(state, **payment)
    response = shop.post("orders", make_order())
    assert response.status_code == status
    assert response["Location"] == f"/api/v1/orders/{response.json()['id']}"
    assert ("Retry-After" in response) == (status == 202)
    assert response.json()["review"] == ({"state": "open"} if state == "review" else None)


def test_a_redirect_is_passed_on(shop: Storefront, placed: Any, make_order: MakeOrder) -> None:
    action = {"type": "redirect_to_url", "redirect_to_url": {"url": "https://bank.example/3ds"}}
    placed("awaiting_customer", state=PaymentState.REQUIRES_ACTION, next_action=action)
    assert shop.post("orders", make_order()).json()["payment"]["next_action"] == action


def test_a_decline_is_a_402_with_code_advice_and_order(
    shop: Storefront, placed: Any, make_order: MakeOrder
) -> None:
    error = {"decline_code": "insufficient_funds", "advice": "try_another_method", "message": "Not enough."}
    placed("declined", state=PaymentState.REQUIRES_PAYMENT_METHOD, last_error={**error, "internal": "secret"})
    response = shop.post("orders", make_order())
    problem = assert_problem(response, 402, "card_declined")
    assert problem["order"] == Order.objects.get().pk
    assert (problem["decline_code"], problem["advice"]) == ("insufficient_funds", "try_another_method")
    assert problem["detail"] == "Not enough."
    assert b"secret" not in response.content


def test_a_blocked_order_is_not_told_why(shop: Storefront, placed: Any, make_order: MakeOrder) -> None:
    placed("blocked", last_error={"code": "fraud_blocked", "message": "blocklist: buyer@example.com"})
    response = shop.post("orders", make_order())
    problem = assert_problem(response, 403, "fraud_blocked")
    order_id = problem["order"]
    assert b"blocklist" not in response.content
    assert shop.get(f"orders/{order_id}").json()["payment"]["last_error"] is None
    shown = shop.get(f"payments/{Order.objects.get().payment.pk}")
    assert b"blocklist" not in shown.content


@pytest.mark.parametrize(
    ("state", "reason", "code"),
    [
        ("canceled", "out_of_stock", "out_of_stock"),
        ("canceled", "shipment_refused", "shipment_refused"),
        ("canceled", "requested_by_customer", "order_canceled"),
        ("expired", "", "order_expired"),
    ],
)
def test_an_undone_order_is_a_conflict(
    state: str, reason: str, code: str, shop: Storefront, placed: Any, make_order: MakeOrder
) -> None:
    placed(state, order__cancel_reason=reason)
    problem = assert_problem(shop.post("orders", make_order()), 409, code)
    assert problem["order"] == Order.objects.get().pk


def test_the_client_may_ask_not_to_wait(
    shop: Storefront, make_order: MakeOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def place_order(client: Any, draft: Any, *, key: Any = None, drive: bool = True) -> Order:
        asked.append(drive)
        order: Order = PaymentFactory.create(order__client=client).order
        return order

    monkeypatch.setattr(services, "place_order", place_order)
    assert shop.post("orders", make_order(), prefer="respond-async").status_code == 202
    assert asked == [False]


BAD_MEMBERS: list[tuple[dict[str, Any], str]] = [
    ({"amount": 0}, "/amount"),
    ({"amount": -5}, "/amount"),
    ({"amount": True}, "/amount"),
    ({"amount": 129.5}, "/amount"),
    ({"amount": 12950.0}, "/amount"),
    ({"amount": "12950"}, "/amount"),
    ({"amount": None}, "/amount"),
    ({"amount": []}, "/amount"),
    ({"currency": "EURO"}, "/currency"),
    ({"currency": "eur"}, "/currency"),
    ({"currency": "XXX"}, "/currency"),
    ({"currency": "ZZZ"}, "/currency"),
    ({"currency": 978}, "/currency"),
    ({"reference": ""}, "/reference"),
    ({"reference": "x" * 101}, "/reference"),
    ({"reference": 1001}, "/reference"),
    ({"payment_method": ""}, "/payment_method"),
    ({"payment_method": "a b"}, "/payment_method"),
    ({"payment_method": "x" * 201}, "/payment_method"),
    ({"capture": "later"}, "/capture"),
    ({"return_url": "http://shop.example/return"}, "/return_url"),
    ({"return_url": "javascript:alert(1)"}, "/return_url"),
    ({"return_url": "https://user:pass@shop.example/"}, "/return_url"),
    ({"return_url": "https:///x"}, "/return_url"),
    ({"return_url": "https://shop.example:port/"}, "/return_url"),
    ({"return_url": "https://shop.example/\nx"}, "/return_url"),
    ({"customer": {"email": "nobody"}}, "/customer/email"),
    ({"customer": {"email": ["a@b.example"]}}, "/customer/email"),
    ({"customer": {"created_at": "2026-01-05"}}, "/customer/created_at"),
    ({"customer": {"created_at": "2026-01-05T10:00:00"}}, "/customer/created_at"),
    ({"customer": {"created_at": 5}}, "/customer/created_at"),
    ({"customer": "cus_42"}, "/customer"),
    ({"customer": {"a/b~c": 1}}, "/customer/a~1b~0c"),
    ({"billing": {"country": "Germany"}}, "/billing/country"),
    ({"billing": {"country": "de"}}, "/billing/country"),
    ({"shipping": {"country": 49}}, "/shipping/country"),
    ({"lines": {}}, "/lines"),
    ({"lines": [{"sku": "A", "quantity": 0}]}, "/lines/0/quantity"),
    ({"lines": [{"sku": "A", "quantity": 1}, {"quantity": 1}]}, "/lines/1/sku"),
    ({"lines": [{"sku": "A", "quantity": 1, "unit_amount": 1.5}]}, "/lines/0/unit_amount"),
    ({"lines": [{"sku": "A", "quantity": 1, "unit_amount": 12949}]}, "/lines"),
    (
        {"lines": [{"sku": "A", "quantity": 1, "unit_amount": 12950}, {"sku": "B", "quantity": 1}]},
        "/lines/1/unit_amount",
    ),
    ({"lines": [{"sku": "A", "quantity": 1}] * 101}, "/lines"),
    ({"context": {"ip": "300.1.1.1"}}, "/context/ip"),
    ({"context": {"ip": "198.51.100.7; DROP"}}, "/context/ip"),
    ({"context": {"cookie": "x"}}, "/context/cookie"),
    ({"metadata": {"n": 1}}, "/metadata/n"),
    ({"metadata": {"n": "x" * 501}}, "/metadata/n"),
    ({"metadata": {str(number): "" for number in range(21)}}, "/metadata"),
    ({"metadata": {"": "x"}}, "/metadata"),
    ({"metadata": ["a"]}, "/metadata"),
    ({"surprise": 1}, "/surprise"),
]


@pytest.mark.parametrize(("members", "pointer"), BAD_MEMBERS, ids=lambda value: str(value)[:60])
def test_a_bad_member_is_named_by_its_pointer(
    members: dict[str, Any], pointer: str, shop: Storefront, make_order: MakeOrder
) -> None:
    body = make_order() | members
    problem = assert_problem(shop.post("orders", body), 400, "invalid_request")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert not IdempotencyKey.objects.exists()
    assert not Order.objects.exists()


@pytest.mark.parametrize("body", [[], "order", 5, None, True])
def test_the_body_is_an_object(body: Any, shop: Storefront) -> None:
    raw = json.dumps(body).encode()
    problem = assert_problem(shop.post("orders", raw=raw), 400, "invalid_request")
    assert all(error["pointer"].count("/") <= 1 for error in problem["errors"])


@pytest.mark.parametrize(
    "members",
    [
        {"return_url": "http://localhost:3000/return"},
        {"return_url": "http://127.0.0.1/return"},
        {"amount": 10**18 - 1, "lines": None},
        {"currency": "JPY"},
        {"context": {"ip": "2001:db8::1"}},
        {"lines": [{"sku": "A", "quantity": 3}]},
        {
            "lines": [
                {"sku": "A", "quantity": 1, "unit_amount": 13000},
                {"sku": "COUPON", "quantity": 1, "unit_amount": -50},
            ]
        },
        dict.fromkeys(("customer", "billing", "shipping", "lines", "context", "metadata", "return_url")),
    ],
    ids=str,
)
def test_a_good_member_is_accepted(
    members: Any, shop: Storefront, placed: Any, make_order: MakeOrder
) -> None:
    placed("paid", is_captured=True)
    assert shop.post("orders", make_order(**members)).status_code == 201


@pytest.mark.parametrize(
    "member",
    [
        "id",
        "state",
        "client",
        "client_id",
        "created_at",
        "event_sequence",
        "payment",
        "captured",
        "review",
        "cancel_reason",
    ],
)
def test_no_column_can_be_assigned(member: str, shop: Storefront, make_order: MakeOrder) -> None:
    problem = assert_problem(shop.post("orders", make_order() | {member: "x"}), 400, "invalid_request")
    assert problem["errors"] == [
        {"pointer": f"/{member}", "code": "unknown_field", "detail": "There is no such member."}
    ]


@pytest.fixture
def order(shop: Storefront) -> Order:
    payment = PaymentFactory.create(
        order__client=shop.client, order__state=OrderState.PROCESSING, is_authorized=True
    )
    found: Order = payment.order
    return found


@pytest.mark.parametrize(
    ("action", "body", "arguments"),
    [
        ("confirm", {}, {"payment_method": ""}),
        ("confirm", {"payment_method": "pm_card_visa"}, {"payment_method": "pm_card_visa"}),
        ("confirm", {"redirect_result": "X6Xt!a%3D"}, {"redirect_result": "X6Xt!a%3D"}),
        ("capture", {}, {"amount": None}),
        ("capture", {"amount": 500}, {"amount": 500}),
        ("cancel", {}, {"reason": "requested_by_customer"}),
        ("cancel", {"reason": "duplicate"}, {"reason": "duplicate"}),
    ],
)
def test_a_change_makes_one_domain_call(
    action: str, body: Any, arguments: Any, shop: Storefront, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def change(given: Order, **kwargs: Any) -> Order:
        calls.append((given.pk, {name: kwargs[name] for name in arguments}))
        return given

    monkeypatch.setattr(services, f"{action}_order", change)
    response = shop.post(f"orders/{order.pk}/{action}", body)
    assert (response.status_code, response.json()["id"]) == (200, order.pk)
    assert calls == [(order.pk, arguments)]


@pytest.mark.parametrize(
    ("action", "body", "pointer"),
    [
        ("confirm", {"payment_method": 5}, "/payment_method"),
        ("capture", {"amount": 0}, "/amount"),
        ("capture", {"amount": "all"}, "/amount"),
        ("cancel", {"reason": "bored"}, "/reason"),
        ("refunds", {"amount": -1}, "/amount"),
        ("refunds", {"amount": 1.0}, "/amount"),
        ("refunds", {"reason": "bored"}, "/reason"),
        ("refunds", {"note": "x" * 501}, "/note"),
        ("refunds", {"state": "succeeded"}, "/state"),
    ],
)
def test_a_bad_change_is_named_by_its_pointer(
    action: str, body: Any, pointer: str, shop: Storefront, order: Order
) -> None:
    problem = assert_problem(shop.post(f"orders/{order.pk}/{action}", body), 400, "invalid_request")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("error", "status", "stays"),
    [
        (ConflictError("It is captured already; nothing was changed.", state="paid"), 409, True),
        (AmountTooLargeError("Only 500 is left; nothing was refunded.", left=500), 400, False),
        (NetworkError("Down."), 503, False),
    ],
)
def test_a_refused_refund_is_a_problem(
    error: Any, status: int, stays: bool, shop: Storefront, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refund_order(given: Order, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(services, "refund_order", refund_order)
    response = shop.post(f"orders/{order.pk}/refunds", {"amount": 600})
    problem = assert_problem(response, status, error.code)
    assert problem["detail"] == error.message
    assert {name: problem[name] for name in error.details} == error.details
    assert ("Retry-After" in response) == (status == 503)
    assert IdempotencyKey.objects.exists() is stays


@pytest.mark.parametrize(
    ("state", "status"),
    [(OperationState.SUCCEEDED, 201), (OperationState.PENDING, 201), (OperationState.UNKNOWN, 202)],
)
def test_a_refund_is_shown_and_can_be_read(
    state: str, status: int, shop: Storefront, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = AttemptFactory.create(payment=order.payment)

    def refund_order(given: Order, *, amount: int, reason: str, **kwargs: Any) -> Any:
        return OperationFactory.create(
            attempt=attempt, kind=OperationKind.REFUND, state=state, amount=amount, reason=reason
        )

    monkeypatch.setattr(services, "refund_order", refund_order)
    response = shop.post(f"orders/{order.pk}/refunds", {"amount": 600, "reason": "duplicate"})
    refund = response.json()
    assert response.status_code == status
    assert {
        "order": order.pk,
        "payment": order.payment.pk,
        "amount": 600,
        "reason": "duplicate",
    }.items() <= refund.items()
    assert response["Location"] == f"/api/v1/refunds/{refund['id']}"
    assert shop.get(f"refunds/{refund['id']}").json() == refund


def test_only_refunds_are_refunds(shop: Storefront, order: Order) -> None:
    capture = OperationFactory.create(
        attempt=AttemptFactory.create(payment=order.payment), kind=OperationKind.CAPTURE
    )
    assert_problem(shop.get(f"refunds/{capture.pk}"), 404, "not_found")


def test_a_payment_shows_its_operations(shop: Storefront, order: Order) -> None:
    operation = OperationFactory.create(
        attempt=AttemptFactory.create(payment=order.payment), kind=OperationKind.AUTHORIZE
    )
    payment = shop.get(f"payments/{order.payment.pk}").json()
    assert payment["order"] == order.pk
    assert [shown["id"] for shown in payment["operations"]] == [operation.pk]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("state=paid", ["b"]),
        ("reference=a", ["a"]),
        ("customer_email=c@example.com", ["c"]),
        ("created_after=2026-01-02T00:00:00Z", ["c", "b"]),
        ("created_before=2026-01-02T00:00:00Z", ["a"]),
        ("state=placed&created_after=2026-01-02T00:00:00Z", ["c"]),
        ("", ["c", "b", "a"]),
    ],
)
def test_lists_can_be_narrowed(query: str, expected: list[str], shop: Storefront) -> None:
    for day, (reference, state) in enumerate([("a", "placed"), ("b", "paid"), ("c", "placed")], start=1):
        PaymentFactory.create(
            order=OrderFactory.create(
                client=shop.client,
                reference=reference,
                state=state,
                customer_email=f"{reference}@example.com",
                created_at=datetime(2026, 1, day, 12, tzinfo=UTC),
            )
        )
    assert [order["reference"] for order in shop.get(f"orders?{query}").json()["results"]] == expected


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("state=lost", "state"),
        ("colour=red", "colour"),
        ("client=x", "client"),
        ("created_after=yesterday", "created_after"),
        ("reference=%00", "reference"),
        ("page_size=0", "page_size"),
        ("page_size=101", "page_size"),
        ("page_size=x", "page_size"),
        ("_connector=OR", "_connector"),
    ],
)
def test_a_bad_filter_is_an_error(query: str, parameter: str, shop: Storefront) -> None:
    problem = assert_problem(shop.get(f"orders?{query}"), 400, "invalid_request")
    assert [error["parameter"] for error in problem["errors"]] == [parameter]
