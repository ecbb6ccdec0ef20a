"""The Standard Webhooks verifier against the official library as its oracle, and against the holes of that library."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import standardwebhooks as oracle
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from payments.errors import WebhookReplayError, WebhookSignatureError
from payments.gateways.stripe import StripeGateway
from tests.factories.payments import GatewayAccountFactory, GatewaySecretFactory
from webhooks.inbound import archive_listed
from webhooks.models import InboundWebhook
from webhooks.schemes import find_verifier
from webhooks.signatures import generate_secret, sign_message
from webhooks.verifiers import standard, stripe

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
NOW = 1_800_000_000
EVENT: dict[str, Any] = {
    "type": "payment.captured",
    "timestamp": "2026-11-20T12:00:00Z",
    "data": {"reference": "pay_1"},
}
BODY = json.dumps(EVENT).encode()


def make_headers(
    body: bytes = BODY, *, secrets: tuple[str, ...] = (SECRET,), at: int = NOW, message_id: str = "msg_1"
) -> dict[str, str]:
    return sign_message(message_id=message_id, timestamp=at, body=body, signing_secrets=secrets)


def verify(
    headers: dict[str, str], *, body: bytes = BODY, secrets: tuple[str, ...] = (SECRET,), now: float = NOW
) -> int:
    return standard.verify(headers=headers, body=body, secrets=secrets, now=now)


# --- the oracle ---------------------------------------------------------------------------------------------


@given(
    text=st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    message_id=st.text(alphabet="abcABC019_-:", min_size=1, max_size=100),
    at=st.integers(0, 4_000_000_000),
)
def test_any_body_that_the_library_signs_is_verified(text: str, message_id: str, at: int) -> None:
    signature = oracle.Webhook(SECRET).sign(message_id, datetime.fromtimestamp(at, UTC), text)
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": signature,
    }
    assert verify(headers, body=text.encode(), now=at) == 0
    assert headers == make_headers(text.encode(), at=at, message_id=message_id)


def test_what_we_take_the_library_takes_too() -> None:
    headers = make_headers(at=int(time.time()))
    assert verify(headers, now=time.time()) == 0
    assert oracle.Webhook(SECRET).verify(BODY, headers) == EVENT


def test_the_index_names_the_secret_that_signed() -> None:
    assert verify(make_headers(), secrets=(OTHER, SECRET)) == 1


def test_a_sender_that_rotates_signs_with_both() -> None:
    headers = make_headers(secrets=(OTHER, SECRET))
    assert headers["webhook-signature"].count("v1,") == 2
    assert verify(headers) == 0


def test_signatures_of_other_versions_stand_aside() -> None:
    headers = make_headers()
    signature = headers["webhook-signature"]
    assert verify(headers | {"webhook-signature": f"v1a,{'A' * 86}== {signature} v2,nonsense"}) == 0


@pytest.mark.parametrize("secret", [SECRET.removeprefix("whsec_"), generate_secret().rstrip("=")])
def test_a_secret_may_lack_its_prefix_or_its_padding_as_for_the_library(secret: str) -> None:
    at = datetime.fromtimestamp(NOW, UTC)
    signature = oracle.Webhook(secret).sign("msg_1", at, BODY.decode())
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(NOW), "webhook-signature": signature}
    assert verify(headers, secrets=(secret,)) == 0


# --- its holes ----------------------------------------------------------------------------------------------


def test_the_library_signs_a_local_time_wrong_and_that_is_refused() -> None:
    at = datetime.fromtimestamp(NOW, timezone(timedelta(hours=2)))
    signature = oracle.Webhook(SECRET).sign("msg_1", at, BODY.decode())
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(NOW), "webhook-signature": signature}
    with pytest.raises(WebhookSignatureError):
        verify(headers)


@pytest.mark.parametrize(
    ("changes", "body", "error"),
    [
        ({"webhook-signature": "v1"}, BODY, ValueError),
        ({"webhook-signature": "v1,a,b"}, BODY, ValueError),
        ({"webhook-signature": "v1,abcde"}, BODY, ValueError),
        ({}, b"\xff\xfe", UnicodeDecodeError),
    ],
)
def test_where_the_library_stumbles_we_refuse(
    changes: dict[str, str], body: bytes, error: type[Exception]
) -> None:
    headers = make_headers(at=int(time.time())) | changes
    with pytest.raises(error):
        oracle.Webhook(SECRET).verify(body, headers)
    with pytest.raises(WebhookSignatureError):
        verify(headers, body=body, now=time.time())


def test_base64_with_rubbish_in_it_is_refused_although_the_library_takes_it() -> None:
    headers = make_headers(at=int(time.time()))
    headers["webhook-signature"] = headers["webhook-signature"].replace("v1,", "v1,!\t*")
    assert oracle.Webhook(SECRET).verify(BODY, headers) == EVENT
    with pytest.raises(WebhookSignatureError):
        verify(headers, now=time.time())


pieces = st.one_of(
    st.text(), st.sampled_from(["v1,", " ", ",", "v1a,", str(NOW), "msg_1", "A" * 43 + "=", "\udcff"])
)
values = st.lists(pieces).map("".join)


@given(message_id=values, at=values, signature=values, body=st.binary())
def test_no_delivery_raises_anything_but_our_error(
    message_id: str, at: str, signature: str, body: bytes
) -> None:
    headers = {"webhook-id": message_id, "webhook-timestamp": at, "webhook-signature": signature}
    with pytest.raises(WebhookSignatureError):
        verify(headers, body=body)


# --- time and forgeries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("age", [-300, 0, 300])
def test_the_window_reaches_300_seconds_to_both_sides(age: int) -> None:
    assert verify(make_headers(at=NOW - age)) == 0


@pytest.mark.parametrize("age", [-301, 301])
def test_outside_the_window_an_authentic_delivery_is_a_replay(age: int) -> None:
    with pytest.raises(WebhookReplayError, match="window"):
        verify(make_headers(at=NOW - age))


def test_a_stale_forgery_is_called_a_forgery_and_not_a_replay() -> None:
    with pytest.raises(WebhookSignatureError) as caught:
        verify(make_headers(secrets=(OTHER,), at=NOW - 9999))
    assert not isinstance(caught.value, WebhookReplayError)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_each_header_is_needed_and_signed(name: str) -> None:
    headers = make_headers()
    other = {
        "webhook-id": "msg_2",
        "webhook-timestamp": str(NOW + 1),
        "webhook-signature": "v1," + "A" * 43 + "=",
    }
    for changed in ({name: ""}, {name: other[name]}):
        with pytest.raises(WebhookSignatureError):
            verify(headers | changed)
    with pytest.raises(WebhookSignatureError):
        verify({key: value for key, value in headers.items() if key != name})


def test_the_signed_text_cannot_be_cut_elsewhere() -> None:
    signature = make_headers(b"1.{}")["webhook-signature"]
    forged = {"webhook-id": f"msg_1.{NOW}", "webhook-timestamp": "1", "webhook-signature": signature}
    with pytest.raises(WebhookSignatureError, match="webhook-id"):
        verify(forged, body=b"{}", now=1)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64", "whsec_ä"])
def test_a_secret_that_is_none_signs_nothing(secret: str) -> None:
    empty = base64.b64encode(b"\0" * 32).decode()
    with pytest.raises(WebhookSignatureError):
        verify(make_headers() | {"webhook-signature": f"v1,{empty}"}, secrets=(secret,))
    assert verify(make_headers(), secrets=(secret, SECRET)) == 1


# --- the event ----------------------------------------------------------------------------------------------


def test_the_id_is_the_signed_header_and_not_what_the_body_says() -> None:
    envelope = standard.read_envelope(json.dumps(EVENT | {"id": "evt_9"}).encode(), make_headers())
    assert (envelope.event_id, envelope.event_type, envelope.subject) == (
        "msg_1",
        "payment.captured",
        "pay_1",
    )


def test_a_listed_event_names_its_id_itself() -> None:
    assert standard.read_envelope(json.dumps(EVENT | {"id": "msg_1"}).encode()).event_id == "msg_1"


@pytest.mark.parametrize(
    "data", [None, [], "pay_1", {}, {"reference": None}, {"reference": {"id": "x"}}, {"reference": "a b"}]
)
def test_without_a_usable_reference_it_is_about_no_payment(data: object) -> None:
    body = json.dumps(EVENT | {"data": data}).encode()
    assert standard.read_envelope(body, make_headers()).subject == ""


@pytest.mark.parametrize(
    "body",
    [b"[]", b"", b"{}", b'{"type": 1}', b'{"type": "a b"}', b'{"type": "x", "data": NaN}', b"[" * 99_999],
)
def test_a_body_that_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookSignatureError):
        standard.read_envelope(body, make_headers())


# --- at the address -----------------------------------------------------------------------------------------


class Plain(StripeGateway):
    """An adapter that brings no verifier along."""


class Own(StripeGateway):
    verifier = stripe


@pytest.fixture
def gateways(settings: Any) -> None:
    own = f"{__name__}.Own", f"{__name__}.Plain"
    settings.PAYMENT_GATEWAYS = settings.PAYMENT_GATEWAYS | {"own": own[0], "plain": own[1]}


def test_it_is_for_gateways_with_neither_a_scheme_nor_a_verifier(gateways: None) -> None:
    assert find_verifier("plain") is standard
    assert find_verifier("own") is stripe
    assert find_verifier("stripe") is stripe
    assert find_verifier("unheard") is None


def test_a_delivery_is_archived_under_its_signed_id(gateways: None, client: Client, db: None) -> None:
    account = GatewayAccountFactory(gateway="plain", name="main")
    GatewaySecretFactory(account=account, value=SECRET)
    headers = make_headers(at=int(time.time()))
    for _ in range(2):
        answer = client.post("/webhooks/plain/main/", BODY, "application/json", headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"received": True})
    webhook = InboundWebhook.objects.get()
    assert (webhook.event_id, webhook.subject, webhook.duplicates) == ("msg_1", "pay_1", 1)
    assert webhook.stored.headers["webhook-signature"] == headers["webhook-signature"]
    listed = standard.read_envelope(json.dumps(EVENT | {"id": "msg_1"}).encode())
    assert archive_listed(account, listed) == ""
