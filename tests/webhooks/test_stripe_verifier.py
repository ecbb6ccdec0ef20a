"""The Stripe verifier against the official SDK as its oracle, and against the holes of that SDK."""

from __future__ import annotations

import json
import time

import pytest
import stripe as sdk
from hypothesis import given
from hypothesis import strategies as st

from payments.errors import WebhookReplayError, WebhookSignatureError
from webhooks.verifiers import stripe

SECRET = "whsec_one"
NOW = 1_800_000_000
BODY = json.dumps(
    {"id": "evt_1", "object": "event", "type": "charge.captured", "data": {"object": {}}}
).encode()


def verify(header: str, *, body: bytes = BODY, secrets: tuple[str, ...] = (SECRET,), now: float = NOW) -> int:
    return stripe.verify(headers={"stripe-signature": header}, body=body, secrets=secrets, now=now)


def test_a_header_made_by_the_sdk_is_accepted() -> None:
    header = sdk.WebhookSignature.generate_signature_header(BODY.decode(), SECRET, timestamp=NOW)
    assert verify(header) == 0


@given(
    text=st.text(alphabet=st.characters(exclude_categories=["Cs"])), timestamp=st.integers(0, 4_000_000_000)
)
def test_any_body_is_signed_and_verified_as_the_sdk_does(text: str, timestamp: int) -> None:
    header = sdk.WebhookSignature.generate_signature_header(text, SECRET, timestamp=timestamp)
    assert stripe.sign(text.encode(), secret=SECRET, timestamp=timestamp) == header
    assert verify(header, body=text.encode(), now=timestamp) == 0


def test_the_sdk_accepts_what_we_sign() -> None:
    header = stripe.sign(BODY, secret=SECRET, timestamp=int(time.time()))
    assert sdk.Webhook.construct_event(BODY, header, SECRET).id == "evt_1"


def test_the_index_names_the_secret_that_signed() -> None:
    header = stripe.sign(BODY, secret="whsec_old", timestamp=NOW)
    assert verify(header, secrets=("whsec_new", "whsec_old")) == 1


def test_one_good_signature_among_several_is_enough() -> None:
    good = stripe.sign(BODY, secret=SECRET, timestamp=NOW).partition("v1=")[2]
    assert verify(f"t={NOW},v1={'0' * 64},v0=ignored,v1={good}") == 0


@pytest.mark.parametrize("age", [-300, 0, 300])
def test_the_window_reaches_300_seconds_to_both_sides(age: int) -> None:
    assert verify(stripe.sign(BODY, secret=SECRET, timestamp=NOW - age)) == 0


@pytest.mark.parametrize("age", [-301, 301])
def test_outside_the_window_an_authentic_delivery_is_a_replay(age: int) -> None:
    with pytest.raises(WebhookReplayError, match="window"):
        verify(stripe.sign(BODY, secret=SECRET, timestamp=NOW - age))


def test_a_timestamp_from_the_future_is_refused_although_the_sdk_lets_it_through() -> None:
    tomorrow = int(time.time()) + 86_400
    header = stripe.sign(BODY, secret=SECRET, timestamp=tomorrow)
    assert sdk.Webhook.construct_event(BODY, header, SECRET).id == "evt_1"
    with pytest.raises(WebhookReplayError):
        verify(header, now=time.time())


def test_a_stale_forgery_is_called_a_forgery_and_not_a_replay() -> None:
    with pytest.raises(WebhookSignatureError) as caught:
        verify(stripe.sign(BODY, secret="whsec_wrong", timestamp=NOW - 9999))
    assert not isinstance(caught.value, WebhookReplayError)


@pytest.mark.parametrize("body", [BODY + b" ", BODY[:-1], b"", BODY.replace(b"captured", b"refunded")])
def test_a_tampered_body_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookSignatureError):
        verify(stripe.sign(BODY, secret=SECRET, timestamp=NOW), body=body)


GOOD = stripe.sign(BODY, secret=SECRET, timestamp=NOW)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "t",
        ",",
        "nonsense",
        f"t={NOW}",
        f"t={NOW},v1=",
        GOOD.partition(",")[2],
        f"{GOOD},t={NOW}",
        f"{GOOD},",
        GOOD.replace(f"t={NOW}", "t=soon"),
        GOOD.replace(f"t={NOW}", f"t=-{NOW}"),
        GOOD.replace(f"t={NOW}", f"t={NOW}.0"),
        GOOD.replace(f"t={NOW}", "t=" + "9" * 400),
        GOOD.replace(f"t={NOW}", "t=٣"),
        GOOD.replace("v1=", "v0="),
        GOOD.upper(),
    ],
)
def test_a_malformed_header_is_refused(header: str) -> None:
    with pytest.raises(WebhookSignatureError):
        verify(header)


def test_without_a_secret_nothing_is_accepted() -> None:
    with pytest.raises(WebhookSignatureError):
        verify(GOOD, secrets=())


pieces = st.one_of(st.text(), st.sampled_from(["t=", "v1=", "v0=", ",", "=", str(NOW), "0" * 64, "\udcff"]))


@given(header=st.lists(pieces).map("".join))
def test_no_header_raises_anything_but_our_error(header: str) -> None:
    with pytest.raises(WebhookSignatureError):
        verify(header)


bodies = st.one_of(
    st.binary(),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["id", "type", "data", "object"]), inner)
        ),
    ).map(lambda value: json.dumps(value).encode()),
)


@given(body=bodies)
def test_no_signed_body_raises_anything_but_our_error(body: bytes) -> None:
    verify(stripe.sign(body, secret=SECRET, timestamp=NOW), body=body)
    try:
        envelope = stripe.read_envelope(body)
    except WebhookSignatureError:
        return
    assert envelope.event_id
    assert envelope.event_type


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"id":' + b"9" * 5000 + b"}",
        b'{"id":"evt_1","type":"x","data":NaN}',
        b'\xff{"id":"evt_1"}',
        b'"text"',
        b'{"id":"evt 1","type":"x"}',
        b'{"id":"evt_1","type":"a b"}',
        b'{"id":"' + b"e" * 101 + b'","type":"x"}',
        b'{"id":"evt_\\u0000","type":"x"}',
        b'{"type":"x"}',
    ],
)
def test_a_body_that_cannot_be_archived_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookSignatureError):
        stripe.read_envelope(body)


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ({"object": "payment_intent", "id": "pi_1"}, "pi_1"),
        ({"object": "charge", "id": "ch_1", "payment_intent": "pi_1"}, "pi_1"),
        ({"object": "refund", "id": "re_1", "payment_intent": None}, ""),
        ({"object": "payout", "id": "po_1"}, ""),
        (None, ""),
    ],
)
def test_the_subject_is_the_payment_intent_whichever_object_carries_it(
    subject: object, expected: str
) -> None:
    body = json.dumps({"id": "evt_1", "type": "x", "data": {"object": subject}}).encode()
    assert stripe.read_envelope(body).subject == expected
