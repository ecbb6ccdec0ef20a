"""Stripe's scheme: `Stripe-Signature: t=<seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>">`, maybe several v1."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any

from payments.errors import WebhookSignatureError
from webhooks.verifiers.base import NO_HEADERS, Envelope, check_window, parse_object

HEADER = "stripe-signature"
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_EVENT_ID = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
_EVENT_TYPE = re.compile(r"[A-Za-z0-9_.]{1,100}")


def verify(*, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float) -> int:
    """The index of the secret that signed the body.

    The signature is judged before the time, so that `WebhookReplayError` always means an authentic delivery,
    more than 300 s old or more than 300 s ahead of our clock.
    """
    timestamp, digests = _parse_header(headers.get(HEADER, ""))
    index = _find_secret(timestamp, digests, body, secrets)
    check_window(int(timestamp), now)
    return index


def sign(body: bytes, *, secret: str, timestamp: int) -> str:
    """The header that Stripe would send."""
    return f"t={timestamp},v1={_compute_digest(str(timestamp), body, secret)}"


def read_envelope(body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Envelope:
    payload = parse_object(body)
    event_id, event_type = payload.get("id"), payload.get("type")
    if not (isinstance(event_id, str) and _EVENT_ID.fullmatch(event_id)):
        raise WebhookSignatureError("the event has no usable id")
    if not (isinstance(event_type, str) and _EVENT_TYPE.fullmatch(event_type)):
        raise WebhookSignatureError("the event has no usable type")
    return Envelope(event_id, event_type, _read_subject(payload), payload)


def is_same_event(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """`pending_webhooks` counts down from one delivery to the next, and `request` is left out of some."""
    return all(one.get(name) == other.get(name) for name in ("id", "type", "created", "data"))


def _parse_header(header: str) -> tuple[str, list[str]]:
    items = [item.partition("=") for item in header.split(",")]
    if not all(separator for _, separator, _ in items):
        raise WebhookSignatureError("the Stripe-Signature header is missing or malformed")
    timestamps = [value for name, _, value in items if name == "t"]
    digests = [value for name, _, value in items if name == "v1" and _DIGEST.fullmatch(value)]
    if len(timestamps) != 1 or not _TIMESTAMP.fullmatch(timestamps[0]):
        raise WebhookSignatureError("the Stripe-Signature header has no single timestamp")
    if not digests:
        raise WebhookSignatureError("the Stripe-Signature header has no v1 signature")
    return timestamps[0], digests


def _find_secret(timestamp: str, digests: list[str], body: bytes, secrets: Sequence[str]) -> int:
    for index, secret in enumerate(secrets):
        expected = _compute_digest(timestamp, body, secret)
        if any(hmac.compare_digest(expected, digest) for digest in digests):
            return index
    raise WebhookSignatureError("no signature fits any of the account's secrets")


def _compute_digest(timestamp: str, body: bytes, secret: str) -> str:
    return hmac.digest(secret.encode(), timestamp.encode() + b"." + body, "sha256").hex()


def _read_subject(payload: Mapping[str, Any]) -> str:
    """The payment intent that the event is about, whichever object carries it."""
    data = payload.get("data")
    subject = data.get("object") if isinstance(data, dict) else None
    if not isinstance(subject, dict):
        return ""
    reference = (
        subject.get("id") if subject.get("object") == "payment_intent" else subject.get("payment_intent")
    )
    return reference if isinstance(reference, str) and _EVENT_ID.fullmatch(reference) else ""
