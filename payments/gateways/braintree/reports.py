"""Braintree's settlement report of a day: searched for, since Braintree makes none that names a transaction."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import braintree
from braintree import TransactionSearch

from payments.gateways.braintree.client import to_doc
from payments.gateways.braintree.errors import translated
from payments.gateways.braintree.states import SETTLEMENT_FAILURES, is_refund, read_amount, was_captured
from payments.gateways.braintree.wire import Doc, read_time, to_wire

Row = dict[str, str]

SETTLEMENT_PATIENCE = timedelta(days=14)  # in which a settlement is settled or declined
REPORT_COLUMNS = (
    "transaction_id",
    "type",
    "status",
    "order_id",
    "authorization_id",
    "refunded_transaction_id",
    "merchant_account_id",
    "amount",
    "currency",
    "settlement_amount",
    "settlement_currency",
    "exchange_rate",
    "occurred_at",
    "settlement_batch_id",
    "disbursement_date",
    "payment_instrument_type",
    "card_type",
    "dispute_ids",
)


def stream_report(sdk: braintree.BraintreeGateway, start: datetime) -> Iterator[bytes]:
    """The day that begins at `start`, by the hour: one search shows no more than some ten thousand transactions."""
    yield write_csv([dict(zip(REPORT_COLUMNS, REPORT_COLUMNS, strict=True))])
    for hour in range(24):
        with translated("settlement_report"):
            rows = find_settled(sdk, start + timedelta(hours=hour))
        if rows:
            yield write_csv(rows)
    with translated("settlement_report"):
        rows = find_failed(sdk, start)
    if rows:
        yield write_csv(rows)


def find_settled(sdk: braintree.BraintreeGateway, start: datetime) -> list[Row]:
    """What settled in the hour that begins at `start`, and the captures that were voided in it."""
    end = start + timedelta(seconds=3599)
    settled = sdk.transaction.search(TransactionSearch.settled_at.between(start, end))
    voided = sdk.transaction.search(TransactionSearch.voided_at.between(start, end))
    docs = [to_doc(transaction) for transaction in settled.items]
    gone = (to_doc(transaction) for transaction in voided.items)
    docs += [doc for doc in gone if was_captured(doc)]
    rows = [build_row(doc, find_time(doc, ("settled", "voided"))) for doc in docs]
    return sorted(rows, key=lambda row: (row["occurred_at"], row["type"] == "credit", row["transaction_id"]))


def find_failed(sdk: braintree.BraintreeGateway, start: datetime) -> list[Row]:
    """Declined settlements cannot be searched by their own time, but by when they were submitted."""
    end = start + timedelta(days=1)
    found = sdk.transaction.search(
        TransactionSearch.status.in_list(sorted(SETTLEMENT_FAILURES)),
        TransactionSearch.submitted_for_settlement_at.between(start - SETTLEMENT_PATIENCE, end),
    )
    docs = [to_doc(transaction) for transaction in found.items]
    timed = [(find_time(doc, SETTLEMENT_FAILURES), doc) for doc in docs]
    return [build_row(doc, when) for when, doc in timed if when and start <= read_time(when) < end]


# --- rows ---------------------------------------------------------------------------------------------------


def build_row(transaction: Doc, occurred_at: str) -> Row:
    """Amounts are unsigned, as Braintree states them; `type` says which way they went."""
    paid = transaction.get("disbursement_details") or {}
    disputes = transaction.get("disputes") or ()
    row = {
        "transaction_id": transaction["id"],
        "authorization_id": transaction.get("authorized_transaction_id"),
        "amount": to_wire(read_amount(transaction)),
        "currency": transaction["currency_iso_code"],
        "settlement_amount": paid.get("settlement_amount"),
        "settlement_currency": paid.get("settlement_currency_iso_code"),
        "exchange_rate": paid.get("settlement_currency_exchange_rate"),
        "occurred_at": occurred_at,
        "disbursement_date": paid.get("disbursement_date"),
        "card_type": (transaction.get("credit_card") or {}).get("card_type"),
        "dispute_ids": " ".join(str(dispute["id"]) for dispute in disputes),
    }
    if not row["authorization_id"] and not is_refund(transaction):
        row["authorization_id"] = transaction["id"]
    return {name: str(row.get(name, transaction.get(name)) or "") for name in REPORT_COLUMNS}


def find_time(transaction: Doc, statuses: Iterable[str]) -> str:
    """When it came into one of these statuses for the last time, as ISO 8601 in UTC, or ""."""
    wanted = frozenset(statuses)
    times = [
        event["timestamp"]
        for event in transaction.get("status_history") or ()
        if event.get("status") in wanted and event.get("timestamp")
    ]
    return read_time(times[-1]).isoformat() if times else ""


def write_csv(rows: Sequence[Mapping[str, str]]) -> bytes:
    text = io.StringIO()
    csv.DictWriter(text, REPORT_COLUMNS, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
