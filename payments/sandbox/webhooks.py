"""Deliver events to the endpoint: signed as Stripe signs them, retried in the background, recorded."""

import hashlib
import hmac
import http.client
import json
import sqlite3
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from .books import Books, Session
from .wire import Doc, invalid

DELAYS = (1, 2, 5, 10)  # seconds before the next try; the last one repeats
MAX_ATTEMPTS = 20
TIMEOUT_SECONDS = 10
WORKERS = 4


def set_endpoint(session: Session, url: object, secret: object) -> Doc:
    """Name the one endpoint, or none with an empty url. Raises ApiError 400 for what is not HTTP."""
    if url and not str(url).startswith(("http://", "https://")):
        raise invalid("url must begin with http:// or https://", "url")
    session.save_setting("webhook", {"url": url, "secret": secret or "whsec_sandbox"} if url else {})
    return {"url": url, "enabled": bool(url)}


def sign_payload(payload: str, secret: str, timestamp: int) -> str:
    """The Stripe-Signature header: HMAC-SHA256 over `timestamp.payload`."""
    digest = hmac.new(secret.encode(), f"{timestamp}.{payload}".encode(), hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


def post_event(url: str, payload: str, signature: str) -> int:
    """The status that the endpoint answered. Raises OSError or HTTPException when there was no answer."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Stripe-Signature": signature,
        "User-Agent": "Stripe/1.0 (sandbox)",
    }
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, payload.encode(), headers)
        return connection.getresponse().status
    finally:
        connection.close()


class Deliverer:
    """The background threads that deliver; one of them also keeps the gateway's timers."""

    def __init__(self, books: Books, run_timers: Callable[[], None]) -> None:
        self._books = books
        self._run_timers = run_timers
        self._wake = threading.Condition()
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._work, args=(number == 0,), name=f"webhooks-{number}", daemon=True)
            for number in range(WORKERS)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        with self._wake:
            self._stopped = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(TIMEOUT_SECONDS)

    def wake(self, scheduled: int) -> None:
        with self._wake:
            self._wake.notify(scheduled)

    def deliver_due(self, *, everything: bool = False, newest_first: bool = False) -> int:
        """Deliver now what is due, or all that is pending, paused or not; the number of attempts made."""
        horizon = float("inf") if everything else time.time()
        with self._books.session() as session:
            rows = session.db.execute(
                "SELECT id FROM deliveries WHERE status = 'pending' AND due <= ? ORDER BY due, id", (horizon,)
            ).fetchall()
            claimed = [row["id"] for row in rows]
            marks = [(identity,) for identity in claimed]
            session.db.executemany("UPDATE deliveries SET status = 'sending' WHERE id = ?", marks)
        for identity in reversed(claimed) if newest_first else claimed:
            self.deliver(identity)
        return len(claimed)

    def deliver(self, identity: int) -> None:
        """Make one attempt at a delivery that this caller has claimed."""
        with self._books.session() as session:
            row = session.db.execute("SELECT * FROM deliveries WHERE id = ?", (identity,)).fetchone()
            endpoint = session.setting("webhook", {})
            event = session.find(row["event"], "event") if row else None
        if event is None or not endpoint.get("url"):
            return self._finish(identity, "failed", None, "there is no endpoint")
        payload = json.dumps(event, indent=2)
        secret = endpoint["secret"] if row["mode"] != "bad_signature" else "whsec_of_somebody_else"
        try:
            status = post_event(endpoint["url"], payload, sign_payload(payload, secret, int(time.time())))
        except (OSError, http.client.HTTPException) as error:
            return self._retry(row, None, f"{type(error).__name__}: {error}")
        if 200 <= status < 300:
            return self._finish(identity, "delivered", status, None)
        return self._retry(row, status, None)

    def _retry(self, row: Doc | sqlite3.Row, status: int | None, error: str | None) -> None:
        attempts = row["attempts"] + 1
        limit = 3 if row["mode"] == "bad_signature" else MAX_ATTEMPTS
        if attempts >= limit:
            self._finish(row["id"], "failed", status, error)
            return
        due = time.time() + DELAYS[min(attempts, len(DELAYS)) - 1]
        with self._books.session() as session:
            session.db.execute(
                "UPDATE deliveries SET status = 'pending', attempts = ?, due = ?, last_status = ?,"
                " last_error = ? WHERE id = ?",
                (attempts, due, status, error, row["id"]),
            )

    def _finish(self, identity: int, outcome: str, status: int | None, error: str | None) -> None:
        with self._books.session() as session:
            session.db.execute(
                "UPDATE deliveries SET status = ?, attempts = attempts + 1, last_status = ?, last_error = ?,"
                " delivered_at = ? WHERE id = ?",
                (outcome, status, error, time.time() if outcome == "delivered" else None, identity),
            )

    def _claim(self) -> int | None:
        with self._books.session() as session:
            if session.setting("webhooks_paused", False):
                return None
            row = session.db.execute(
                "UPDATE deliveries SET status = 'sending' WHERE id = (SELECT id FROM deliveries"
                " WHERE status = 'pending' AND due <= ? ORDER BY due, id LIMIT 1) RETURNING id",
                (time.time(),),
            ).fetchall()
            return int(row[0]["id"]) if row else None

    def _work(self, keeps_timers: bool) -> None:
        while not self._stopped:
            try:
                if keeps_timers:
                    self._run_timers()
                identity = self._claim()
                if identity is not None:
                    self.deliver(identity)
                    continue
            except sqlite3.ProgrammingError:  # The books were closed while we stopped.
                return
            with self._wake:
                if not self._stopped:
                    self._wake.wait(0.2)
