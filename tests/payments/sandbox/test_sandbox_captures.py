"""Captures in parts: what they add up to, what they leave, and what is told of them."""

from typing import Any

import pytest
import stripe

from tests.payments.sandbox.shop import CARD, Shop

IN_PARTS: dict[str, Any] = {"card": {"request_multicapture": "if_available"}}


def hold(shop: Shop, token: str = CARD) -> Any:
    return shop.hold(token, payment_method_options=IN_PARTS, expand=["latest_charge"])


def capture(shop: Shop, identity: str, amount: int, *, final: bool = False, **more: Any) -> Any:
    params = {"amount_to_capture": amount, "final_capture": final, **more}
    return shop.client.v1.payment_intents.capture(identity, params)


def availability(intent: Any) -> str:
    return str(intent.latest_charge.payment_method_details.card.multicapture.status)


def test_parts_add_up_and_the_last_one_ends_it(shop: Shop) -> None:
    held = hold(shop)
    for amount, received in ((300, 300), (200, 500)):
        part = capture(shop, held.id, amount)
        assert (part.status, part.amount_received, part.amount_capturable) == (
            "requires_capture",
            received,
            1000 - received,
        )
    last = capture(shop, held.id, 400, final=True)
    assert (last.status, last.amount_received, last.amount_capturable) == ("succeeded", 900, 0)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        capture(shop, held.id, 1, final=True)
    assert caught.value.code == "payment_intent_unexpected_state"
    captures = [one["amount"] for one in shop.entry(held.id)["movements"] if one["operation"] == "capture"]
    assert captures == [300, 200, 400]


def test_a_last_capture_of_nothing_releases_the_rest(shop: Shop) -> None:
    held = hold(shop)
    with pytest.raises(stripe.InvalidRequestError):
        capture(shop, held.id, 0, final=True)  # nothing was captured yet: that is a cancellation
    capture(shop, held.id, 300)
    with pytest.raises(stripe.InvalidRequestError):
        capture(shop, held.id, 0)
    gone = capture(shop, held.id, 0, final=True, metadata={"why": "sold out"})
    assert (gone.status, gone.amount_received, gone.amount_capturable) == ("succeeded", 300, 0)
    assert gone.metadata["why"] == "sold out"
    entry = shop.entry(held.id)
    assert (entry["captured"], entry["cancels"], entry["released"]) == (300, 1, 700)


def test_parts_need_an_account_and_a_card_that_allow_them(shop: Shop) -> None:
    assert availability(hold(shop)) == "available"
    refused = hold(shop, "pm_card_multicaptureUnavailable")
    assert availability(refused) == "unavailable"
    with pytest.raises(stripe.InvalidRequestError) as caught:
        capture(shop, refused.id, 300)
    assert caught.value.param == "final_capture"
    assert shop.entry(refused.id)["captures"] == 0


def test_the_rest_of_a_hold_runs_out_and_the_parts_stay(shop: Shop) -> None:
    held = hold(shop)
    capture(shop, held.id, 300)
    assert shop.control("/_clock", {"advance_seconds": 7 * 86400})["expired"] == 1
    after = shop.client.v1.payment_intents.retrieve(held.id)
    assert (after.status, after.amount_received, after.amount_capturable) == ("succeeded", 300, 0)


def test_a_part_can_be_refunded_while_the_rest_is_held(shop: Shop) -> None:
    held = hold(shop)
    capture(shop, held.id, 300)
    assert shop.client.v1.refunds.create({"payment_intent": held.id, "amount": 300}).status == "succeeded"
    with pytest.raises(stripe.InvalidRequestError):
        shop.client.v1.refunds.create({"payment_intent": held.id, "amount": 1})
    assert capture(shop, held.id, 700, final=True).status == "succeeded"


def test_every_part_is_a_row_of_the_balance_and_the_balance_is_their_sum(shop: Shop) -> None:
    held = hold(shop)
    capture(shop, held.id, 300)
    capture(shop, held.id, 700, final=True)
    dispute = shop.control("/_disputes", {"payment_intent": held.id})
    shop.control("/_disputes", {"dispute": dispute["id"], "status": "won"})
    rows = shop.client.v1.balance_transactions.list({"limit": 100}).data
    assert sorted((row.reporting_category, row.amount) for row in rows) == [
        ("charge", 300),
        ("charge", 700),
        ("dispute", -1000),
        ("dispute_reversal", 1000),
    ]
    assert shop.client.v1.balance.retrieve().available[0].amount == sum(row.net for row in rows)


def test_events_tell_what_each_capture_changed(shop: Shop) -> None:
    held = hold(shop)
    capture(shop, held.id, 300)
    capture(shop, held.id, 200, final=True)
    listed = shop.client.v1.events.list({"limit": 100}).data
    events = [event.to_dict() for event in reversed(listed)]
    told = [
        (event["type"], event["data"]["previous_attributes"]["amount_received"])
        for event in events
        if event["data"]["object"]["id"] == held.id and "previous_attributes" in event["data"]
    ]
    assert told == [("payment_intent.amount_capturable_updated", 0), ("payment_intent.succeeded", 300)]
    charges = [event["type"] for event in events if event["data"]["object"]["id"] == held.latest_charge.id]
    assert charges == ["charge.succeeded", "charge.updated", "charge.captured"]


def test_intents_are_found_by_a_key_of_their_metadata(shop: Shop) -> None:
    held = hold(shop)
    capture(shop, held.id, 300, metadata={"captured_op_1": "300"})
    hold(shop)
    found = shop.client.v1.payment_intents.search({"query": "-metadata['captured_op_1']:null"}).data
    assert [one.id for one in found] == [held.id]
