"""Notifications, signed as Braintree signs them, and sent when they are asked for."""

import base64
import hashlib
import hmac
import http.client
from urllib.parse import urlencode, urlsplit

from payments.sandbox.books import Session
from payments.sandbox.wire import Doc

from .answers import stamp
from .xml import render_document

TIMEOUT_SECONDS = 10
DEFAULT_KEYS = "sandbox_public|sandbox_private"


def build_notification(session: Session, kind: str, subject: Doc) -> Doc:
    """The two fields of the form, `bt_signature` and `bt_payload`."""
    document = render_document(
        "notification", {"timestamp": stamp(session), "kind": kind, "subject": subject}
    )
    payload = base64.encodebytes(document.encode()).decode()
    keys = session.setting("notifications", {}).get("keys") or DEFAULT_KEYS
    return {"bt_signature": sign_payload(payload, keys), "bt_payload": payload}


def sign_payload(payload: str, keys: str) -> str:
    """`public|digest`: HMAC-SHA1 over the payload, under the SHA-1 of the private key."""
    public, _, private = keys.partition("|")
    key = hashlib.sha1(private.encode()).digest()  # noqa: S324 - Braintree's scheme
    return f"{public}|{hmac.new(key, payload.encode(), hashlib.sha1).hexdigest()}"


def send_notification(told: Doc) -> Doc:
    """Post the form to its `url`, if it has one: with the `status` of the answer, or the `error`."""
    if not told["url"]:
        return told | {"status": None}
    try:
        form = {name: told[name] for name in ("bt_signature", "bt_payload")}
        return told | {"status": post_notification(told["url"], form)}
    except (OSError, http.client.HTTPException) as error:
        return told | {"status": None, "error": f"{type(error).__name__}: {error}"}


def post_notification(url: str, form: Doc) -> int:
    """The status that the endpoint answered. Raises OSError or HTTPException when there was no answer."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
    headers = {"Content-Type": "application/x-www-form-urlencoded", "User-Agent": "Braintree-Webhooks"}
    try:
        connection.request("POST", parts.path or "/", urlencode(form), headers)
        return connection.getresponse().status
    finally:
        connection.close()
