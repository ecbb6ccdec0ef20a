"""Spoil a settlement report on demand: a row dropped, altered or invented."""

from .books import Session, new_id
from .report_rows import moment
from .wire import Doc, invalid, public


def add_report_fault(session: Session, body: Doc) -> list[Doc]:
    """Plan a fault: `action` is drop, alter or add, the last two with `amount`. Raises ApiError 400."""
    if body.get("action") not in ("drop", "alter", "add"):
        raise invalid("action must be one of drop, alter, add", "action")
    if body["action"] != "drop" and not isinstance(body.get("amount"), int):
        raise invalid("amount is needed: minor units, for alter the difference", "amount")
    waiting: list[Doc] = [*session.setting("report_faults", []), public(body)]
    session.save_setting("report_faults", waiting)
    return waiting


def spoil_rows(session: Session, rows: list[Doc]) -> list[Doc]:
    """Apply the report faults that wait; each is used up by the first report in which it finds its row."""
    waiting = session.setting("report_faults", [])
    left = []
    for fault in waiting:
        if fault["action"] == "add":
            rows.append(invent_row(session, fault, rows))
            continue
        target = next((row for row in rows if matches(row, fault)), None)
        if target is None:
            left.append(fault)
        elif fault["action"] == "drop":
            rows.remove(target)
        else:
            target["gross"] += fault["amount"]
            target["customer_facing_amount"] += fault["amount"]
            target["net"] += fault["amount"]
    if waiting:
        session.save_setting("report_faults", left)
    return rows


def matches(row: Doc, fault: Doc) -> bool:
    if fault.get("payment_intent") not in (None, row["payment_intent_id"]):
        return False
    if row["reporting_category"] != fault.get("reporting_category", "charge"):
        return False
    return all(row.get(f"payment_metadata[{key}]") == value for key, value in fault.get("match", {}).items())


def invent_row(session: Session, fault: Doc, rows: list[Doc]) -> Doc:
    """A payment that nobody made, in the same payout as the last row."""
    amount, last = fault["amount"], rows[-1] if rows else {}
    charge = new_id("ch")
    row = {
        name: last.get(name)
        for name in last
        if name.startswith(("automatic_payout", "available_on", "trace"))
    }
    when = last.get("created") or moment(session.now)
    row |= {"balance_transaction_id": new_id("txn"), "source_id": charge, "charge_id": charge}
    row |= {
        "created": when,
        "created_utc": when,
        "payment_intent_id": fault.get("payment_intent") or new_id("pi"),
    }
    row |= {"currency": fault.get("currency", last.get("currency", "eur")), "reporting_category": "charge"}
    row |= {"gross": amount, "fee": 0, "net": amount, "customer_facing_amount": amount}
    row |= {"customer_facing_currency": row["currency"], "description": "Unknown payment"}
    return row | {f"payment_metadata[{key}]": value for key, value in fault.get("match", {}).items()}
