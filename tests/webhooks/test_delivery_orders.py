"""Whatever order a payment's webhooks come in, each twice, and the answer among them: one end. ORDER_SEEDS=all: all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from payments.models import Order, Payment
from tests.payments.conftest import screener as screener
from tests.webhooks.orders import (
    PART,
    REST,
    TOTAL,
    Look,
    Teller,
    choose_arrivals,
    look_after,
)
from tests.webhooks.tellers import kind as kind
from tests.webhooks.tellers import teller as teller

pytestmark = pytest.mark.django_db


# --- the stories --------------------------------------------------------------------------------------------


def find_reference(order: Order) -> str:
    return Payment.objects.get(order=order).gateway_reference


def learn_reference(teller: Teller) -> str:
    """Of an authorization that nobody here has heard of: from its answer, which is held back."""
    [held] = teller.gateway.held.values()
    return str(held.reference)


def authorize_unheard(teller: Teller) -> Order:
    """We sent an authorization; all else was done at the gateway's own pages."""
    order = teller.place(capture="manual", hold="authorize")
    reference = learn_reference(teller)
    teller.capture_there(reference)
    teller.refund_there(reference, PART)
    teller.dispute(reference, won=False)
    return order


def capture_unheard(teller: Teller) -> Order:
    """Authorized; the answer to the capture is held back, and a part was refunded at the gateway's own pages."""
    order = teller.place(hold="capture")
    teller.refund_there(find_reference(order), PART)
    teller.dispute(find_reference(order), won=False)
    return order


def refund_unheard(teller: Teller) -> Order:
    """Captured and refunded in part; of a second refund the answer is held back; a dispute came and was won."""
    order = teller.place()
    teller.hear_of_the_capture()
    teller.refund(order, PART)
    teller.refund(order, REST, hold=True)
    teller.dispute(find_reference(order), won=True)
    return order


STORIES: Mapping[str, tuple[Callable[[Teller], Order], dict[str, int]]] = {
    "authorization": (authorize_unheard, {"authorized": TOTAL, "captured": TOTAL, "refunded": PART}),
    "capture": (capture_unheard, {"authorized": TOTAL, "captured": TOTAL, "refunded": PART}),
    "refund": (refund_unheard, {"captured": TOTAL, "refunded": PART + REST, "disputed": 0}),
}


@pytest.mark.parametrize("name", STORIES)
def test_one_end_whatever_comes_first(name: str, teller: Teller) -> None:
    begin, totals = STORIES[name]
    order = begin(teller)
    told = teller.collect()
    first: Look = {}
    number = 0
    for arrival in choose_arrivals(told, seed=len(told)):
        look = look_after(teller, order, arrival)
        number += 1
        first = first or look
        assert look == first
    payment = first["payment"]
    assert {total: payment[total] for total in totals} == totals
    assert (payment["refund_pending"], payment["state"]) == (0, "succeeded")
    assert first["proof"] == []
    assert {state for _, state, _ in first["archive"]} <= {"processed", "ignored"}
    print(
        f"\n{teller.account.gateway}, {name}: {number} orders of {2 * len(told)} deliveries and an answer, one end"
    )
