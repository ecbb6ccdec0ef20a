"""Broken, forged and mutated deliveries by the thousand: refused each time, and nothing but a counted trace is left.

FUZZED_DELIVERIES says how many for each gateway; the seed is the gateway's name, so a failure comes again.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from django.core.handlers.wsgi import WSGIRequest

from tests.factories.payments import GatewayAccountFactory, GatewaySecretFactory
from tests.factories.webhooks import encode, make_event
from webhooks import inbound
from webhooks.models import InboundWebhook, RejectedDelivery
from webhooks.signatures import sign_message
from webhooks.verifiers import adyen, braintree, stripe
from webhooks.views import receive_webhook

DELIVERIES = int(os.environ.get("FUZZED_DELIVERIES", "200"))  # for each gateway
MAX_GROWTH_BYTES = 48 * 1024 * 1024
STANDARD_GATEWAY = "plain"
NOW = int(time.time())

Headers = dict[str, str]
Sent = tuple[bytes, Headers]


@dataclass(frozen=True)
class Sender:
    """A gateway's way of signing: `make` signs a whole delivery, `sign` any bytes in place of the event."""

    secret: str
    make: Callable[[], Sent]
    sign: Callable[[bytes], Sent]


# --- the gateways -------------------------------------------------------------------------------------------


def sign_stripe(body: bytes) -> Sent:
    return body, {"HTTP_STRIPE_SIGNATURE": stripe.sign(body, secret="whsec_fuzz", timestamp=NOW)}


STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def sign_standard(body: bytes) -> Sent:
    signed = sign_message(message_id="msg_1", timestamp=NOW, body=body, signing_secrets=[STANDARD_SECRET])
    return body, {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in signed.items()}


BRAINTREE_SECRET = "public|private"
NOTIFICATION = (
    b"<notification><timestamp type='datetime'>2026-11-20T12:00:00Z</timestamp><kind>dispute_opened</kind>"
    b"<subject><dispute><id>dp_1</id><transaction><id>tr_1</id></transaction></dispute></subject></notification>"
)


def sign_braintree(document: bytes) -> Sent:
    payload = base64.encodebytes(document).decode()
    form = {"bt_signature": braintree.sign(payload, secret=BRAINTREE_SECRET), "bt_payload": payload}
    return urlencode(form).encode(), {}


ADYEN_SECRET = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056"
ITEM: dict[str, Any] = {
    "pspReference": "P914073381342284",
    "originalReference": "P000000000000001",
    "merchantAccountCode": "TestMerchant",
    "merchantReference": 'order: é "1"',
    "amount": {"value": 1130, "currency": "EUR"},
    "eventCode": "CAPTURE",
    "eventDate": "2026-11-20T12:00:00+01:00",
    "success": "true",
}


def make_adyen() -> Sent:
    item = ITEM | {"additionalData": {"hmacSignature": adyen.sign(ITEM, secret=ADYEN_SECRET)}}
    batch = {"live": "false", "notificationItems": [{"NotificationRequestItem": item}]}
    return json.dumps(batch).encode(), {}


EVENT = encode(make_event())
STANDARD_EVENT = json.dumps(
    {"type": "payment.captured", "data": {"reference": "pay_1", "n": [1, 2.5]}}
).encode()
SENDERS = {
    "stripe": Sender("whsec_fuzz", lambda: sign_stripe(EVENT), sign_stripe),
    "adyen": Sender(ADYEN_SECRET, make_adyen, lambda body: (body, {})),
    "braintree": Sender(BRAINTREE_SECRET, lambda: sign_braintree(NOTIFICATION), sign_braintree),
    STANDARD_GATEWAY: Sender(STANDARD_SECRET, lambda: sign_standard(STANDARD_EVENT), sign_standard),
}


# --- what is sent -------------------------------------------------------------------------------------------


class Stream(io.BytesIO):
    """Counts what is read of it; may break off."""

    taken = 0
    breaks = False

    def read(self, size: int | None = -1, /) -> bytes:
        if self.breaks:
            raise ConnectionResetError("reset by peer")
        data = super().read(size)
        self.taken += len(data)
        return data


def mutate(chance: random.Random, data: bytes) -> bytes:
    """One small change: a bit, a byte, a cut, a repetition, or two pieces swapped."""
    at = chance.randrange(len(data) + 1)
    upto = min(len(data), at + chance.randrange(1, 9))
    spot = min(at, len(data) - 1)
    match chance.randrange(7):
        case 0:
            return data[:spot] + bytes([data[spot] ^ (1 << chance.randrange(8))]) + data[spot + 1 :]
        case 1:
            return data[:spot] + bytes([chance.randrange(256)]) + data[spot + 1 :]
        case 2:
            return data[:at] + data[upto:]
        case 3:
            return data[:at] + chance.randbytes(chance.randrange(1, 9)) + data[at:]
        case 4:
            return data[:at]
        case 5:
            return data[:upto] + data[at:]
    return data[upto:] + data[:upto]


def mutate_delivery(chance: random.Random, sender: Sender) -> Sent:
    body, headers = sender.make()
    if headers and chance.random() < 0.4:
        name = chance.choice(sorted(headers))
        changed = mutate(chance, headers[name].encode("latin-1")).decode("latin-1")
        return body, headers | {name: changed}
    return mutate(chance, body), headers


def spoil_headers(chance: random.Random, sender: Sender) -> Sent:
    """Garbage where the signature stands: long, foreign, empty, many, binary."""
    body, headers = sender.make()
    garbage = [
        "",
        "é" * 300,
        "\x00\x01\xff",
        "v1=" * 9000,
        "t=1," + ",".join(f"v1={'0' * 64}" for _ in range(900)),
        " ".join(f"v1,{'A' * 43}=" for _ in range(900)),
        "x" * 65536,
        "\ud800",
        "t=" + "9" * 5000 + ",v1=" + "0" * 64,
        "٣" * 20,
        "-1",
        "NaN",
    ]
    names = [*headers, "HTTP_STRIPE_SIGNATURE", "HTTP_WEBHOOK_ID", "HTTP_WEBHOOK_SIGNATURE"]
    spoiled = {name: chance.choice(garbage) for name in chance.sample(names, k=1)}
    extra = {"HTTP_USER_AGENT": chance.choice(garbage), "CONTENT_TYPE": chance.choice(garbage)}
    return (body if headers else mutate(chance, body)), headers | spoiled | extra


def break_event(chance: random.Random, sender: Sender) -> Sent:
    """Rightly signed, where a gateway signs its body, and no event all the same."""
    names = [b'"id"', b'"type"', b'"notificationItems"', b'"data"']
    whole = b'{"id":"evt_x","type":"x","n":'
    return sender.sign(
        chance.choice(
            [
                chance.randbytes(chance.randrange(400)),
                b"\xff\xfe" + chance.randbytes(20),
                b"\xef\xbb\xbf[]",
                whole + b"NaN}",
                whole + b"-Infinity}",
                whole + b"9" * 5000 + b"}",
                whole + b"[" * 60_000 + b"]" * 60_000 + b"}",
                whole + b'{"a":' * 30_000,
                b"[" * chance.randrange(1, 200_000),
                b"{" + b",".join(chance.choice(names) + b":null" for _ in range(50)) + b"}",
                b'{"notificationItems":[' + b'{"NotificationRequestItem":{}},' * 200 + b"{}]}",
                b'{"notificationItems":[{"NotificationRequestItem":{"amount":{"value":1e999}}}]}',
                b"null",
                b"",
                b'"' + b"\\ud800" * 1000 + b'"',
                gzip.compress(b"\0" * 5_000_000),
                b"<!DOCTYPE x [<!ENTITY a '"
                + b"a" * 50
                + b"'><!ENTITY b '"
                + b"&a;" * 50
                + b"'>]><x>&b;</x>",
                b"<notification>" + b"<a>" * 5000,
                b"<notification><kind>x</kind><kind/>" + b"<a type='array'/>" * 500 + b"</notification>",
                b"<notification a='1' a='2'></notification>",
                b"<a type='integer'>" + b"9" * 5000 + b"</a>",
            ]
        )
    )


def break_form(chance: random.Random, sender: Sender) -> Sent:
    """Forms and multiparts, cut short, with fields twice or by the hundred."""
    body, headers = sender.make()
    forms = [
        b"bt_signature=a%7Cb&bt_payload=",
        b"bt_signature=&bt_payload=%",
        body + b"&" + body,
        b"&".join(b"a=%d" % number for number in range(500)),
        b"bt_payload=" + b"A" * 200_000 + b"&bt_signature=public%7C" + b"0" * 40,
        b'--x\r\nContent-Disposition: form-data; name="bt_payload"\r\n\r\nabc',
        b"--x\r\n" * 2000,
        b"=" * 5000,
        b"%00=%00&%ff=%fe",
    ]
    kind = chance.choice(["multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "text/xml"])
    return chance.choice(forms), headers | {"CONTENT_TYPE": kind, "HTTP_CONTENT_ENCODING": "gzip"}


def draw(chance: random.Random, sender: Sender) -> Sent:
    kinds = [mutate_delivery, spoil_headers, break_event, break_form]
    return chance.choices(kinds, weights=[6, 2, 3, 1])[0](chance, sender)


# --- the tests ----------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _gateways(settings: Any, db: None) -> None:
    plain = settings.PAYMENT_GATEWAYS["stripe"]  # an adapter without a verifier
    settings.PAYMENT_GATEWAYS = settings.PAYMENT_GATEWAYS | {STANDARD_GATEWAY: plain}
    for gateway, sender in SENDERS.items():
        GatewaySecretFactory(account=GatewayAccountFactory(gateway=gateway, name="fuzz"), value=sender.secret)


def post(gateway: str, stream: Stream, headers: Mapping[str, str], **environ: Any) -> int:
    request = WSGIRequest(
        {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": f"/webhooks/{gateway}/fuzz/",
            "REMOTE_ADDR": "203.0.113.9",
            "wsgi.input": stream,
            "CONTENT_LENGTH": str(len(stream.getvalue())),
            **headers,
            **environ,
        }
    )
    return receive_webhook(request, gateway, "fuzz").status_code


def measure() -> int:
    """The memory that the process holds, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("gateway", SENDERS)
def test_whatever_comes_is_refused_and_changes_nothing(gateway: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The mass may take longer than five minutes.
    monkeypatch.setattr("webhooks.verifiers.base.WINDOW_SECONDS", 86_400)
    sender, chance = SENDERS[gateway], random.Random(gateway)
    body, headers = sender.make()
    assert post(gateway, Stream(body), headers) == 200, "what the mutants come from is good itself"
    original = json.loads(InboundWebhook.objects.get().payload)
    statuses: Counter[int] = Counter()
    held = 0
    for number in range(DELIVERIES):
        if number == DELIVERIES // 5:
            held = measure()
        sent, spoiled = draw(chance, sender)
        status = post(gateway, Stream(sent), spoiled)
        statuses[status] += 1
        assert status in (200, 400, 413), (number, sent[:300], spoiled)
    growth = measure() - held
    print(f"\n{gateway}: {dict(statuses)}, memory grew by {growth / 1024 / 1024:.1f} MiB")
    assert statuses[400] > DELIVERIES * 0.75
    assert growth < MAX_GROWTH_BYTES
    for webhook in InboundWebhook.objects.all():
        assert_means(gateway, json.loads(webhook.payload), original)
    assert RejectedDelivery.objects.count() <= inbound.REJECTED_ROWS_PER_HOUR * 2 + 10  # may cross the hour


def assert_means(gateway: str, payload: Any, original: Any) -> None:
    """A mutant that was taken says what the original says; Adyen signs eight fields, and no more can be asked."""
    if gateway == "adyen":
        assert adyen.is_same_event(payload, original)
    else:
        assert payload == original


@pytest.mark.parametrize("gateway", sorted(set(SENDERS) - {"adyen"}))
def test_a_mutant_is_never_another_event(gateway: str) -> None:
    sender, chance = SENDERS[gateway], random.Random(f"mutants of {gateway}")
    body, headers = sender.make()
    post(gateway, Stream(body), headers)
    for _ in range(min(DELIVERIES, 2000)):
        post(gateway, *prepare(mutate_delivery(chance, sender)))
    assert InboundWebhook.objects.count() == 1


def prepare(sent: Sent) -> tuple[Stream, Headers]:
    return Stream(sent[0]), sent[1]


@pytest.mark.parametrize("gateway", SENDERS)
def test_every_bit_of_a_signature_counts(gateway: str) -> None:
    """Each bit of the whole delivery flipped once, where there are not too many."""
    body, headers = SENDERS[gateway].make()
    post(gateway, Stream(body), headers)
    original = json.loads(InboundWebhook.objects.get().payload)
    for at in range(0, len(body), max(1, len(body) * 8 // max(DELIVERIES, 100))):
        for bit in range(8):
            flipped = body[:at] + bytes([body[at] ^ (1 << bit)]) + body[at + 1 :]
            assert post(gateway, Stream(flipped), headers) in (200, 400)
    for webhook in InboundWebhook.objects.all():
        assert_means(gateway, json.loads(webhook.payload), original)


@pytest.mark.parametrize("gateway", SENDERS)
def test_of_ten_megabytes_no_more_is_read_than_is_taken(gateway: str) -> None:
    stream = Stream(b"x" * 10_000_000)
    assert post(gateway, stream, {}) == 413
    assert stream.taken <= inbound.MAX_BODY_BYTES + 1


@pytest.mark.parametrize("gateway", SENDERS)
def test_lengths_that_lie_and_bodies_that_break_off(gateway: str) -> None:
    body, headers = SENDERS[gateway].make()
    broken = Stream(body)
    broken.breaks = True
    assert post(gateway, broken, headers) == 400
    assert post(gateway, broken, headers, CONTENT_LENGTH="", **{"wsgi.input_terminated": True}) == 400
    for length in (str(len(body) // 2), "-5", "many", ""):
        assert post(gateway, Stream(body), headers, CONTENT_LENGTH=length) == 400, length
    assert not InboundWebhook.objects.exists()
    assert post(gateway, Stream(body), headers, CONTENT_LENGTH="99999999999") == 200, (
        "it ended, and was whole"
    )


@pytest.mark.parametrize("gateway", SENDERS)
def test_a_body_in_chunks_is_taken_like_any_other(gateway: str) -> None:
    body, headers = SENDERS[gateway].make()
    assert post(gateway, Stream(body), headers, CONTENT_LENGTH="", **{"wsgi.input_terminated": True}) == 200
    long = Stream(b"x" * 10_000_000)
    assert post(gateway, long, headers, CONTENT_LENGTH="", **{"wsgi.input_terminated": True}) == 413
    assert long.taken <= inbound.MAX_BODY_BYTES + 1
