"""A second account is tried when surely nothing left for the first; never when anything may have happened there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from payments import services
from payments.models import ApiClient, GatewayAccount, Order
from payments.money import Money
from payments.proof import prove_ledger
from payments.sagas import effects
from tests.factories.payments import GatewayAccountFactory
from tests.fakes import FakeGateway, ScriptedScreener
from tests.payments.gateway_faults import acts_then_times_out, is_unreachable, refuses, sweep, times_out

pytestmark = pytest.mark.django_db


@pytest.fixture
def second(account: GatewayAccount) -> GatewayAccount:
    return GatewayAccountFactory(name="second", priority=900)


@pytest.fixture
def gateways(
    account: GatewayAccount, second: GatewayAccount, monkeypatch: pytest.MonkeyPatch
) -> tuple[FakeGateway, FakeGateway]:
    books = {account.pk: FakeGateway(), second.pk: FakeGateway()}
    monkeypatch.setattr(effects, "get_gateway", lambda account: books[account.pk])
    return books[account.pk], books[second.pk]


@pytest.fixture
def place(
    shop: ApiClient, gateways: tuple[FakeGateway, FakeGateway], screener: ScriptedScreener
) -> Callable[..., Order]:
    def place_order(**changes: Any) -> Order:
        draft = {
            "reference": "web-1",
            "amount": Money(12950, "EUR"),
            "payment_method": "pm_first",
            "payment_methods": {"stripe/second": "pm_second"},
            **changes,
        }
        return services.place_order(shop, services.OrderDraft(**draft))

    return place_order


def test_what_never_left_goes_to_the_next_account(
    place: Callable[..., Order], gateways: tuple[FakeGateway, FakeGateway], second: GatewayAccount
) -> None:
    gateways[0].faults["authorize"] = [is_unreachable]
    order = place()
    payment = order.payment
    assert (order.state, payment.account, payment.payment_method) == ("paid", second, "pm_second")
    assert [(a.number, a.state, a.account) for a in payment.attempts.order_by("number")] == [
        (1, "not_sent", payment.attempts.get(number=1).account),
        (2, "done", second),
    ]
    assert gateways[0].money_kept() == 0
    assert gateways[1].money_kept() == 12950
    assert sorted(payment.operations.values_list("kind", "state")) == [
        ("authorize", "failed"),
        ("authorize", "succeeded"),
        ("capture", "succeeded"),
    ]
    assert prove_ledger() == []


def test_a_late_answer_of_the_first_changes_nothing_at_the_second(
    place: Callable[..., Order], gateways: tuple[FakeGateway, FakeGateway]
) -> None:
    gateways[0].faults["authorize"] = [is_unreachable]
    order = place()
    services.refund_order(order, amount=1000, reason="requested", actor="api:shop")
    assert sum(gateways[1].refunds.values()) == 1000
    assert gateways[0].refunds == {}


@pytest.mark.parametrize("fault", [times_out, acts_then_times_out])
def test_doubt_is_asked_for_and_never_routed_around(
    place: Callable[..., Order],
    gateways: tuple[FakeGateway, FakeGateway],
    fault: Callable[..., Any],
    account: GatewayAccount,
) -> None:
    gateways[0].faults["authorize"] = [fault]
    order = place()
    sweep(2)
    order.refresh_from_db()
    assert (order.state, order.payment.account) == ("paid", account)
    assert gateways[1].calls == []
    assert len(gateways[0].authorized) == 1


def test_a_refusal_and_a_decline_are_answers(
    place: Callable[..., Order], gateways: tuple[FakeGateway, FakeGateway]
) -> None:
    gateways[0].faults["authorize"] = [refuses]
    assert place().state == "canceled"
    assert place(reference="web-2", payment_method="pm_card_chargeDeclined").state == "declined"
    assert gateways[1].calls == []


def test_without_a_token_for_it_the_second_is_no_candidate(
    place: Callable[..., Order], gateways: tuple[FakeGateway, FakeGateway]
) -> None:
    gateways[0].faults["authorize"] = [is_unreachable]
    order = place(payment_methods={})
    assert order.state == "placed"
    sweep(1)
    order.refresh_from_db()
    assert order.state == "paid"
    assert gateways[1].calls == []


def test_when_both_are_away_the_order_waits_for_the_last(
    place: Callable[..., Order], gateways: tuple[FakeGateway, FakeGateway], second: GatewayAccount
) -> None:
    gateways[0].faults["authorize"] = [is_unreachable]
    gateways[1].faults["authorize"] = [is_unreachable]
    order = place()
    assert order.payment.account == second
    sweep(1)
    order.refresh_from_db()
    assert order.state == "paid"
    assert gateways[1].money_kept() == 12950
