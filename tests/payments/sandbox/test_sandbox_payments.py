"""Payments, captures, cancellations and refunds, by the rules of the gateway that is imitated."""

from functools import partial
from typing import Any

import pytest
import requests
import stripe

from payments.sandbox import Sandbox
from tests.payments.sandbox.shop import Shop


def test_a_confirmed_payment_is_charged_at_once(shop: Shop) -> None:
    intent = shop.pay(metadata={"order_id": "o-1"}, expand=["latest_charge.balance_transaction"])
    assert (intent.status, intent.amount_received, intent.metadata["order_id"]) == ("succeeded", 1000, "o-1")
    charge = intent.latest_charge
    assert (charge.captured, charge.payment_method_details.card.last4) == (True, "4242")
    assert charge.balance_transaction.net == 1000 - (29 + 25)


def test_the_card_tells_what_the_fraud_rules_need(shop: Shop) -> None:
    charge = shop.charge("pm_card_de_77")
    card = charge.payment_method_details.card
    assert (card.brand, card.country, card.funding, card.exp_month) == ("visa", "DE", "credit", 12)
    assert card.checks.cvc_check == card.checks.address_postal_code_check == "pass"
    assert charge.outcome.risk_score < 65


def test_each_suffix_is_one_card_with_a_fingerprint_of_its_own(shop: Shop) -> None:
    def fingerprint(token: str) -> str:
        return str(shop.charge(token).payment_method_details.card.fingerprint)

    assert fingerprint("pm_card_visa_a") == fingerprint("pm_card_visa_a")
    assert len({fingerprint(f"pm_card_visa_{name}") for name in "abc"} | {fingerprint("pm_card_visa")}) == 4


def test_a_payment_method_of_an_intent_can_pay_again(shop: Shop) -> None:
    first = shop.pay("pm_card_visa_k")
    again = shop.pay(first.payment_method, expand=["latest_charge"])
    assert (again.status, again.payment_method) == ("succeeded", first.payment_method)


@pytest.mark.parametrize(
    ("token", "check"),
    [("pm_card_avsFail", "address_postal_code_check"), ("pm_card_cvcCheckFail", "cvc_check")],
)
def test_a_failed_check_is_told_with_the_charge(shop: Shop, token: str, check: str) -> None:
    charge = shop.charge(token)
    assert charge.payment_method_details.card.checks[check] == "fail"


@pytest.mark.parametrize(
    ("token", "code", "decline_code"),
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", "expired_card"),
        ("pm_card_chargeDeclinedLostCard", "card_declined", "lost_card"),
        ("pm_card_chargeDeclinedStolenCard", "card_declined", "stolen_card"),
        ("pm_card_chargeDeclinedFraudulent", "card_declined", "fraudulent"),
        ("pm_card_chargeDeclinedProcessingError", "processing_error", "processing_error"),
    ],
)
def test_a_declined_card_is_a_card_error_and_the_intent_can_try_another(
    shop: Shop, token: str, code: str, decline_code: str
) -> None:
    with pytest.raises(stripe.CardError) as caught:
        shop.pay(token)
    error: Any = caught.value.error
    assert (caught.value.http_status, error.code, error.decline_code) == (402, code, decline_code)
    intent = shop.client.v1.payment_intents.retrieve(error.payment_intent.id)
    assert (intent.status, intent.last_payment_error.decline_code) == (
        "requires_payment_method",
        decline_code,
    )
    assert (
        shop.client.v1.payment_intents.confirm(intent.id, {"payment_method": "pm_card_visa"}).status
        == "succeeded"
    )
    entry = shop.entry(intent.id)
    assert (entry["declines"], entry["charges"], entry["captures"]) == (1, 1, 1)


def test_a_hold_is_captured_in_part_and_the_rest_is_let_go(shop: Shop) -> None:
    held = shop.hold()
    assert (held.status, held.amount_capturable, held.amount_received) == ("requires_capture", 1000, 0)
    taken = shop.client.v1.payment_intents.capture(held.id, {"amount_to_capture": 600})
    assert (taken.status, taken.amount_capturable, taken.amount_received) == ("succeeded", 0, 600)


def test_more_than_was_authorized_is_never_captured(shop: Shop) -> None:
    held = shop.hold()
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.client.v1.payment_intents.capture(held.id, {"amount_to_capture": 1001})
    assert (caught.value.http_status, caught.value.param) == (400, "amount_to_capture")
    assert shop.entry(held.id)["captures"] == 0


def test_several_captures_need_to_be_asked_for(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        shop.client.v1.payment_intents.capture(
            shop.hold().id, {"amount_to_capture": 1, "final_capture": False}
        )
    wanted = {"card": {"request_multicapture": "if_available"}}
    held = shop.hold(payment_method_options=wanted)
    params = {"amount_to_capture": 400, "final_capture": False}
    part = shop.client.v1.payment_intents.capture(held.id, params)
    assert (part.status, part.amount_capturable, part.amount_received) == ("requires_capture", 600, 400)
    assert shop.client.v1.payment_intents.capture(held.id).amount_received == 1000


def test_a_canceled_hold_is_not_captured_and_a_captured_one_not_canceled(shop: Shop) -> None:
    intents = shop.client.v1.payment_intents
    gone = intents.cancel(shop.hold().id, {"cancellation_reason": "fraudulent"})
    assert (gone.status, gone.cancellation_reason, gone.amount_capturable) == ("canceled", "fraudulent", 0)
    for call in (partial(intents.capture, gone.id), partial(intents.cancel, shop.pay().id)):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            call()
        assert (caught.value.http_status, caught.value.code) == (400, "payment_intent_unexpected_state")


def test_refunds_add_up_to_what_was_captured_and_no_further(shop: Shop) -> None:
    intent = shop.pay()
    refunds = shop.client.v1.refunds
    params = {"payment_intent": intent.id, "amount": 300, "reason": "requested_by_customer"}
    part = refunds.create({**params, "metadata": {"refund_id": "re-1"}})
    assert (part.status, part.amount, part.metadata["refund_id"]) == ("succeeded", 300, "re-1")
    with pytest.raises(stripe.InvalidRequestError) as caught:
        refunds.create({"payment_intent": intent.id, "amount": 701})
    assert caught.value.param == "amount"
    assert refunds.create({"charge": intent.latest_charge}).amount == 700
    with pytest.raises(stripe.InvalidRequestError) as caught:
        refunds.create({"payment_intent": intent.id})
    assert caught.value.code == "charge_already_refunded"
    assert refunds.retrieve(part.id).id == part.id
    assert len(refunds.list({"payment_intent": intent.id}).data) == 2
    assert shop.entry(intent.id)["refunded"] == 1000


def test_nothing_is_refunded_before_it_is_captured(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        shop.client.v1.refunds.create({"payment_intent": shop.hold().id})


def test_a_hold_expires_after_seven_days(shop: Shop) -> None:
    held = shop.hold()
    assert shop.control("/_clock", {"advance_seconds": 7 * 86400})["expired"] == 1
    intent = shop.client.v1.payment_intents.retrieve(held.id)
    assert (intent.status, intent.cancellation_reason) == ("canceled", "automatic")


def test_history_is_written_with_the_time_of_the_request(shop: Shop) -> None:
    headers = {"X-Sandbox-Now": "1700000000"}
    intent = shop.pay(options={"headers": headers}, expand=["latest_charge.balance_transaction"])
    charge = intent.latest_charge
    assert intent.created == charge.created == charge.balance_transaction.created == 1700000000
    found = shop.client.v1.events.list({"created": {"lte": 1700000000}, "type": "payment_intent.succeeded"})
    assert [event.data.object["id"] for event in found.data] == [intent.id]


def test_intents_are_found_at_once_by_their_metadata(shop: Shop) -> None:
    wanted = shop.pay(metadata={"order_id": "o-7", "shop": "x"})
    shop.pay(metadata={"order_id": "o-8"})
    query = "metadata['order_id']:'o-7' AND status:'succeeded'"
    assert [one.id for one in shop.client.v1.payment_intents.search({"query": query}).data] == [wanted.id]
    with pytest.raises(stripe.InvalidRequestError):
        shop.client.v1.payment_intents.search({"query": "amount>1"})


def test_lists_page_from_the_newest_to_the_oldest(shop: Shop) -> None:
    made = [shop.pay(amount=100 + number).id for number in range(5)]
    intents = shop.client.v1.payment_intents
    first = intents.list({"limit": 2})
    assert ([one.id for one in first.data], first.has_more) == (made[:2:-1], True)
    assert [one.id for one in intents.list({"limit": 2}).auto_paging_iter()] == made[::-1]
    assert intents.list({"created": {"gt": intents.retrieve(made[-1]).created + 60}}).data == []


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"amount": 0}, "amount"),
        ({"amount": 100_000_000_000}, "amount"),
        ({"amount": "12.5"}, "amount"),
        ({"currency": "zzz"}, "currency"),
        ({"currency": "EUR"}, "currency"),
        ({"colour": "red"}, "colour"),
        ({"payment_method": "pm_card_nobody"}, "payment_method"),
        ({"payment_method_options": {"card": {"colour": "red"}}}, "payment_method_options[card][colour]"),
        ({"expand": ["colour"]}, "expand"),
    ],
)
def test_a_wrong_parameter_is_named_and_nothing_is_written(
    shop: Shop, change: dict[str, Any], param: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.pay(**change)
    assert (caught.value.http_status, caught.value.param) == (400, param)
    assert shop.books()["payment_intents"] == {}


def test_what_does_not_exist_is_not_found(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.client.v1.payment_intents.retrieve("pi_nobody")
    assert (caught.value.http_status, caught.value.code) == (404, "resource_missing")
    assert str(caught.value.request_id).startswith("req_")


def test_a_key_that_is_not_a_test_key_is_refused(sandbox: Sandbox) -> None:
    url = sandbox.url + "/v1/balance"
    assert requests.get(url, timeout=60).status_code == 401
    assert requests.get(url, auth=("sk_live_x", ""), timeout=60).status_code == 401
    assert requests.get(url, auth=("sk_test_x", ""), timeout=60).status_code == 200


def test_three_d_secure_waits_for_the_customer_on_a_page_of_the_bank(shop: Shop) -> None:
    intent = shop.hold("pm_card_threeDSecure2Required", return_url="https://shop.example/return?order=1")
    assert intent.status == "requires_action"
    page = intent.next_action.redirect_to_url.url
    shown = requests.get(page, timeout=60)
    assert "10.00 EUR" in shown.text
    assert "<script" not in shown.text
    answer = requests.post(page, data={"outcome": "success"}, allow_redirects=False, timeout=60)
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith(
        f"https://shop.example/return?order=1&payment_intent={intent.id}"
    )
    assert answer.headers["Location"].endswith("redirect_status=succeeded")
    after = shop.client.v1.payment_intents.retrieve(intent.id, {"expand": ["latest_charge"]})
    assert after.status == "requires_capture"
    assert after.latest_charge.payment_method_details.card.three_d_secure.result == "authenticated"


def test_a_failed_challenge_can_be_tried_with_another_card(shop: Shop) -> None:
    intent = shop.pay("pm_card_threeDSecure2Required", return_url="https://shop.example/r")
    after = shop.control(f"/_authenticate/{intent.id}", {"success": False})
    assert after["status"] == "requires_payment_method"
    assert after["last_payment_error"]["code"] == "payment_intent_authentication_failure"
    assert shop.entry(intent.id)["charges"] == 0


def test_the_page_of_the_bank_needs_the_secret_of_the_intent(shop: Shop) -> None:
    intent = shop.pay("pm_card_threeDSecure2Required")
    assert requests.get(f"{shop.url}/3ds/{intent.id}?client_secret=guess", timeout=60).status_code == 404


def test_an_optional_challenge_comes_only_when_it_is_asked_for(shop: Shop) -> None:
    assert shop.pay("pm_card_threeDSecureOptional").status == "succeeded"
    asked = {"card": {"request_three_d_secure": "any"}}
    assert shop.pay("pm_card_threeDSecureOptional", payment_method_options=asked).status == "requires_action"


def test_a_dispute_takes_the_money_back_with_a_fee(shop: Shop) -> None:
    intent = shop.pay()
    dispute = shop.control("/_disputes", {"payment_intent": intent.id})
    assert shop.client.v1.disputes.retrieve(dispute["id"]).amount == 1000
    with pytest.raises(stripe.InvalidRequestError):
        shop.client.v1.refunds.create({"payment_intent": intent.id})
    paid = shop.client.v1.balance.retrieve().available[0].amount
    assert paid == -54 - 1500
    assert shop.control("/_disputes", {"dispute": dispute["id"], "status": "won"})["status"] == "won"
    assert shop.client.v1.balance.retrieve().available[0].amount == paid + 1000


def test_flushed_books_are_empty(shop: Shop) -> None:
    shop.pay()
    shop.control("/_data", method="DELETE")
    assert shop.books() == {"payment_intents": {}, "totals": {}}
