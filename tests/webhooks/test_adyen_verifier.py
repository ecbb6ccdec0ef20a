"""The Adyen verifier against the official SDK as its oracle, against that SDK's holes, and at the address itself."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from Adyen.util import generate_notification_sig, is_valid_hmac_notification
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from payments.errors import WebhookSignatureError
from payments.kinds import OperationKind
from payments.models import AttemptState, GatewayAccount, OperationState
from payments.sandbox.adyen.notifications import sign_item
from tests.factories.payments import (
    AttemptFactory,
    GatewayAccountFactory,
    GatewaySecretFactory,
    OperationFactory,
    PaymentFactory,
)
from webhooks import processing
from webhooks.models import InboundState, InboundWebhook, RejectedDelivery
from webhooks.verifiers import adyen

SECRET = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056"
OTHER = "00" * 32
NOW = 1_800_000_000
# The example of the SDK's own tests.
ITEM: dict[str, Any] = {
    "pspReference": "7914073381342284",
    "merchantAccountCode": "TestMerchant",
    "merchantReference": "TestPayment-1407325143704",
    "amount": {"value": 1130, "currency": "EUR"},
    "eventCode": "AUTHORISATION",
    "eventDate": "2026-11-20T12:00:00+01:00",
    "success": "true",
}


def signed(item: dict[str, Any], secret: str = SECRET) -> dict[str, Any]:
    item = {**ITEM, **item}
    extra = {**item.get("additionalData", {}), "hmacSignature": adyen.sign(item, secret=secret)}
    return {**item, "additionalData": extra}


def wrap(*items: Any) -> bytes:
    batch = [{"NotificationRequestItem": item} for item in items]
    return json.dumps({"live": "false", "notificationItems": batch}).encode()


def verify(body: bytes, *secrets: str) -> int:
    return adyen.verify(headers={}, body=body, secrets=secrets or (SECRET,), now=NOW)


def sdk_accepts(body: bytes) -> bool:
    return is_valid_hmac_notification(json.loads(body), SECRET) is True


# --- the oracle ---------------------------------------------------------------------------------------------

names = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
references = st.text(alphabet="ABCDEFGHJKLMNPQRSTVWXZ0123456789", min_size=1, max_size=20)


@given(
    psp=references,
    original=st.none() | references,
    reference=names,
    value=st.integers(0, 10**15),
    currency=st.sampled_from(["EUR", "JPY", "KWD"]),
    code=st.sampled_from(["AUTHORISATION", "CAPTURE", "REFUND_FAILED"]),
    success=st.sampled_from(["true", "false"]),
)
def test_any_notification_is_signed_and_verified_as_the_sdk_does(
    psp: str, original: str | None, reference: str, value: int, currency: str, code: str, success: str
) -> None:
    item = {
        **ITEM,
        "pspReference": psp,
        "merchantReference": reference,
        "amount": {"value": value, "currency": currency},
        "eventCode": code,
        "success": success,
        **({"originalReference": original} if original else {}),
    }
    signature = generate_notification_sig(item, SECRET).decode()
    assert adyen.sign(item, secret=SECRET) == signature == sign_item(item, SECRET)
    body = wrap({**item, "additionalData": {"hmacSignature": signature}})
    assert sdk_accepts(body)
    assert verify(body) == 0


# --- what must be refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"pspReference": "7914073381342285"},
        {"originalReference": "X"},
        {"merchantAccountCode": "Another"},
        {"merchantReference": "Another"},
        {"amount": {"value": 1131, "currency": "EUR"}},
        {"amount": {"value": 1130, "currency": "USD"}},
        {"eventCode": "CAPTURE"},
        {"success": "false"},
    ],
)
def test_no_signed_field_can_be_changed(change: dict[str, Any]) -> None:
    body = wrap({**signed({}), **change})
    assert not sdk_accepts(body)
    with pytest.raises(WebhookSignatureError, match="signature"):
        verify(body)


def test_what_is_not_signed_can_be_changed_and_nothing_may_rest_on_it() -> None:
    assert verify(wrap({**signed({}), "reason": "changed", "eventDate": "2020-01-01T00:00:00Z"})) == 0


def test_one_forged_notification_spoils_the_batch_although_the_sdk_lets_it_through() -> None:
    forged = signed({"pspReference": "FORGED", "eventCode": "REFUND"}, OTHER)
    body = wrap(signed({}), forged)
    assert sdk_accepts(body)
    with pytest.raises(WebhookSignatureError):
        verify(body)
    assert verify(wrap(signed({}), signed({"eventCode": "CAPTURE"}))) == 0


@pytest.mark.parametrize(
    "shift",
    [
        {"merchantAccountCode": "TestMerchant:a", "merchantReference": "1"},
        {"originalReference": ":TestMerchant", "merchantAccountCode": "a", "merchantReference": "1"},
        {"pspReference": "7914073381342284:", "originalReference": "TestMerchant", "merchantAccountCode": "a"}
        | {"merchantReference": "1"},
    ],
)
def test_fields_cannot_be_shifted_into_each_other(shift: dict[str, str]) -> None:
    """The text that is signed is the same; the fields are not."""
    shifted = {**signed({"merchantReference": "a:1", "originalReference": ""}), **shift}
    assert sdk_accepts(wrap(shifted))
    with pytest.raises(WebhookSignatureError, match="malformed"):
        verify(wrap(shifted))


def test_while_a_key_is_rotated_either_signs() -> None:
    old, new = signed({}, OTHER), signed({"eventCode": "CAPTURE"})
    assert verify(wrap(new), SECRET, OTHER) == 0
    assert verify(wrap(old), SECRET, OTHER) == 1
    assert verify(wrap(new, old), SECRET, OTHER) == 1


@pytest.mark.parametrize("secrets", [("",), ("not hexadecimal",), ("abc",), ("é",)])
def test_a_key_that_is_none_accepts_nothing(secrets: tuple[str, ...]) -> None:
    with pytest.raises(WebhookSignatureError):
        verify(wrap({**ITEM, "additionalData": {"hmacSignature": adyen.sign(ITEM, secret="")}}), *secrets)


def test_without_a_secret_nothing_is_accepted() -> None:
    with pytest.raises(WebhookSignatureError):
        adyen.verify(headers={}, body=wrap(signed({})), secrets=(), now=NOW)


def without(*path: str) -> bytes:
    item = copy.deepcopy(signed({}))
    target = item
    for name in path[:-1]:
        target = target[name]
    del target[path[-1]]
    return wrap(item)


@pytest.mark.parametrize(
    "body",
    [
        without("additionalData"),
        without("additionalData", "hmacSignature"),
        without("pspReference"),
        without("merchantAccountCode"),
        without("amount"),
        without("amount", "value"),
        without("amount", "currency"),
        without("eventCode"),
        without("success"),
        wrap(),
        wrap(None),
        wrap([]),
        wrap("text"),
        b"{}",
        b'{"notificationItems": {}}',
        b'{"notificationItems": [{}]}',
        b'{"notificationItems": [[]]}',
        wrap({**signed({}), "success": True}),
        wrap({**signed({}), "success": "TRUE"}),
        wrap({**signed({}), "amount": {"value": "1130", "currency": "EUR"}}),
        wrap({**signed({}), "amount": {"value": True, "currency": "EUR"}}),
        wrap({**signed({}), "amount": {"value": 1130.0, "currency": "EUR"}}),
        wrap({**signed({}), "merchantReference": 5}),
        wrap({**signed({}), "merchantReference": "\udcff"}),
        wrap({**signed({}), "additionalData": []}),
        wrap({**signed({}), "additionalData": {"hmacSignature": None}}),
        wrap({**signed({}), "additionalData": {"hmacSignature": "é"}}),
        wrap({**signed({}), "additionalData": {"hmacSignature": ""}}),
    ],
)
def test_a_malformed_delivery_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookSignatureError):
        verify(body)


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(
                ["notificationItems", "NotificationRequestItem", "amount", "success", "additionalData"]
            ),
            inner,
        )
    ),
)


@given(body=st.one_of(st.binary(), values.map(lambda value: json.dumps(value).encode())))
def test_no_body_raises_anything_but_our_error(body: bytes) -> None:
    for check in (verify, adyen.read_envelope):
        with pytest.raises(WebhookSignatureError):
            check(body)


@given(field=st.sampled_from([*ITEM, "originalReference", "additionalData"]), value=values)
def test_no_field_raises_anything_but_our_error(field: str, value: Any) -> None:
    body = wrap({**signed({}), field: value})
    try:
        verify(body)
        assert adyen.read_envelope(body).event_id
    except WebhookSignatureError:
        return


# --- the envelope -------------------------------------------------------------------------------------------


def test_one_notification_is_known_by_what_tells_it_apart() -> None:
    envelope = adyen.read_envelope(wrap(signed({"originalReference": "P1", "eventCode": "CAPTURE"})))
    assert envelope.event_id == "7914073381342284:CAPTURE:true:2026-11-20T12:00:00+01:00"
    assert (envelope.event_type, envelope.subject) == ("CAPTURE", "P1")
    assert adyen.read_envelope(wrap(signed({}))).subject == "7914073381342284"


def test_a_batch_is_known_by_all_of_its_notifications() -> None:
    first, second = signed({}), signed({"eventCode": "CAPTURE", "originalReference": "7914073381342284"})
    both = adyen.read_envelope(wrap(first, second))
    assert both.event_id.startswith("batch-")
    assert len(both.event_id) <= 100
    assert both.event_type == "AUTHORISATION+CAPTURE"
    assert both.subject == "7914073381342284"
    ids = {
        adyen.read_envelope(wrap(*items)).event_id
        for items in ([first], [second], [first, second], [second, first], [first, first])
    }
    assert len(ids) == 5


def test_a_batch_about_several_payments_is_about_none() -> None:
    assert adyen.read_envelope(wrap(signed({}), signed({"pspReference": "P2"}))).subject == ""


def test_a_report_is_about_no_payment() -> None:
    report = signed({"eventCode": "REPORT_AVAILABLE", "pspReference": f"{'settlement_' * 12}.csv"})
    envelope = adyen.read_envelope(wrap(report))
    assert (envelope.event_type, envelope.subject) == ("REPORT_AVAILABLE", "")
    assert len(envelope.event_id) <= 100


def test_every_type_fits_its_column() -> None:
    many = [signed({"eventCode": "A" * 60 + letter}) for letter in "BCD"]
    assert adyen.read_envelope(wrap(*many)).event_type == "BATCH"


def test_the_same_event_may_be_told_more_fully() -> None:
    one, other = (
        {"notificationItems": [{"NotificationRequestItem": signed(more)}]} for more in ({}, {"reason": "x"})
    )
    another = {"notificationItems": [{"NotificationRequestItem": signed({"success": "false"})}]}
    assert adyen.is_same_event(one, other)
    assert not adyen.is_same_event(one, another)


# --- the address --------------------------------------------------------------------------------------------


@pytest.fixture
def adyen_account(db: None) -> GatewayAccount:
    account: GatewayAccount = GatewayAccountFactory(
        gateway="adyen", name="ecom", options={"merchant_account": "TestMerchant"}
    )
    GatewaySecretFactory(account=account, value=SECRET)
    return account


def post(client: Client, body: bytes) -> Any:
    return client.post("/webhooks/adyen/ecom/", data=body, content_type="application/json")


def test_a_delivery_is_archived_once_and_answered_as_adyen_wants_it(
    client: Client, adyen_account: GatewayAccount
) -> None:
    body = wrap(signed({}), signed({"eventCode": "CAPTURE"}))
    for _ in range(2):
        response = post(client, body)
        assert (response.status_code, response.content) == (200, b"[accepted]")
    row = InboundWebhook.objects.get(account=adyen_account)
    assert (row.duplicates, row.state, bytes(row.payload)) == (1, InboundState.RECEIVED, body)


def test_a_forgery_is_refused_and_leaves_no_body(client: Client, adyen_account: GatewayAccount) -> None:
    response = post(client, wrap(signed({}), signed({"eventCode": "REFUND"}, OTHER)))
    assert response.status_code == 400
    assert b"[accepted]" not in response.content
    assert not InboundWebhook.objects.exists()
    assert RejectedDelivery.objects.get().account_id == adyen_account.pk


def test_who_saw_one_notification_cannot_make_it_the_word_of_another_payment(
    client: Client, adyen_account: GatewayAccount
) -> None:
    """`additionalData` is beside what is signed: a copy of it may name whatever its sender wants."""
    victim = PaymentFactory(account=adyen_account, amount=ITEM["amount"]["value"])
    attempt = AttemptFactory(payment=victim, gateway_reference="", state=AttemptState.LIVE)
    open_one = OperationFactory(
        attempt=attempt, kind=OperationKind.AUTHORIZE, state=OperationState.UNKNOWN, amount=victim.amount
    )
    stolen = signed({})
    stolen["additionalData"]["metadata.payment_id"] = victim.pk
    assert post(client, wrap(stolen)).status_code == 200
    webhook = InboundWebhook.objects.get()
    processing.process_webhook(webhook.pk)
    webhook.refresh_from_db()
    open_one.refresh_from_db()
    assert (webhook.state, open_one.state) == (InboundState.PARKED, OperationState.UNKNOWN)
