"""Standard Webhooks 1.0.0, for any gateway without a scheme of its own: `v1`, HMAC-SHA256 of `<id>.<timestamp>.<body>`.

The body is JSON with a `type`. The event's id is the signed header `webhook-id`; the payment it is about is
`data.reference`, the gateway's own reference of it.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any

from payments.errors import WebhookSignatureError
from webhooks.signatures import compute_signature
from webhooks.verifiers.base import NO_HEADERS, Envelope, check_window, parse_object

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
# Printable, without the full stop: so the signed text can be cut into its three parts in one way only.
_EVENT_ID = re.compile(r"[!-\-/-~]{1,100}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_SIGNATURE = re.compile(r"v1,([A-Za-z0-9+/]{43}=)")
_EVENT_TYPE = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
_REFERENCE = re.compile(r"[!-~]{1,100}")


def verify(*, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float) -> int:
    """The index of the secret that signed. The signature is judged before the time, as with Stripe's scheme."""
    event_id, timestamp = headers.get(ID, ""), headers.get(TIMESTAMP, "")
    if not _EVENT_ID.fullmatch(event_id):
        raise WebhookSignatureError(f"the {ID} header is missing or malformed")
    if not _TIMESTAMP.fullmatch(timestamp):
        raise WebhookSignatureError(f"the {TIMESTAMP} header is missing or malformed")
    signatures = _read_signatures(headers.get(SIGNATURE, ""))
    if not signatures:
        raise WebhookSignatureError(f"the {SIGNATURE} header has no v1 signature")
    index = _find_secret(f"{event_id}.{timestamp}.".encode() + body, signatures, secrets)
    check_window(int(timestamp), now)
    return index


def read_envelope(body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Envelope:
    """A listed event, which has no headers, names the same id in its member `id`."""
    payload = parse_object(body)
    event_id, event_type = headers.get(ID) or payload.get("id"), payload.get("type")
    if not (isinstance(event_id, str) and _EVENT_ID.fullmatch(event_id)):
        raise WebhookSignatureError("the event has no usable id")
    if not (isinstance(event_type, str) and _EVENT_TYPE.fullmatch(event_type)):
        raise WebhookSignatureError("the event has no usable type")
    return Envelope(event_id, event_type, _read_subject(payload), payload)


def is_same_event(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """The id stands for one content: nothing in the body may change from one delivery to the next."""
    return one == other


def _read_signatures(header: str) -> list[str]:
    """Those of version 1; others stand beside them while a sender moves to another scheme."""
    return [found[1] for item in header.split(" ") if (found := _SIGNATURE.fullmatch(item))]


def _find_secret(content: bytes, signatures: Sequence[str], secrets: Sequence[str]) -> int:
    for index, secret in enumerate(secrets):
        try:
            expected = compute_signature(content, secret)
        except ValueError:  # no base64: it signs nothing
            continue
        if any(hmac.compare_digest(expected, signature) for signature in signatures):
            return index
    raise WebhookSignatureError("no signature fits any of the account's secrets")


def _read_subject(payload: Mapping[str, Any]) -> str:
    data = payload.get("data")
    reference = data.get("reference") if isinstance(data, dict) else None
    return reference if isinstance(reference, str) and _REFERENCE.fullmatch(reference) else ""
