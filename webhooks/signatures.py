"""Signs what we send, by the Standard Webhooks 1.0.0 specification (symmetric scheme `v1`)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"  # noqa: S105 - the public prefix of every secret
_SECRET_BYTES = 32  # the specification asks for 24 to 64


def generate_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def sign_message(
    *, message_id: str, timestamp: int, body: bytes, signing_secrets: Sequence[str]
) -> dict[str, str]:
    """The three headers of one attempt; `timestamp` is the attempt's, in Unix seconds.

    One signature per secret, so that a receiver may still hold the old one. Raises `ValueError` for no secret
    at all, and for an id with a full stop, which would make the signed text ambiguous.
    """
    if not signing_secrets:
        raise ValueError("a message cannot be signed without a secret")
    if "." in message_id:
        raise ValueError(f"the message id {message_id!r} has a full stop")
    content = f"{message_id}.{timestamp}.".encode() + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(
            f"v1,{compute_signature(content, secret)}" for secret in signing_secrets
        ),
    }


def compute_signature(content: bytes, secret: str) -> str:
    """Base64 of the HMAC-SHA256 under the secret. Raises `ValueError` for a secret that is no base64, or empty."""
    encoded = secret.removeprefix(SECRET_PREFIX)
    key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    if not key:
        raise ValueError("a secret without a byte signs nothing")
    return base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
