"""The judge's view of the books: per payment intent and per currency, how often and how much."""

from .books import Session
from .wire import Doc

COUNTED = {
    "authorize": ("charges", "authorized"),
    "decline": ("declines", None),
    "capture": ("captures", "captured"),
    "capture_failed": ("capture_failures", None),
    "cancel": ("cancels", "released"),
    "expire": ("expiries", "released"),
    "refund": ("refunds", "refunded"),
    "refund_failed": ("refund_failures", None),
    "inquiry": ("inquiries", None),
    "dispute": ("disputes", "disputed"),
    "dispute_won": ("disputes_won", "reinstated"),
    "dispute_lost": ("disputes_lost", None),
}
EMPTY = {name: 0 for counted in COUNTED.values() for name in counted if name}


def summarise_books(session: Session, match: Doc) -> Doc:
    """Every payment intent whose metadata has `match`, and totals per currency; amounts in minor units."""
    where = "".join(" AND id IN (SELECT id FROM metadata WHERE key = ? AND value = ?)" for _ in match)
    values = [text for pair in match.items() for text in pair]
    intents = {doc["id"]: start_entry(doc) for doc in session.select("payment_intent", f"1{where}", values)}
    for row in session.db.execute("SELECT * FROM journal ORDER BY seq"):
        if row["payment_intent"] in intents:
            count_row(intents[row["payment_intent"]], dict(row))
    return {"payment_intents": intents, "totals": add_totals(intents)}


def start_entry(intent: Doc) -> Doc:
    names = ("id", "status", "metadata", "currency", "amount", "created")
    return {**{name: intent[name] for name in names}, **EMPTY, "idempotency_keys": [], "movements": []}


def count_row(entry: Doc, row: Doc) -> None:
    key = row["idempotency_key"]
    entry["movements"].append({name: row[name] for name in ("operation", "amount", "idempotency_key")})
    if key and key not in entry["idempotency_keys"]:
        entry["idempotency_keys"].append(key)
    count, amount = COUNTED.get(row["operation"], (None, None))
    if count:
        entry[count] += 1
    if amount:
        entry[amount] += row["amount"]
    if row["operation"] == "refund_failed":
        entry["refunded"] -= row["amount"]


def add_totals(intents: dict[str, Doc]) -> Doc:
    totals: Doc = {}
    for entry in intents.values():
        total = totals.setdefault(entry["currency"], {"payment_intents": 0, **EMPTY})
        total["payment_intents"] += 1
        for name in EMPTY:
            total[name] += entry[name]
    return totals


def list_deliveries(session: Session) -> Doc:
    rows = session.db.execute("SELECT * FROM deliveries ORDER BY id").fetchall()
    return {"deliveries": [dict(row) for row in rows]}
