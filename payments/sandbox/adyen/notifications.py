"""Webhooks: built, signed and queued as Adyen does it, then delivered, or handed over to whoever asks."""

import base64
import binascii
import hashlib
import hmac
import http.client
import json
import threading
import time
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from payments.sandbox.books import Books, Session, new_id
from payments.sandbox.wire import invalid

from .wire import Doc, format_time, new_reference, show_amount

DEFAULT_KEY = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056"
TIMEOUT_SECONDS = 10
RETRY_SECONDS = 1.0
PAUSE_SECONDS = 0.1
SIGNED = ("pspReference", "originalReference", "merchantAccountCode", "merchantReference")


def emit(
    session: Session,
    code: str,
    payment: Doc,
    *,
    value: int,
    reference: str = "",
    success: bool = True,
    reason: str = "",
    own: str = "",
    extra: Mapping[str, str] | None = None,
) -> str:
    """Queue one notification about a payment; `own` is the modification's reference. Returns the one it has."""
    item = {
        "additionalData": {
            **{f"metadata.{name}": text for name, text in payment["metadata"].items()},
            "paymentMethodVariant": payment["_card"]["paymentMethodVariant"],
            **(extra or {}),
        },
        "amount": show_amount(value, payment["currency"]),
        "eventCode": code,
        "eventDate": format_time(session.now),
        "merchantAccountCode": payment["account"],
        "merchantReference": reference or payment["reference"],
        "paymentMethod": payment["_card"]["paymentMethod"],
        "pspReference": own or payment["id"],
        "reason": reason,
        "success": str(success).lower(),
    }
    if own:
        item["originalReference"] = payment["id"]
    queue(session, item)
    return str(item["pspReference"])


def queue(session: Session, item: Doc) -> None:
    session.put(
        {
            "id": new_id("ntf"),
            "object": "notification",
            "created": session.now,
            "item": item,
            "status": "pending",
            "due": 0.0,
            "attempts": 0,
        }
    )


def announce_report(session: Session, account: str, name: str, url: str) -> None:
    item = {
        "additionalData": {},
        "amount": show_amount(0, "EUR"),
        "eventCode": "REPORT_AVAILABLE",
        "eventDate": format_time(session.now),
        "merchantAccountCode": account,
        "merchantReference": "",
        "pspReference": name or new_reference(),
        "reason": url,
        "success": "true",
    }
    queue(session, item)


# --- the envelope -------------------------------------------------------------------------------------------


def set_endpoint(session: Session, url: object, key: object) -> Doc:
    """Name the one endpoint, or none with an empty url. Raises ApiError 400 for what is not HTTP."""
    if url and not str(url).startswith(("http://", "https://")):
        raise invalid("url must begin with http:// or https://", "url")
    session.save_setting("endpoint", {"url": url or "", "key": key or DEFAULT_KEY})
    return {"url": url, "enabled": bool(url)}


def read_endpoint(session: Session) -> Doc:
    endpoint: Doc = session.setting("endpoint", {"url": "", "key": DEFAULT_KEY})
    return endpoint


def sign_item(item: Doc, key: str) -> str:
    """Base64 of the HMAC-SHA256 over eight fields, joined by colons; the key is hexadecimal."""
    fields = [str(item.get(name, "")) for name in SIGNED]
    fields += [str(item["amount"]["value"]), item["amount"]["currency"], item["eventCode"], item["success"]]
    digest = hmac.new(binascii.a2b_hex(key), ":".join(fields).encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def build_body(items: Sequence[Doc], key: str) -> Doc:
    signed = [
        {**item, "additionalData": {**item["additionalData"], "hmacSignature": sign_item(item, key)}}
        for item in items
    ]
    return {"live": "false", "notificationItems": [{"NotificationRequestItem": item} for item in signed]}


def take_pending(session: Session, *, batch: int = 1, now: float | None = None) -> list[list[Doc]]:
    """The notifications that wait, oldest first, `batch` to a webhook; with `now` only those that are due."""
    due = "json_extract(doc, '$.status') = 'pending'"
    values: list[float] = []
    if now is not None:
        due += " AND json_extract(doc, '$.due') <= ?"
        values.append(now)
    waiting = session.select("notification", due, values)
    return [waiting[start : start + batch] for start in range(0, len(waiting), batch)]


def mark(session: Session, docs: Sequence[Doc], **changes: object) -> None:
    for doc in docs:
        session.put({**doc, **changes, "attempts": doc["attempts"] + 1})


def flush(session: Session, *, batch: int = 1) -> list[Doc]:
    """Hand over everything that waits, as the bodies that would be sent, and call it delivered."""
    key = read_endpoint(session)["key"]
    bodies = []
    for docs in take_pending(session, batch=batch):
        bodies.append(build_body([doc["item"] for doc in docs], key))
        mark(session, docs, status="delivered")
    return bodies


# --- delivering ---------------------------------------------------------------------------------------------


def post_body(url: str, body: Doc) -> int:
    """The status that the endpoint answered. Raises OSError or HTTPException when there was no answer."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "Adyen HttpClient 1.0"}
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, json.dumps(body).encode(), headers)
        return connection.getresponse().status
    finally:
        connection.close()


class Deliverer:
    """The one background thread that delivers; like Adyen's queue, it goes on in order."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._stopped = threading.Event()
        self._one_at_a_time = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="adyen-webhooks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(TIMEOUT_SECONDS)

    def deliver_due(self, *, batch: int = 1, everything: bool = False, newest_first: bool = False) -> int:
        """Deliver what is due, or all that waits; the number of webhooks sent."""
        with self._one_at_a_time:
            with self._books.session() as session:
                endpoint = read_endpoint(session)
                due = take_pending(session, batch=batch, now=None if everything else time.time())
            if not endpoint["url"]:
                return 0
            for docs in reversed(due) if newest_first else due:
                self._deliver(endpoint, docs)
            return len(due)

    def _deliver(self, endpoint: Doc, docs: Sequence[Doc]) -> None:
        try:
            status = post_body(endpoint["url"], build_body([doc["item"] for doc in docs], endpoint["key"]))
        except (OSError, http.client.HTTPException):
            status = 0
        with self._books.session() as session:
            if 200 <= status < 300:
                mark(session, docs, status="delivered")
            else:
                mark(session, docs, due=time.time() + RETRY_SECONDS)

    def _work(self) -> None:
        while not self._stopped.wait(PAUSE_SECONDS):
            with self._books.session() as session:
                is_paused = session.setting("webhooks_paused", False)
            if not is_paused:
                self.deliver_due()
