"""The gateway's own books: one SQLite file, one writer, every answer committed before it is sent."""

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .cards import find_card
from .wire import Doc, Request, invalid, public

SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL, created INTEGER NOT NULL, doc TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS objects_by_time ON objects (kind, created, seq);
CREATE INDEX IF NOT EXISTS objects_by_intent ON objects
    (kind, json_extract(doc, '$.payment_intent'), created);
CREATE INDEX IF NOT EXISTS transactions_by_payout ON objects (kind, json_extract(doc, '$._payout'));
CREATE VIEW IF NOT EXISTS unpaid AS SELECT id, json_extract(doc, '$.currency') AS currency,
    json_extract(doc, '$.net') AS net, json_extract(doc, '$.available_on') AS available_on FROM objects
    WHERE kind = 'balance_transaction' AND json_extract(doc, '$._payout') IS NULL
    AND json_extract(doc, '$.reporting_category') <> 'payout';
CREATE TABLE IF NOT EXISTS metadata (key TEXT NOT NULL, value TEXT NOT NULL, id TEXT NOT NULL,
    PRIMARY KEY (key, value, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS journal (seq INTEGER PRIMARY KEY AUTOINCREMENT, created INTEGER NOT NULL,
    payment_intent TEXT NOT NULL, operation TEXT NOT NULL, amount INTEGER NOT NULL, currency TEXT NOT NULL,
    object TEXT, idempotency_key TEXT);
CREATE INDEX IF NOT EXISTS journal_by_intent ON journal (payment_intent);
CREATE TABLE IF NOT EXISTS idempotency (key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL,
    status INTEGER NOT NULL, body TEXT NOT NULL, request TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attempts (key TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deliveries (id INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL,
    type TEXT NOT NULL, mode TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'pending',
    attempts INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL, last_status INTEGER,
    last_error TEXT, delivered_at REAL);
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (due) WHERE status = 'pending';
CREATE TABLE IF NOT EXISTS timers (id INTEGER PRIMARY KEY AUTOINCREMENT, due INTEGER NOT NULL,
    name TEXT NOT NULL, object TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS files (id TEXT PRIMARY KEY, content TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
TABLES = (
    "objects",
    "metadata",
    "journal",
    "idempotency",
    "attempts",
    "deliveries",
    "timers",
    "files",
    "settings",
)
LATE_SECONDS = 10.0


def new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


class Books:
    """The file, its one connection and its one lock."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "sandbox.sqlite3"
        self._lock = threading.RLock()
        self._db = sqlite3.connect(self.path, timeout=2, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        # The exclusive mode keeps a second gateway away from these books; it ends with the process.
        for pragma in (
            "locking_mode=EXCLUSIVE",
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "wal_autocheckpoint=4000",
        ):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(SCHEMA)
        self._db.execute("UPDATE deliveries SET status = 'pending' WHERE status = 'sending'")

    @contextmanager
    def session(self, request: Request | None = None) -> Iterator["Session"]:
        """One transaction: committed when the block ends, rolled back when it raises."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield Session(self._db, request)
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def close(self) -> None:
        with self._lock:
            self._db.close()


class Session:
    """What may be done within one transaction of the books."""

    def __init__(self, db: sqlite3.Connection, request: Request | None) -> None:
        self.db = db
        self.request = request or Request("", "")
        self.now = self.request.now or int(time.time()) + int(self.setting("clock_offset", 0))
        self.scheduled = 0
        self.first_deliveries: list[int] = []

    def undo(self) -> None:
        """Forget what this transaction wrote so far, and go on with a new one."""
        self.db.execute("ROLLBACK")
        self.db.execute("BEGIN IMMEDIATE")
        self.scheduled = 0
        self.first_deliveries.clear()

    def setting(self, name: str, default: Any = None) -> Any:
        row = self.db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return default if row is None else json.loads(row[0])

    def save_setting(self, name: str, value: Any) -> None:
        self.db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, json.dumps(value)))

    def put(self, doc: Doc) -> Doc:
        """Write an object, new or changed."""
        values = (doc["id"], doc["object"], doc["created"], json.dumps(doc, separators=(",", ":")))
        self.db.execute(
            "INSERT INTO objects (id, kind, created, doc) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET doc = excluded.doc",
            values,
        )
        return doc

    def index_metadata(self, doc: Doc, *, previous: Mapping[str, str] | None = None) -> None:
        """Make an object findable by its metadata."""
        gone = [(key, value, doc["id"]) for key, value in (previous or {}).items()]
        self.db.executemany("DELETE FROM metadata WHERE key = ? AND value = ? AND id = ?", gone)
        rows = [(key, value, doc["id"]) for key, value in doc["metadata"].items()]
        self.db.executemany("INSERT INTO metadata VALUES (?, ?, ?)", rows)

    def find(self, identity: str, kind: str) -> Doc | None:
        row = self.db.execute(
            "SELECT doc FROM objects WHERE id = ? AND kind = ?", (identity, kind)
        ).fetchone()
        return None if row is None else json.loads(row[0])

    def get(self, identity: str, kind: str, param: str = "id") -> Doc:
        """Raises ApiError 404 resource_missing."""
        doc = self.find(identity, kind)
        if doc is None:
            raise invalid(f"No such {kind}: '{identity}'", param, "resource_missing", status=404)
        return doc

    def select(
        self, kind: str, where: str = "1", values: Sequence[Any] = (), order: str = "seq"
    ) -> list[Doc]:
        """Objects of a kind; `where` and `order` are SQL of ours, never a client's text."""
        query = f"SELECT doc FROM objects WHERE kind = ? AND {where} ORDER BY {order}"  # noqa: S608
        rows = self.db.execute(query, (kind, *values))
        return [json.loads(row[0]) for row in rows]

    def page(self, kind: str, params: Doc, filters: Mapping[str, str]) -> tuple[list[Doc], bool]:
        """A page, newest first, by Stripe's list parameters and by the values of `filters` (name -> path)."""
        where: list[str] = ["1"]
        values: list[Any] = []
        for name, path in filters.items():
            if name in params:
                wanted = params[name] if isinstance(params[name], list) else [params[name]]
                where.append(f"json_extract(doc, '$.{path}') IN ({', '.join('?' * len(wanted))})")
                values.extend(wanted)
        signs = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
        for sign, instant in params.get("created", {}).items():
            where.append(f"created {signs[sign]} ?")
            values.append(instant)
        backwards = "ending_before" in params
        for name, sign in (("starting_after", "<"), ("ending_before", ">")):
            if name in params:
                where.append(f"(created, seq) {sign} (SELECT created, seq FROM objects WHERE id = ?)")  # noqa: S608
                values.append(self.get(params[name], kind, name)["id"])
        limit = min(max(params.get("limit", 10), 1), 100)
        direction = "ASC" if backwards else "DESC"
        order = f"created {direction}, seq {direction} LIMIT {limit + 1}"
        found = self.select(kind, " AND ".join(where), values, order)
        shown = found[:limit]
        return (shown[::-1] if backwards else shown), len(found) > limit

    def record(self, operation: str, intent: Doc, amount: int, obj: str | None = None) -> None:
        """Append to the journal, from which the judge's summary is made."""
        key = self.request.idempotency_key
        row = (self.now, intent["id"], operation, amount, intent["currency"], obj, key)
        self.db.execute("INSERT INTO journal VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", row)

    def set_timer(self, seconds: int, name: str, obj: str) -> None:
        self.db.execute(
            "INSERT INTO timers (due, name, object) VALUES (?, ?, ?)", (self.now + seconds, name, obj)
        )

    def emit(self, kind: str, doc: Doc, intent: Doc | None = None, *, previous: Doc | None = None) -> Doc:
        """Write an event and, when an endpoint is set, its delivery, in the manner of the intent's token.

        `previous` is what a change changed, as it was.
        """
        event = {
            "id": new_id("evt"),
            "object": "event",
            "api_version": self.request.headers.get("stripe-version", "2026-10-28.endive"),
            "created": self.now,
            "data": {"object": public(doc)} | ({"previous_attributes": previous} if previous else {}),
            "livemode": False,
            "pending_webhooks": 0,
            "request": {"id": self.request.id or None, "idempotency_key": self.request.idempotency_key},
            "type": kind,
        }
        endpoint = self.setting("webhook", {})
        if endpoint.get("url") and not self.request.now:  # what is written into the past is no news
            event["pending_webhooks"] = 1
            self.schedule(
                event, find_card(intent["_token"]).webhook if intent and intent["_token"] else "normal"
            )
        return self.put(event)

    def schedule(self, event: Doc, mode: str) -> None:
        due = time.time() + (LATE_SECONDS if mode == "late" else 0)
        # The answering thread itself sends what must arrive first: the background must not take it.
        status = "sending" if mode == "first" else "pending"
        for _ in range(2 if mode == "duplicate" else 1):
            cursor = self.db.execute(
                "INSERT INTO deliveries (event, type, mode, due, status) VALUES (?, ?, ?, ?, ?)",
                (event["id"], event["type"], mode, due, status),
            )
            self.scheduled += 1
            if mode == "first" and cursor.lastrowid:
                self.first_deliveries.append(cursor.lastrowid)
