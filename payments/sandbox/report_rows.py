"""One report row per balance transaction, and the rows as CSV: major units, UTC, columns by name."""

import csv
import io
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from .books import Session
from .wire import Doc, decimals


def describe_row(session: Session, transaction: Doc) -> Doc:
    """A report row by column name; gross, fee and net are still minor units."""
    intent = session.find(transaction["_payment_intent"] or "", "payment_intent") or {}
    charge = session.find(transaction["_charge"] or "", "charge") or {}
    payout = session.find(transaction["_payout"] or "", "payout") or {}
    card = charge.get("payment_method_details", {}).get("card", {})
    row = {
        "balance_transaction_id": transaction["id"],
        "created": moment(transaction["created"]),
        "available_on": moment(transaction["available_on"]),
        "currency": transaction["currency"],
        "gross": transaction["amount"],
        "fee": transaction["fee"],
        "net": transaction["net"],
        "reporting_category": transaction["reporting_category"],
        "source_id": transaction["source"],
        "description": transaction["description"],
        "customer_facing_amount": transaction["amount"],
        "customer_facing_currency": transaction["currency"],
        "payment_intent_id": intent.get("id"),
        "charge_id": charge.get("id"),
        "charge_created": moment(charge.get("created")),
        "payment_method_type": "card" if charge else None,
        "card_brand": card.get("brand"),
        "card_funding": card.get("funding"),
        "card_country": card.get("country"),
        "statement_descriptor": intent.get("statement_descriptor"),
        "customer_id": intent.get("customer"),
        "customer_email": intent.get("receipt_email"),
        **describe_payout(payout),
        **{f"payment_metadata[{key}]": value for key, value in intent.get("metadata", {}).items()},
    }
    source = transaction["source"] or ""
    if refund := session.find(source, "refund"):
        row |= {f"refund_metadata[{key}]": value for key, value in refund["metadata"].items()}
    if dispute := session.find(source, "dispute"):
        row["dispute_reason"] = dispute["reason"]
    for name in (
        "created",
        "available_on",
        "charge_created",
        "automatic_payout_effective_at",
        "effective_at",
    ):
        row[f"{name}_utc"] = row.get(name)
    return row


def describe_payout(payout: Doc) -> Doc:
    if not payout:
        return {"trace_id_status": "pending"}
    effective = moment(payout["arrival_date"])
    return {
        "automatic_payout_id": payout["id"],
        "automatic_payout_effective_at": effective,
        "payout_id": payout["id"],
        "effective_at": effective,
        "payout_expected_arrival_date": effective,
        "payout_status": payout["status"],
        "payout_type": payout["type"],
        "payout_description": payout["description"],
        "trace_id": payout["trace_id"]["value"],
        "trace_id_status": payout["trace_id"]["status"],
    }


def moment(instant: int | None) -> str | None:
    return None if instant is None else datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%d %H:%M:%S")


def write_csv(columns: list[str], rows: list[Doc]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        places = decimals(row["currency"])
        writer.writerow([format_cell(name, row.get(name), places) for name in columns])
    return out.getvalue()


def format_cell(name: str, value: Any, places: int) -> str:
    if value is None:
        return ""
    if name in ("gross", "fee", "net", "customer_facing_amount"):
        return f"{Decimal(value).scaleb(-places):.{places}f}"
    return str(value)
