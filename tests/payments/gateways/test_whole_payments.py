"""A payment from its order to its dispute through the real services, on each gateway, whose own books must agree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from payments import services
from payments.gateways import get_gateway
from payments.kinds import DisputeStage, OperationKind
from payments.models import ApiClient, Dispute, GatewayAccount, Operation, OperationState, Order, OrderState
from payments.money import Money
from payments.proof import prove_ledger
from payments.sandbox import start as start_stripe
from payments.sandbox.adyen import start as start_adyen
from payments.sandbox.braintree import start as start_braintree
from tests.factories.payments import GatewayAccountFactory
from tests.fakes import ScriptedScreener
from tests.payments.gateways import test_adyen_contract as adyen
from tests.payments.gateways import test_braintree_contract as braintree
from tests.payments.gateways import test_stripe_contract as stripe

STAND_INS: dict[str, Any] = {"stripe": start_stripe, "braintree": start_braintree, "adyen": start_adyen}
WORLDS: dict[str, Any] = {
    "stripe": stripe.SandboxWorld,
    "braintree": braintree.BraintreeWorld,
    "adyen": adyen.AdyenWorld,
}
ROWS: dict[str, dict[str, Any]] = {
    "stripe": {"api_key": stripe.KEY},
    "braintree": {"api_key": "private", "options": {"merchant_id": "shop", "public_key": "public"}},
    "adyen": {"api_key": adyen.KEY, "options": {"merchant_account": adyen.ACCOUNT}},
}


@pytest.fixture(params=sorted(WORLDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def world(kind: str) -> Iterator[Any]:
    with ExitStack() as stack:
        yield WORLDS[kind](stack.enter_context(STAND_INS[kind]()))


@pytest.fixture
def account(db: None, kind: str, world: Any) -> GatewayAccount:
    """A row as an operator would write it: the adapter is built from nothing else."""
    GatewayAccount.objects.update(is_active=False)
    return GatewayAccountFactory(gateway=kind, api_base=world.url, **ROWS[kind])


def hear(account: GatewayAccount, world: Any) -> None:
    """Everything told so far, as if nothing of it had been heard before; then the sagas that it woke."""
    world.settle()
    for payload in world.events():
        for fact in get_gateway(account).read_event(payload):
            services.apply_gateway_fact(account, fact)
    for _ in range(10):
        if not services.sweep_sagas():
            return
    pytest.fail("the sagas find no rest")


def test_a_payment_is_paid_refunded_in_part_and_disputed(
    account: GatewayAccount, world: Any, shop: ApiClient, screener: ScriptedScreener
) -> None:
    draft = services.OrderDraft("web-1", Money(1999, "EUR"), world.card("ok"), shipping={"country": "DE"})
    placed = services.place_order(shop, draft)
    assert placed.payment.account == account
    if get_gateway(account).capabilities.asynchronous_captures:
        assert placed.state != OrderState.PAID
    hear(account, world)
    order = Order.objects.get(pk=placed.pk)
    assert order.state == OrderState.PAID

    refund = services.refund_order(order, amount=500, reason="requested_by_customer", actor="api:test")
    hear(account, world)
    refund.refresh_from_db()
    assert (refund.state, refund.amount) == (OperationState.SUCCEEDED, 500)

    held = Operation.objects.get(payment=order.payment, kind=OperationKind.AUTHORIZE)
    reference = world.dispute(held.gateway_reference, stage=DisputeStage.CHARGEBACK)
    hear(account, world)
    dispute = Dispute.objects.get(payment=order.payment)
    assert dispute.gateway_reference == reference

    payment = Order.objects.get(pk=order.pk).payment
    books = world.count_movements(held.pk)
    assert (payment.authorized, payment.captured, payment.refunded) == (1999, 1999, 500)
    assert (books["charges"], books["captured"], books["refunded"]) == (1, 1999, 500)
    assert payment.disputed == dispute.amount > 0
    assert prove_ledger() == []


@pytest.mark.parametrize("kind", ["adyen", "braintree"])
def test_an_exemption_that_the_issuer_refuses_is_a_challenge_where_the_gateway_has_one(
    account: GatewayAccount, world: Any, shop: ApiClient, screener: ScriptedScreener
) -> None:
    screener.sca_exemption = "low_value"
    draft = services.OrderDraft(
        "web-1",
        Money(1999, "EUR"),
        world.card("needs_authentication"),
        shipping={"country": "DE"},
        return_url="https://shop.example/return",
    )
    order = services.place_order(shop, draft)
    if not get_gateway(account).capabilities.challenges:
        assert (order.state, order.payment.last_error["code"]) == ("declined", "authentication_required")
        return
    assert order.state == OrderState.AWAITING_CUSTOMER
    hear(account, world)
    held = Operation.objects.latest("created_at")
    brought = world.authenticate(held.pk, success=True)
    services.confirm_order(Order.objects.get(pk=order.pk), redirect_result=brought)
    hear(account, world)
    order = Order.objects.get(pk=order.pk)
    assert (order.state, order.payment.card["three_d_secure"]) == (OrderState.PAID, "authenticated")
    assert world.count_movements(held.pk)["captured"] == 1999
    assert prove_ledger() == []
