"""Stripe's financial reports as CSV, made from the balance transactions."""

from typing import Any

from . import wire
from .books import Session, new_id
from .files import store_file
from .report_faults import spoil_rows
from .report_rows import describe_row, write_csv
from .wire import Doc, Request, invalid

COMMON_COLUMNS = """
balance_transaction_id created_utc created available_on_utc available_on currency gross fee net
reporting_category source_id description customer_facing_amount customer_facing_currency payment_intent_id
charge_id charge_created_utc charge_created payment_method_type card_brand card_funding card_country
statement_descriptor customer_id customer_email automatic_payout_id automatic_payout_effective_at_utc
automatic_payout_effective_at order_id dispute_reason
"""
PAYOUT_COLUMNS = """
payout_id effective_at_utc effective_at currency gross fee net reporting_category balance_transaction_id
description payout_expected_arrival_date payout_status payout_type payout_description trace_id trace_id_status
"""
COMMON = COMMON_COLUMNS.split()
TRACE = ["trace_id", "trace_id_status"]
PAID = "json_extract(doc, '$._payout')"
CATEGORY = "json_extract(doc, '$.reporting_category')"
PAYOUTS_OF_INTERVAL = (
    "(SELECT id FROM objects WHERE kind = 'payout'"
    " AND json_extract(doc, '$.arrival_date') >= ? AND json_extract(doc, '$.arrival_date') < ?)"
)
# Report type -> which balance transactions it lists (SQL over the interval), and the columns that it knows.
REPORTS: dict[str, tuple[str, list[str]]] = {
    "payout_reconciliation.itemized.5": (
        f"{CATEGORY} <> 'payout' AND {PAID} IN {PAYOUTS_OF_INTERVAL}",
        COMMON + TRACE,
    ),
    "payout_reconciliation.by_id.itemized.4": (f"{CATEGORY} <> 'payout' AND {PAID} = ?", COMMON + TRACE),
    "balance_change_from_activity.itemized.3": (
        f"{CATEGORY} <> 'payout' AND created >= ? AND created < ?",
        COMMON,
    ),
    "ending_balance_reconciliation.itemized.4": (
        f"{CATEGORY} <> 'payout' AND created < ? AND {PAID} IS NULL",
        COMMON,
    ),
    "payouts.itemized.3": (f"{CATEGORY} = 'payout' AND created >= ? AND created < ?", PAYOUT_COLUMNS.split()),
}
PARAMETERS: wire.Spec = {
    "interval_start": wire.integer,
    "interval_end": wire.integer,
    "payout": wire.string,
    "columns": wire.strings,
    "currency": wire.currency,
    "reporting_category": wire.string,
    "timezone": wire.string,
    "decimal_separator": wire.choice("period"),
}


def available_until(session: Session) -> int:
    """Data is ready at once: up to and with the present second."""
    return session.now + 1


def retrieve_type(session: Session, request: Request, identity: str) -> Doc:
    if identity not in REPORTS:
        raise invalid(f"No such report type: '{identity}'", "id", "resource_missing", status=404)
    first = session.db.execute("SELECT min(created) FROM objects").fetchone()[0]
    return {
        "id": identity,
        "object": "reporting.report_type",
        "data_available_end": available_until(session),
        "data_available_start": min(first or session.now, session.now),
        "default_columns": REPORTS[identity][1],
        "livemode": False,
        "name": identity,
        "updated": session.now,
        "version": int(identity.rpartition(".")[2]),
    }


def create_run(session: Session, request: Request) -> Doc:
    """The file is made now; the answer says pending and the next look succeeded, as with the real one."""
    given = wire.check_params(
        request.params,
        {"report_type": wire.string, "parameters": wire.nested(PARAMETERS), "expand": wire.strings},
        required=("report_type",),
    )
    kind, parameters = given["report_type"], given.get("parameters", {})
    if kind not in REPORTS:
        raise invalid(f"No such report type: '{kind}'", "report_type", "resource_missing", status=404)
    columns = check_columns(kind, parameters)
    content = write_csv(columns, build_rows(session, kind, parameters, columns))
    file = store_file(session, request, content.encode(), purpose="finance_report_run")
    run = {
        "id": new_id("frr"),
        "object": "reporting.report_run",
        "created": session.now,
        "error": None,
        "livemode": False,
        "parameters": parameters,
        "report_type": kind,
        "result": file,
        "status": "succeeded",
        "succeeded_at": session.now,
    }
    session.put(run)
    session.emit("reporting.report_run.succeeded", run)
    return run | {"status": "pending", "result": None, "succeeded_at": None}


def retrieve_run(session: Session, request: Request, identity: str) -> Doc:
    return session.get(identity, "reporting.report_run")


def check_columns(kind: str, parameters: Doc) -> list[str]:
    known = REPORTS[kind][1]
    columns: list[str] = parameters.get("columns") or known
    for column in columns:
        is_metadata = column.startswith(("payment_metadata[", "refund_metadata[")) and column.endswith("]")
        if column not in known and not (is_metadata and kind != "payouts.itemized.3"):
            raise invalid(f"Invalid column for {kind}: {column}", "parameters[columns]")
    return columns


def interval_of(session: Session, kind: str, parameters: Doc) -> tuple[Any, ...]:
    """The values for the report's SQL. Raises ApiError 400 for a missing, empty or too late interval."""
    if "by_id" in kind:
        return (session.get(need(parameters, "payout"), "payout", "parameters[payout]")["id"],)
    end = need(parameters, "interval_end")
    if end > available_until(session):
        raise invalid(f"Data is available until {available_until(session)} only.", "parameters[interval_end]")
    if kind.startswith("ending_balance"):
        return (end,)
    start = need(parameters, "interval_start")
    if start >= end:
        raise invalid("interval_start must be before interval_end.", "parameters[interval_start]")
    return (start, end)


def need(parameters: Doc, name: str) -> Any:
    if name not in parameters:
        raise invalid(f"Missing required param: {name}.", f"parameters[{name}]", "parameter_missing")
    return parameters[name]


def build_rows(session: Session, kind: str, parameters: Doc, columns: list[str]) -> list[Doc]:
    values = interval_of(session, kind, parameters)
    where = REPORTS[kind][0]
    for name in ("currency", "reporting_category"):
        if name in parameters:
            where += f" AND json_extract(doc, '$.{name}') = ?"
            values += (parameters[name],)
    transactions = session.select("balance_transaction", where, values, "created, seq")
    rows = [describe_row(session, transaction) for transaction in transactions]
    return spoil_rows(session, rows) if kind != "payouts.itemized.3" else rows
