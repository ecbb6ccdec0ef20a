"""What the receipt of a webhook needs to know of a gateway: is it authentic, and which event is it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NoReturn, Protocol

from payments.errors import WebhookReplayError, WebhookSignatureError

# Of schemes that sign their time: Stripe's own default, whose SDK forgets the future side, and the standard's.
WINDOW_SECONDS = 300
NO_HEADERS: Mapping[str, str] = MappingProxyType({})  # of an event that was listed, not delivered


@dataclass(frozen=True, slots=True)
class Envelope:
    """The few members of an event that the archive is searched by; `payload` is the whole of it."""

    event_id: str
    event_type: str
    subject: str  # the gateway's reference of the payment it is about, or ""
    payload: Mapping[str, Any]
    content: bytes = b""  # the payload as JSON, where the body itself is none


class Verifier(Protocol):
    """One gateway's scheme. Raises nothing but `WebhookSignatureError` and its child `WebhookReplayError`."""

    def verify(self, *, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float) -> int:
        """The index of the secret that signed; `headers` has lower-case names, `now` is Unix seconds."""

    def read_envelope(self, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Envelope:
        """Which event a verified body holds; without headers, an event of the gateway's own list."""

    def is_same_event(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        """Whether payloads with one event id differ only in what changes between deliveries."""


def check_window(signed_at: int, now: float) -> None:
    """Raises `WebhookReplayError` for what was signed too long before, or after, now; both are Unix seconds."""
    if abs(now - signed_at) > WINDOW_SECONDS:
        raise WebhookReplayError(f"signed {now - signed_at:.0f} s ago; the window is {WINDOW_SECONDS} s")


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in the body. Raises `WebhookSignatureError` for anything else."""
    try:
        value = _DECODER.decode(
            body.decode(json.detect_encoding(body), "surrogatepass")
        )  # as json.loads does
    except (ValueError, RecursionError):  # ValueError is also bad UTF-8, and an integer of 5000 digits
        raise WebhookSignatureError("the body is not JSON") from None
    if not isinstance(value, dict):
        raise WebhookSignatureError("the body is not a JSON object")
    return value


def read_everything(body: bytes) -> Any:
    """The JSON in the body with every value that is written in it, for who must know what a copy would hold.

    Of a name that comes twice in an object only the last value is read by anybody else; here it has a list of
    them. Numbers with a fraction stay text. Raises `WebhookSignatureError` for what is no JSON.
    """
    try:
        return json.loads(body, object_pairs_hook=_join_members, parse_float=str)
    except (ValueError, RecursionError):
        raise WebhookSignatureError("the body is not JSON") from None


def _join_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        return {name: [value for other, value in pairs if other == name] for name in members}
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)  # json.loads would make one for every body
