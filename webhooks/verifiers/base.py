"""What the receipt of a webhook needs to know of a gateway: is it authentic, and which event is it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from payments.errors import WebhookSignatureError


@dataclass(frozen=True, slots=True)
class Envelope:
    """The few members of an event that the archive is searched by; `payload` is the whole of it."""

    event_id: str
    event_type: str
    subject: str  # the gateway's reference of the payment it is about, or ""
    payload: Mapping[str, Any]


class Verifier(Protocol):
    """One gateway's scheme. Raises nothing but `WebhookSignatureError` and its child `WebhookReplayError`."""

    def verify(self, *, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float) -> int:
        """The index of the secret that signed; `headers` has lower-case names, `now` is Unix seconds."""

    def read_envelope(self, body: bytes) -> Envelope:
        """Which event a verified body holds."""

    def is_same_event(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        """Whether payloads with one event id differ only in what changes between deliveries."""


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in the body. Raises `WebhookSignatureError` for anything else."""
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):  # ValueError is also bad UTF-8, and an integer of 5000 digits
        raise WebhookSignatureError("the body is not JSON") from None
    if not isinstance(value, dict):
        raise WebhookSignatureError("the body is not a JSON object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
