"""The Braintree verifier against the official SDK as its oracle, and against the holes of that SDK."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import urlencode

import braintree as sdk
import pytest
from braintree.exceptions.invalid_challenge_error import InvalidChallengeError
from braintree.exceptions.invalid_signature_error import InvalidSignatureError
from braintree.util.xml_util import XmlUtil
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from payments.errors import WebhookSignatureError
from payments.gateways.braintree.client import to_plain
from payments.models import GatewayAccount, GatewaySecret
from webhooks.accounts import forget_receivers
from webhooks.inbound import Verdict, receive
from webhooks.models import InboundWebhook
from webhooks.verifiers import Envelope, braintree

PUBLIC, PRIVATE = "integration_public_key", "integration_private_key"
SECRET = f"{PUBLIC}|{PRIVATE}"
GATEWAY = sdk.BraintreeGateway(
    sdk.Configuration(
        environment=sdk.Environment.Sandbox, merchant_id="m", public_key=PUBLIC, private_key=PRIVATE
    )
)
KINDS = sorted(
    value for name, value in vars(sdk.WebhookNotification.Kind).items() if not name.startswith("_")
)


def sample(kind: str = "dispute_opened", reference: str = "my_id") -> dict[str, str]:
    form = GATEWAY.webhook_testing.sample_notification(kind, reference)
    return {"bt_signature": form["bt_signature"], "bt_payload": form["bt_payload"].decode()}


def build_body(form: dict[str, str]) -> bytes:
    return urlencode(form).encode()


def sign_text(text: str) -> bytes:
    payload = base64.encodebytes(text.encode()).decode()
    return build_body({"bt_signature": braintree.sign(payload, secret=SECRET), "bt_payload": payload})


def verify(body: bytes, secrets: tuple[str, ...] = (SECRET,)) -> int:
    return braintree.verify(headers={}, body=body, secrets=secrets, now=0.0)


def read_verified(body: bytes) -> Envelope:
    verify(body)
    return braintree.read_envelope(body)


def normalise(value: Any) -> Any:
    """The SDK's times are naive, and ours say that they are UTC."""
    if isinstance(value, dict):
        return {name: normalise(member) for name, member in value.items()}
    if isinstance(value, list):
        return [normalise(member) for member in value]
    return value.removesuffix("+00:00") if isinstance(value, str) else value


# --- the SDK as oracle --------------------------------------------------------------------------------------


def test_every_kind_of_the_sdk_is_there() -> None:
    assert len(KINDS) == 41


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_verified_and_read_as_the_sdk_reads_it(kind: str) -> None:
    form = sample(kind)
    body = build_body(form)
    assert verify(body) == 0
    envelope = braintree.read_envelope(body)
    parsed = XmlUtil.dict_from_xml(base64.decodebytes(form["bt_payload"].encode()))["notification"]
    assert normalise(envelope.payload) == to_plain(parsed)
    assert (
        envelope.event_type
        == kind
        == GATEWAY.webhook_notification.parse(form["bt_signature"], form["bt_payload"]).kind
    )
    assert json.loads(envelope.content) == envelope.payload


def test_the_sdk_accepts_what_we_sign() -> None:
    payload = sample()["bt_payload"]
    signature = braintree.sign(payload, secret=SECRET)
    assert GATEWAY.webhook_notification.parse(signature, payload).dispute.id == "my_id"


@pytest.mark.parametrize(("kind", "subject"), [("dispute_opened", "my_id"), ("transaction_settled", "my_id")])
def test_the_subject_is_the_transaction(kind: str, subject: str) -> None:
    assert braintree.read_envelope(build_body(sample(kind))).subject == subject


# --- forgeries ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dispute_opened", "transaction_settled", "check"])
def test_a_tampered_payload_is_refused(kind: str) -> None:
    form = sample(kind)
    other = base64.encodebytes(base64.b64decode(form["bt_payload"]).replace(b"<kind>", b"<kind >")).decode()
    with pytest.raises(WebhookSignatureError):
        verify(build_body(form | {"bt_payload": other}))
    with pytest.raises(InvalidSignatureError):
        GATEWAY.webhook_notification.parse(form["bt_signature"], other)


def test_another_key_is_refused() -> None:
    form = sample()
    for secret in (f"{PUBLIC}|other", f"other|{PRIVATE}", PRIVATE, "", "|", f"{PUBLIC}|"):
        with pytest.raises(WebhookSignatureError):
            verify(build_body(form), (secret,))


def test_an_empty_private_key_never_fits() -> None:
    payload = sample()["bt_payload"]
    forged = {"bt_signature": braintree.sign(payload, secret=f"{PUBLIC}|"), "bt_payload": payload}
    with pytest.raises(WebhookSignatureError):
        verify(build_body(forged), (PUBLIC, f"{PUBLIC}|"))


def test_the_index_names_the_secret_that_signed() -> None:
    assert verify(build_body(sample()), ("new_public|new_private", SECRET)) == 1


def test_one_good_signature_among_several_is_enough() -> None:
    form = sample()
    several = f"other|{'0' * 40}&{form['bt_signature']}&{PUBLIC}|{'0' * 40}"
    assert verify(build_body(form | {"bt_signature": several})) == 0


def test_a_payload_that_lost_its_last_line_end_is_accepted_as_by_the_sdk() -> None:
    form = sample()
    bare = form["bt_payload"].removesuffix("\n")
    assert verify(build_body(form | {"bt_payload": bare})) == 0
    GATEWAY.webhook_notification.parse(form["bt_signature"], bare)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"bt_signature=a|b",
        b"bt_payload=abc",
        b"bt_signature=a%7Cb&bt_payload=",
        b"\xff=1",
        build_body(sample()) + b"&bt_payload=abc",
        build_body(sample()).replace(b"bt_payload=", b"bt_payload=%3C"),
        json.dumps(sample()).encode(),
    ],
)
def test_a_malformed_form_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookSignatureError):
        verify(body)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no xml",
        "<notification/>",
        "<notification><kind>x</kind></notification>",
        "<notification><kind>a b</kind><timestamp>2026-01-01</timestamp><subject><a/></subject></notification>",
        "<notification><kind>x</kind><timestamp/><subject><a/></subject></notification>",
        "<n><kind>x</kind><timestamp type='datetime'>soon</timestamp><subject><a/></subject></n>",
        "<n><kind>x</kind><timestamp>t</timestamp><subject><a type='integer'>many</a></subject></n>",
        "<n><kind>x</kind><timestamp>t</timestamp><subject>" + "<a>" * 50 + "</a>" * 50 + "</subject></n>",
        "<!DOCTYPE n [<!ENTITY a 'aaaa'>]><n><kind>&a;</kind><timestamp>t</timestamp><subject><b/></subject></n>",
    ],
)
def test_a_signed_payload_that_is_no_notification_is_refused(text: str) -> None:
    body = sign_text(text)
    with pytest.raises(WebhookSignatureError):
        read_verified(body)


@given(body=st.one_of(st.binary(), st.text(alphabet=st.characters(max_codepoint=127)).map(str.encode)))
def test_no_body_raises_anything_but_our_error(body: bytes) -> None:
    for read in (verify, braintree.read_envelope):
        with pytest.raises(WebhookSignatureError):
            read(body)


@given(text=st.one_of(st.text(), st.text("<>/n a'=&;!-[]", max_size=60)))
def test_no_signed_text_raises_anything_but_our_error(text: str) -> None:
    body = sign_text(f"<notification>{text}</notification>".encode("utf-8", "ignore").decode())
    verify(body)
    with pytest.raises(WebhookSignatureError):
        braintree.read_envelope(body)


# --- which event it is --------------------------------------------------------------------------------------

EVENT = (
    "<notification><timestamp type='datetime'>{time}</timestamp><kind>{kind}</kind>"
    "<subject><transaction><id>{id}</id><amount>1.00</amount></transaction></subject></notification>"
)
FIRST = {"time": "2026-11-20T10:00:00Z", "kind": "transaction_settled", "id": "t1"}


def event_id(**changes: str) -> str:
    return braintree.read_envelope(sign_text(EVENT.format(**{**FIRST, **changes}))).event_id


def test_the_event_id_is_made_of_kind_time_and_subject() -> None:
    assert event_id() == event_id()
    others = {
        event_id(time="2026-11-20T10:00:01Z"),
        event_id(kind="transaction_disbursed"),
        event_id(id="t2"),
    }
    assert len(others | {event_id()}) == 4


# --- the challenge ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("challenge", ["20f9f8ed05f77439fe955c977e4c8a53", "abcdef0123456789abcd"])
def test_the_challenge_is_answered_as_the_sdk_does(challenge: str) -> None:
    expected = GATEWAY.webhook_notification.verify(challenge)
    assert braintree.answer_challenge({"bt_challenge": challenge}, (SECRET,)) == expected


@pytest.mark.parametrize("challenge", ["", "hello", "a" * 19, "a" * 33, "A" * 20, "a" * 20 + "\n"])
def test_what_is_no_challenge_is_not_signed(challenge: str) -> None:
    assert braintree.answer_challenge({"bt_challenge": challenge}, (SECRET,)) == ""
    if not challenge.endswith("\n"):  # the SDK signs that one
        with pytest.raises(InvalidChallengeError):
            GATEWAY.webhook_notification.verify(challenge)


def test_without_a_pair_of_keys_no_challenge_is_answered() -> None:
    assert braintree.answer_challenge({"bt_challenge": "a" * 20}, ("private_only",)) == ""


# --- the receipt --------------------------------------------------------------------------------------------


@pytest.fixture
def account(db: None) -> GatewayAccount:
    account = GatewayAccount.objects.create(gateway="braintree", name="shop", api_key="k")
    GatewaySecret.objects.create(account=account, value=SECRET)
    forget_receivers()
    return account


def test_a_delivery_is_archived_once_as_json(account: GatewayAccount) -> None:
    body = build_body(sample())
    receipts = [receive("braintree", "shop", headers={}, body=body) for _ in range(2)]
    assert [receipt.verdict for receipt in receipts] == [Verdict.STORED, Verdict.DUPLICATE]
    row = InboundWebhook.objects.get(pk=receipts[0].inbound_id)
    assert json.loads(bytes(row.payload))["subject"]["dispute"]["id"] == "my_id"
    assert (row.event_type, row.subject) == ("dispute_opened", "my_id")


def test_a_forged_delivery_leaves_no_row(account: GatewayAccount) -> None:
    body = build_body(sample() | {"bt_signature": f"{PUBLIC}|{'0' * 40}"})
    assert receive("braintree", "shop", headers={}, body=body).verdict is Verdict.INVALID_SIGNATURE
    assert not InboundWebhook.objects.exists()


def test_a_new_address_answers_its_challenge(account: GatewayAccount, client: Client) -> None:
    challenge = "20f9f8ed05f77439fe955c977e4c8a53"
    answer = client.get("/webhooks/braintree/shop/", {"bt_challenge": challenge})
    assert answer.status_code == 200
    assert answer.content.decode() == GATEWAY.webhook_notification.verify(challenge)
    assert answer["Content-Type"] == "text/plain"


@pytest.mark.parametrize(
    "address",
    [
        "/webhooks/braintree/shop/",
        "/webhooks/braintree/shop/?bt_challenge=hello",
        "/webhooks/braintree/nobody/?bt_challenge=20f9f8ed05f77439fe955c977e4c8a53",
        "/webhooks/stripe/default/?bt_challenge=20f9f8ed05f77439fe955c977e4c8a53",
    ],
)
def test_any_other_get_is_refused(account: GatewayAccount, client: Client, address: str) -> None:
    assert client.get(address).status_code == 405
