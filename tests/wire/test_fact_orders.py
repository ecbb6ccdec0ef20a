"""All 720 orders in which six webhooks of one payment may come end in one state; the events are the sandbox's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from django.db import transaction
from django.db.models import Sum
from django.forms.models import model_to_dict

from payments import services
from payments.models import Operation, Order, Payment, Posting
from payments.money import Money
from payments.proof import prove_ledger
from payments.services import FactOutcome
from tests.wire.shop import WiredShop

pytestmark = pytest.mark.django_db

Event = dict[str, Any]
Look = dict[str, Any]
PARKED = (FactOutcome.NOT_YET, FactOutcome.UNKNOWN_PAYMENT)
TOTAL, PART, REFUND, DISPUTE = 12950, 4000, 2000, 3000
ACTOR = "api:shop"


def deliver(shop: WiredShop, event: Event) -> bool:
    """Whether it could be placed; what could not is parked and delivered again, as the worker does."""
    outcomes = [services.apply_gateway_fact(shop.account, fact) for fact in shop.read(event)]
    assert FactOutcome.CONFLICT not in outcomes
    return not set(outcomes) & set(PARKED)


def look_after_each_order(
    shop: WiredShop, left: Sequence[Event], look: Callable[[], Look], parked: tuple[Event, ...] = ()
) -> Iterator[Look]:
    """What every distinct order leaves; orders that begin alike share their beginning."""
    if not left:
        with transaction.atomic():
            deliver_parked(shop, parked)
            yield look()
            transaction.set_rollback(True)
    for index, event in enumerate(left):
        if event in left[:index]:
            continue
        with transaction.atomic():
            late = () if deliver(shop, event) else (event,)
            rest = [*left[:index], *left[index + 1 :]]
            yield from look_after_each_order(shop, rest, look, (*parked, *late))
            transaction.set_rollback(True)


def deliver_parked(shop: WiredShop, parked: Sequence[Event]) -> None:
    for _ in range(len(parked) + 1):
        parked = [event for event in parked if not deliver(shop, event)]
    assert not parked, "never placed"


def look_at(order: Order) -> Look:
    payment = Payment.objects.get(order=order)
    postings = Posting.objects.filter(entry__payment=payment)
    return {
        "payment": {
            name: value for name, value in model_to_dict(payment).items() if not name.endswith("_at")
        },
        "operations": sorted(
            payment.operations.values_list("kind", "state").annotate(total=Sum("amount")).order_by()
        ),
        "rows": sorted(payment.operations.values_list("kind", "state", "amount", "gateway_reference")),
        "disputes": sorted(payment.disputes.values_list("gateway_reference", "state", "stage", "amount")),
        "balances": sorted(postings.values_list("account__code").annotate(total=Sum("amount")).order_by()),
        "proof": prove_ledger(),
    }


def compare(looks: Iterator[Look], *names: str) -> tuple[int, Look]:
    """How many orders, and the one state that all of them leave."""
    first: Look = {}
    number = 0
    for found in looks:
        number += 1
        assert found["proof"] == []
        seen = {name: found[name] for name in names}
        first = first or seen
        assert seen == first
    return number, first


# --- the stories --------------------------------------------------------------------------------------------


@pytest.fixture
def in_doubt(wired: WiredShop) -> Order:
    """Authorized and captured in part; the refund and the last capture were done, and their answers lost."""
    order = wired.place(Money(TOTAL, "EUR"), capture="manual")
    services.resume_order(order)
    services.capture_order(order, amount=PART, final=False, actor=ACTOR)
    wired.break_calls("refund", "reset_after", times=1)
    services.refund_order(order, amount=REFUND, reason="requested", actor=ACTOR)
    wired.break_calls("capture", "reset_after", times=1)
    wired.break_calls(
        "retrieve", "500", times=2
    )  # the refund in doubt is asked for before the capture, in vain
    services.capture_order(order, amount=None, actor=ACTOR)
    wired.repair()
    states = set(
        Operation.objects.filter(payment__order=order, state="unknown").values_list("kind", flat=True)
    )
    assert states == {"refund", "capture"}
    dispute(wired, order)
    return order


@pytest.fixture
def never_answered(wired: WiredShop) -> Order:
    """We sent an authorization and know nothing; all else was done in the gateway's dashboard."""
    order = wired.place(Money(TOTAL, "EUR"), capture="manual")
    wired.break_calls("authorize", "reset_after", times=1)
    services.resume_order(order)
    [intent] = wired.intents(order)
    capture = f"payment_intents/{intent['id']}/capture"
    wired.call(capture, amount_to_capture=PART, final_capture="false")
    wired.call(capture)
    wired.call("refunds", payment_intent=intent["id"], amount=REFUND)
    dispute(wired, order)
    return order


def dispute(shop: WiredShop, order: Order) -> None:
    [intent] = shop.intents(order)
    shop.control("POST", "/_disputes", json={"payment_intent": intent["id"], "amount": DISPUTE})


def pick_six(shop: WiredShop) -> list[Event]:
    """Authorized, captured in part, captured whole, refund pending, refund succeeded, dispute opened."""
    told = shop.events()
    authorized, part = (event for event in told if event["type"].endswith("amount_capturable_updated"))
    [whole] = (event for event in told if event["type"] == "payment_intent.succeeded")
    [refunded] = (event for event in told if event["type"] == "refund.created")
    [disputed] = (event for event in told if event["type"] == "charge.dispute.created")
    # The sandbox refunds at once; at Stripe the same refund is first pending.
    waiting = {**refunded["data"]["object"], "status": "pending"}
    pending = {**refunded, "data": {"object": waiting}}
    return [authorized, part, whole, pending, {**refunded, "type": "refund.updated"}, disputed]


def assert_right(seen: Look) -> None:
    payment = seen["payment"]
    names = ("authorized", "captured", "capturable", "refunded", "refund_pending", "disputed")
    assert [payment[name] for name in names] == [TOTAL, TOTAL, 0, REFUND, 0, DISPUTE]
    assert payment["state"] == "succeeded"
    assert seen["operations"] == [
        ("authorize", "succeeded", TOTAL),
        ("capture", "succeeded", TOTAL),
        ("refund", "succeeded", REFUND),
    ]


def test_what_was_in_doubt_ends_in_one_state(wired: WiredShop, in_doubt: Order) -> None:
    looks = look_after_each_order(wired, pick_six(wired), lambda: look_at(in_doubt))
    number, seen = compare(looks, "payment", "operations", "rows", "disputes", "balances")
    assert_right(seen)
    assert number == 720
    print(f"\nanswers lost: {number} orders of six webhooks, one state")


def test_what_we_never_heard_of_ends_in_one_state(wired: WiredShop, never_answered: Order) -> None:
    """Whether two captures were told of one by one or as their sum is all that the order of arrival may decide."""
    looks = look_after_each_order(wired, pick_six(wired), lambda: look_at(never_answered))
    number, seen = compare(looks, "payment", "operations", "disputes", "balances")
    assert_right(seen)
    assert number == 720
    print(f"\nnothing known: {number} orders of six webhooks, one state")


def test_deliveries_again_change_nothing(wired: WiredShop, in_doubt: Order) -> None:
    _, _, whole, pending, refunded, disputed = pick_six(wired)
    told = [whole, whole, pending, refunded, refunded, disputed]
    number, seen = compare(
        look_after_each_order(wired, told, lambda: look_at(in_doubt)),
        "payment",
        "operations",
        "rows",
        "disputes",
        "balances",
    )
    assert_right(seen)
    print(f"\nwith duplicates: {number} distinct orders of six webhooks, one state")
