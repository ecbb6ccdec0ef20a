"""Events arrive signed, are tried again, and misbehave when their token says so."""

from typing import Any

import pytest
import requests
import stripe

from tests.payments.sandbox.shop import Endpoint, Shop, wait_until


def kinds(events: list[Any]) -> list[str]:
    return [event.type for event in events]


def test_a_payment_is_told_by_signed_events(shop: Shop, listening: Endpoint) -> None:
    intent = shop.pay(metadata={"order_id": "o-1"}, options={"idempotency_key": "k-1"})
    events = listening.wait_for(lambda events: len(events) >= 3)
    assert sorted(kinds(events)) == ["charge.succeeded", "payment_intent.created", "payment_intent.succeeded"]
    paid = next(event for event in events if event.type == "payment_intent.succeeded")
    assert paid.data.object["id"] == intent.id
    assert paid.data.object["metadata"]["order_id"] == "o-1"
    assert paid.request.idempotency_key == "k-1"
    assert shop.client.v1.events.retrieve(paid.id).type == paid.type


def test_each_step_of_a_payment_has_its_event(shop: Shop, listening: Endpoint) -> None:
    intents = shop.client.v1.payment_intents
    shop.client.v1.refunds.create({"payment_intent": intents.capture(shop.hold().id).id})
    intents.cancel(shop.pay("pm_card_threeDSecure2Required").id)
    with pytest.raises(stripe.CardError):
        shop.pay("pm_card_chargeDeclined")
    wanted = {
        "payment_intent.created",
        "payment_intent.requires_action",
        "payment_intent.amount_capturable_updated",
        "payment_intent.succeeded",
        "payment_intent.payment_failed",
        "payment_intent.canceled",
        "charge.succeeded",
        "charge.captured",
        "charge.refunded",
        "refund.created",
    }
    listening.wait_for(lambda events: wanted <= set(kinds(events)))


def test_a_delivery_is_tried_again_until_it_is_accepted(shop: Shop, listening: Endpoint) -> None:
    listening.answers[:] = [500, 500]
    shop.control("/_disputes", {"payment_intent": shop.pay().id})

    def done(events: list[Any]) -> bool:
        return len(events) == 7 and len({event.id for event in events}) == 5

    listening.wait_for(done)

    def delivered() -> bool:
        rows = shop.control("/_deliveries", method="GET")["deliveries"]
        return {row["status"] for row in rows} == {"delivered"} and sum(row["attempts"] for row in rows) == 7

    wait_until(delivered)


def test_paused_deliveries_wait_and_can_be_sent_newest_first(shop: Shop, listening: Endpoint) -> None:
    shop.control("/_webhooks/pause")
    shop.pay()
    assert listening.received == []
    assert shop.control("/_webhooks/deliver_due", {"order": "newest_first"})["attempted"] == 3
    assert kinds(listening.events())[-1] == "payment_intent.created"
    rows = shop.control("/_deliveries", method="GET")["deliveries"]
    assert {row["status"] for row in rows} == {"delivered"}
    shop.control("/_webhooks/resume")
    shop.pay()
    listening.wait_for(lambda events: len(events) == 6)


def test_a_duplicate_is_the_same_event_twice(shop: Shop, listening: Endpoint) -> None:
    shop.pay("tok_webhook_duplicate")
    events = listening.wait_for(lambda events: len(events) == 6)
    assert len({event.id for event in events}) == 3


def test_a_late_event_waits_until_it_is_sent_for(shop: Shop, listening: Endpoint) -> None:
    shop.pay("tok_webhook_late")
    assert shop.control("/_webhooks/deliver_due")["attempted"] == 0
    assert listening.received == []
    assert shop.control("/_webhooks/deliver_due", {"all": True})["attempted"] == 3
    assert len(listening.events()) == 3


def test_the_event_can_come_before_the_answer(shop: Shop, listening: Endpoint) -> None:
    shop.pay("tok_webhook_first")
    assert len(listening.events()) == 3


def test_a_bad_signature_is_not_accepted_by_the_sdk(shop: Shop, listening: Endpoint) -> None:
    shop.control("/_webhooks/pause")
    shop.pay("tok_webhook_bad_signature")
    shop.control("/_webhooks/deliver_due")
    assert len(listening.received) == 3
    with pytest.raises(stripe.SignatureVerificationError):
        listening.events()


def test_the_endpoint_must_be_http(shop: Shop) -> None:
    answer = requests.post(shop.url + "/_webhooks", json={"url": "file:///etc/passwd"}, timeout=60)
    assert answer.status_code == 400


def test_without_an_endpoint_events_are_kept_for_those_who_ask(shop: Shop) -> None:
    shop.pay()
    assert shop.control("/_deliveries", method="GET")["deliveries"] == []
    assert len(shop.client.v1.events.list().data) == 3
    wanted = ["payment_intent.created", "charge.succeeded"]
    assert sorted(kinds(shop.client.v1.events.list({"types": wanted}).data)) == sorted(wanted)
