"""Braintree's scheme: a form of `bt_payload` (base64 of XML) and `bt_signature` (`<public key>|<hex HMAC-SHA1>`).

A secret of the account is the pair `<public key>|<private key>`: a delivery names the public key that it is signed
under, and the challenge to a new address is answered with one. The HMAC's key is the SHA-1 of the private key.

The signature has no time of its own, and a delivery is repeated for a day, so there is no window: what is replayed
has the kind, the timestamp and the subject of the first, hence its event id, and counts as a duplicate.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import parse_qsl
from xml.parsers import expat

from payments.errors import WebhookSignatureError
from webhooks.verifiers.base import NO_HEADERS, Envelope

MAX_DEPTH = 20
_PAYLOAD = re.compile(r"[A-Za-z0-9+=/\n]+")
_DIGEST = re.compile(r"[0-9a-f]{40}")
_CHALLENGE = re.compile(r"[a-f0-9]{20,32}")
_KIND = re.compile(r"[a-z0-9_]{1,100}")
_REFERENCE = re.compile(r"[A-Za-z0-9_-]{1,100}")


def verify(*, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float) -> int:
    """The index of the secret that signed the payload. There is no window (see above): `now` is not looked at."""
    form = _parse_form(body)
    pairs = [pair.partition("|") for pair in form["bt_signature"].split("&")]
    signatures = [(public, digest) for public, _, digest in pairs if _DIGEST.fullmatch(digest)]
    if not signatures:
        raise WebhookSignatureError("bt_signature holds no signature")
    for index, secret in enumerate(secrets):
        public, _, private = secret.partition("|")
        named = [digest for key, digest in signatures if private and key == public]
        # Braintree signs with or without the last line's end; the SDK takes both.
        texts = (form["bt_payload"], form["bt_payload"] + "\n")
        expected = [compute_digest(text, private) for text in texts] if named else []
        if any(hmac.compare_digest(one, digest) for one in expected for digest in named):
            return index
    raise WebhookSignatureError("no signature fits any of the account's secrets")


def sign(payload: str, *, secret: str) -> str:
    """The `bt_signature` that Braintree would send."""
    public, _, private = secret.partition("|")
    return f"{public}|{compute_digest(payload, private)}"


def answer_challenge(query: Mapping[str, str], secrets: Sequence[str]) -> str:
    """`<public key>|<digest>` under the newest secret, which proves that the address is the account's; else ""."""
    challenge = query.get("bt_challenge", "")
    usable = [secret for secret in secrets if all(secret.partition("|"))]
    return sign(challenge, secret=usable[0]) if usable and _CHALLENGE.fullmatch(challenge) else ""


def compute_digest(text: str, private_key: str) -> str:
    key = hashlib.sha1(private_key.encode()).digest()  # noqa: S324 - Braintree's scheme
    return hmac.new(key, text.encode(), hashlib.sha1).hexdigest()


def read_envelope(body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Envelope:
    """The payload is the notification as JSON: `kind`, `timestamp`, `subject`, with XML's types applied."""
    notification = _decode(_parse_form(body)["bt_payload"])
    kind, timestamp = notification.get("kind"), notification.get("timestamp")
    subject = notification.get("subject")
    if not (isinstance(kind, str) and _KIND.fullmatch(kind)):
        raise WebhookSignatureError("the notification has no usable kind")
    if not (isinstance(timestamp, str) and timestamp and isinstance(subject, dict)):
        raise WebhookSignatureError("the notification has no timestamp or no subject")
    identity = json.dumps([kind, timestamp, _find_id(subject) or subject], sort_keys=True)
    event_id = f"bt_{hashlib.sha256(identity.encode()).hexdigest()[:40]}"
    content = json.dumps(notification, separators=(",", ":")).encode()
    return Envelope(event_id, kind, _read_reference(subject), notification, content)


def is_same_event(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(name) == other.get(name) for name in ("kind", "timestamp", "subject"))


def _parse_form(body: bytes) -> dict[str, str]:
    """Raises `WebhookSignatureError` unless each of the two fields is there once."""
    try:
        fields = parse_qsl(body.decode("ascii"), strict_parsing=True, max_num_fields=10, errors="strict")
    except ValueError:  # not ASCII, not a form, or too much of one
        raise WebhookSignatureError("the body is not a form") from None
    form = dict(fields)
    if len(fields) != len(form) or not {"bt_signature", "bt_payload"} <= form.keys():
        raise WebhookSignatureError("the form lacks bt_signature or bt_payload, or has one of them twice")
    if not _PAYLOAD.fullmatch(form["bt_payload"]):
        raise WebhookSignatureError("bt_payload contains illegal characters")
    return form


def _decode(payload: str) -> dict[str, Any]:
    try:
        document = base64.b64decode(payload)
        root = XmlReader().read(document)
    except (binascii.Error, expat.ExpatError, ValueError, RecursionError):
        raise WebhookSignatureError("bt_payload is not a notification") from None
    if not isinstance(root, dict):
        raise WebhookSignatureError("bt_payload is not a notification")
    return root


def _find_id(subject: Mapping[str, Any]) -> str:
    """The id of what the notification is about, with the name of its kind."""
    inner = subject.get("api_error_response") if "api_error_response" in subject else subject
    members = inner.items() if isinstance(inner, dict) else ()
    found = [
        (name, member["id"]) for name, member in members if isinstance(member, dict) and member.get("id")
    ]
    return f"{found[0][0]} {found[0][1]}" if len(found) == 1 else ""


def _read_reference(subject: Mapping[str, Any]) -> str:
    """The transaction that the notification is about: of a part, its authorization."""
    transaction = subject.get("transaction")
    dispute = subject.get("dispute")
    if isinstance(dispute, dict):
        transaction = dispute.get("transaction")
    if not isinstance(transaction, dict):
        return ""
    reference = transaction.get("authorized_transaction_id") or transaction.get("id")
    return reference if isinstance(reference, str) and _REFERENCE.fullmatch(reference) else ""


# --- XML ----------------------------------------------------------------------------------------------------


class XmlReader:
    """Reads typed XML into JSON's own types; times and dates stay text. Raises `ValueError` or `ExpatError`.

    No document type is taken, so there are no entities to expand.
    """

    def __init__(self) -> None:
        self._stack: list[tuple[str, dict[str, str], list[tuple[str, Any, bool]], list[str]]] = []
        self._root: Any = None
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text

    def read(self, document: bytes) -> Any:
        """The content of the root element."""
        self._parser.Parse(document.strip(), True)
        return self._root

    def _refuse(self, *_: object) -> None:
        raise ValueError("a document type is not taken")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise ValueError("too deep")
        self._stack.append((name.replace("-", "_"), attributes, [], []))

    def _text(self, text: str) -> None:
        self._stack[-1][3].append(text)

    def _end(self, _: str) -> None:
        name, attributes, children, texts = self._stack.pop()
        text = "".join(texts)
        value = build_value(attributes, children, text)
        if self._stack:
            is_leaf = attributes.get("type") == "array" or (not children and bool(text.strip()))
            self._stack[-1][2].append((name, value, is_leaf))
        else:
            self._root = value


def build_value(attributes: Mapping[str, str], children: list[tuple[str, Any, bool]], text: str) -> Any:
    """As Braintree's own SDK reads it: arrays, else names with a list where a structure is repeated, else text."""
    kind = attributes.get("type", "")
    if kind == "array":
        return [value for _, value, _ in children]
    if children:
        return join_members(children)
    if not text.strip():
        return None if kind or attributes.get("nil") == "true" else ""
    match kind:
        case "integer":
            return int(text)
        case "boolean":
            return text in ("true", "1")
        case "date":
            return date.fromisoformat(text).isoformat()
        case "datetime":
            return read_time(text)
    return text


def join_members(children: list[tuple[str, Any, bool]]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for name, value, is_leaf in children:
        if is_leaf or not joined.get(name):
            joined[name] = value
            continue
        known = joined[name] if isinstance(joined[name], list) else [joined[name]]
        joined[name] = [*known, value]
    return joined


def read_time(text: str) -> str:
    """ISO 8601 in UTC, whichever way it is written."""
    when = datetime.fromisoformat(text)
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return when.isoformat()
