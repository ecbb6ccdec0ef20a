"""The textbook's examples: what each event of a payment leaves on each account, in minor units of EUR."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db.models import Sum

from payments import ledger
from payments.ledger import Account
from payments.models import Payment, Posting
from payments.money import Money
from tests.factories.payments import PaymentFactory

pytestmark = pytest.mark.django_db

Balances = dict[str, int]


@pytest.fixture
def payment() -> Payment:
    return PaymentFactory(order__amount=10000)


def eur(minor: int) -> Money:
    return Money(minor, "EUR")


def read_balances(payment: Payment) -> Balances:
    """The accounts that are not at zero."""
    sums = Posting.objects.filter(entry__payment=payment).values_list("account__code").annotate(Sum("amount"))
    return {Account(code).name: total for code, total in sums.order_by("account__code") if total}


def authorize(payment: Payment) -> None:
    ledger.post_authorization(payment, "op_a", eur(10000))


def capture(payment: Payment, amount: int = 10000) -> None:
    ledger.post_capture(payment, "op_c", eur(amount), released=eur(10000))


def ask_refund(payment: Payment) -> None:
    ledger.post_refund_asked(payment, "re_1", eur(2500))


def settle_refund(payment: Payment) -> None:
    ledger.post_refund_settled(payment, "re_1", eur(2500))


def lose_refund(payment: Payment) -> None:
    ledger.post_refund_withdrawn(payment, "re_1", eur(2500), was_settled=False)


def reverse_refund(payment: Payment) -> None:
    ledger.post_refund_withdrawn(payment, "re_1", eur(2500), was_settled=True)


HELD = {"AUTHORIZED": 10000, "AUTHORIZED_CONTRA": -10000}
SOLD = {"CLEARING": 10000, "SALES": -10000}

EXAMPLES: dict[str, tuple[list[Callable[[Payment], None]], Balances]] = {
    "an authorization is a memo off the balance sheet": ([authorize], HELD),
    "a void leaves nothing": (
        [authorize, lambda payment: ledger.post_release(payment, "op_v", eur(10000))],
        {},
    ),
    "a capture is a sale whose money is at the gateway": ([authorize, capture], SOLD),
    "a partial capture sells a part and releases the rest": (
        [authorize, lambda payment: capture(payment, 3000)],
        {"CLEARING": 3000, "SALES": -3000},
    ),
    "a refund that is asked for is owed to the customer": (
        [authorize, capture, ask_refund],
        {"CLEARING": 10000, "REFUNDS_PAYABLE": -2500, "SALES": -10000, "REFUNDS": 2500},
    ),
    "a refund that is settled has left the gateway": (
        [authorize, capture, ask_refund, settle_refund],
        {"CLEARING": 7500, "SALES": -10000, "REFUNDS": 2500},
    ),
    "a refund that failed before it was settled was never made": (
        [authorize, capture, ask_refund, lose_refund],
        SOLD,
    ),
    "a refund that is reversed brings the money back": (
        [authorize, capture, ask_refund, settle_refund, reverse_refund],
        SOLD,
    ),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_example(payment: Payment, example: str) -> None:
    events, expected = EXAMPLES[example]
    for event in events:
        event(payment)
    assert read_balances(payment) == expected


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_told_twice_is_booked_once(payment: Payment, example: str) -> None:
    events, expected = EXAMPLES[example]
    for event in [*events, *events]:
        event(payment)
    assert read_balances(payment) == expected


def test_a_trial_balance_is_zero_after_every_event(payment: Payment) -> None:
    for event in (authorize, capture, ask_refund, settle_refund, reverse_refund):
        event(payment)
        assert Posting.objects.aggregate(total=Sum("amount"))["total"] == 0
