"""Adyen's scheme: each notification of a batch carries a base64 HMAC-SHA256 over eight of its own fields.

Nothing signs the time of the delivery, so there is no replay window: what comes again is found by its event id.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any

from payments.errors import WebhookSignatureError
from webhooks.verifiers.base import NO_HEADERS, Envelope, parse_object

RECEIPT = b"[accepted]"  # what Adyen has always asked for; the status alone is enough for newer accounts
SIGNED = ("pspReference", "originalReference", "merchantAccountCode", "merchantReference")
_ID = re.compile(r"[A-Za-z0-9_.:+-]{1,100}")
# All but `merchantReference` without a colon: so the signed text can be cut into fields in one way only.
_FIELDS = {
    "pspReference": re.compile(r"[^:\s]{1,200}"),
    "originalReference": re.compile(r"[^:\s]{0,200}"),
    "merchantAccountCode": re.compile(r"[^:]{1,200}"),
    "eventCode": re.compile(r"[A-Z_]{1,80}"),
    "success": re.compile(r"true|false"),
    "currency": re.compile(r"[A-Z]{3}"),
}
_REPORTS = frozenset({"REPORT_AVAILABLE"})  # about no payment: its reference is a file's name

Item = Mapping[str, Any]


def verify(*, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float) -> int:
    """The index of the secret that signed; of several, while one is being rotated, the oldest.

    Every notification must be signed: one forged among good ones spoils the delivery.
    """
    keys = [(index, key) for index, secret in enumerate(secrets) if (key := read_key(secret))]
    return max(_find_secret(item, keys) for item in _read_items(parse_object(body)))


def sign(item: Item, *, secret: str) -> str:
    """What Adyen would write into `additionalData.hmacSignature`. Raises `WebhookSignatureError`."""
    return _compute_signature(item, read_key(secret))


def read_envelope(body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Envelope:
    payload = parse_object(body)
    items = _read_items(payload)
    codes = "+".join(sorted({item["eventCode"] for item in items}))
    subjects = {_read_subject(item) for item in items}
    return Envelope(
        event_id=_read_id(items),
        event_type=codes if len(codes) <= 100 else "BATCH",
        subject=subjects.pop() if len(subjects) == 1 else "",
        payload=payload,
    )


def is_same_event(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """What is signed must agree; what is beside it may be told more or less fully the next time."""
    mine, theirs = _read_items(one), _read_items(other)
    return [_join_fields(item) for item in mine] == [_join_fields(item) for item in theirs]


def read_key(secret: str) -> bytes:
    """The key behind its hexadecimal; b"" for what is none, which then signs nothing."""
    try:
        return binascii.a2b_hex(secret.strip())
    except (binascii.Error, ValueError):
        return b""


def _read_items(payload: Mapping[str, Any]) -> list[Item]:
    wrapped = payload.get("notificationItems")
    if not isinstance(wrapped, list) or not wrapped:
        raise WebhookSignatureError("the body has no notificationItems")
    return [_read_item(entry) for entry in wrapped]


def _read_item(entry: object) -> Item:
    item = entry.get("NotificationRequestItem") if isinstance(entry, dict) else None
    if not isinstance(item, dict):
        raise WebhookSignatureError("a notification has no NotificationRequestItem")
    _join_fields(item)
    return item


def _find_secret(item: Item, keys: Sequence[tuple[int, bytes]]) -> int:
    extra = item.get("additionalData")
    given = extra.get("hmacSignature") if isinstance(extra, dict) else None
    if not isinstance(given, str) or not given.isascii():
        raise WebhookSignatureError("a notification has no hmacSignature")
    for index, key in keys:
        if hmac.compare_digest(_compute_signature(item, key), given):
            return index
    raise WebhookSignatureError("a notification's signature fits none of the account's secrets")


def _compute_signature(item: Item, key: bytes) -> str:
    return base64.b64encode(hmac.new(key, _join_fields(item), hashlib.sha256).digest()).decode()


def _join_fields(item: Item) -> bytes:
    """The signed text. An absent field is an empty one, as Adyen signs it."""
    amount = item.get("amount")
    if not isinstance(amount, dict) or type(amount.get("value")) is not int:
        raise WebhookSignatureError("a notification has no amount")
    fields = {name: item.get(name) or "" for name in (*SIGNED, "eventCode", "success")}
    fields["currency"] = amount.get("currency") or ""
    for name, value in fields.items():
        pattern = _FIELDS.get(name)
        if not isinstance(value, str) or (pattern and not pattern.fullmatch(value)):
            raise WebhookSignatureError(f"a notification's {name} is missing or malformed")
    parts = [fields[name] for name in SIGNED]
    parts += [str(amount["value"]), fields["currency"], fields["eventCode"], fields["success"]]
    try:
        return ":".join(parts).encode()
    except UnicodeEncodeError:
        raise WebhookSignatureError("a notification holds text that cannot be encoded") from None


def _read_id(items: Sequence[Item]) -> str:
    """Of one notification what tells it apart, of several a digest over that; `eventDate` is not signed."""
    names = [
        ":".join([item["pspReference"], item["eventCode"], item["success"], str(item.get("eventDate") or "")])
        for item in items
    ]
    if len(names) == 1 and _ID.fullmatch(names[0]):
        return names[0]
    digest = hashlib.sha256("\n".join(names).encode(errors="surrogatepass"))
    return f"batch-{digest.hexdigest()}"


def _read_subject(item: Item) -> str:
    if item["eventCode"] in _REPORTS:
        return ""
    reference = item.get("originalReference") or item["pspReference"]
    return reference if _ID.fullmatch(reference) else ""
