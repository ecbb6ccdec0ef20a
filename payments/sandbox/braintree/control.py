"""The controls that Braintree lacks: faults, clock, settlement, disputes, notifications and the judge's summary."""

from collections.abc import Callable
from dataclasses import asdict

from payments.sandbox import books
from payments.sandbox.books import Session
from payments.sandbox.faults import FaultPlan, parse_fault
from payments.sandbox.wire import Doc, Request, invalid

from . import disputes, notifications
from .answers import move
from .transactions import get_transaction, settle

Control = Callable[[FaultPlan, Session, Request], Doc]
SETTINGS = ("settles_at_once", "duplicate_seconds", "merchant_accounts", "currency")
WAITING = "('submitted_for_settlement', 'settling')"
PENDING_CREDITS = (
    "json_extract(doc, '$.status') = 'settlement_pending' AND json_extract(doc, '$.type') = 'credit'"
)
MOVEMENTS = {
    "charge": ("charges", "authorized"),
    "capture": ("captures", "captured"),
    "cancel": ("cancels", "released"),
    "refund": ("refunds", "refunded"),
    "refund_failure": ("refund_failures", "bounced"),
}


def add_fault(plan: FaultPlan, session: Session, request: Request) -> Doc:
    fault = parse_fault(request.params)
    plan.add(session, fault)
    return asdict(fault)


def show_faults(plan: FaultPlan, session: Session, request: Request) -> Doc:
    return {"faults": plan.show()}


def clear_faults(plan: FaultPlan, session: Session, request: Request) -> Doc:
    plan.clear(session)
    return {"faults": []}


def change_settings(plan: FaultPlan, session: Session, request: Request) -> Doc:
    """`settles_at_once`, `duplicate_seconds`, `merchant_accounts` (id -> currency), `currency` of the default."""
    for name, value in request.params.items():
        if name not in SETTINGS:
            raise invalid(f"No such setting: {name}", name)
        session.save_setting(name, value)
    return {name: session.setting(name) for name in SETTINGS}


def show_books(plan: FaultPlan, session: Session, request: Request) -> Doc:
    """What moved under the authorization with this order id: numbers, and minor units."""
    operation = request.params.get("operation_id", "")
    totals = {name: 0 for pair in MOVEMENTS.values() for name in pair}
    rows = session.db.execute(
        "SELECT operation, amount FROM journal WHERE payment_intent = ? OR ? = ''", (operation, operation)
    )
    for row in rows:
        number, amount = MOVEMENTS[row["operation"]]
        totals[number] += 1
        totals[amount] += row["amount"]
    totals["refunded"] -= totals["bounced"]
    return totals


def move_clock(plan: FaultPlan, session: Session, request: Request) -> Doc:
    """`advance_seconds`; holds that became too old expire."""
    moved = request.params.get("advance_seconds")
    if not isinstance(moved, int):
        raise invalid("advance_seconds is needed: an integer", "advance_seconds")
    session.save_setting("clock_offset", session.setting("clock_offset", 0) + moved)
    session.now += moved
    held = session.select("transaction", "json_extract(doc, '$.status') = 'authorized'")
    old = [one for one in held if session.now - one["created"] >= 7 * 24 * 60 * 60]
    for one in old:
        move(session, one, "authorization_expired")
    return {"now": session.now, "expired": len(old)}


def run_batch(plan: FaultPlan, session: Session, request: Request) -> Doc:
    """Settle what waits: one `transaction`, or all; `status: settling` only begins."""
    only = request.params.get("transaction")
    waiting = session.select("transaction", f"json_extract(doc, '$.status') IN {WAITING}")
    waiting += session.select("transaction", PENDING_CREDITS)
    chosen = [get_transaction(session, only)] if only else waiting
    begins = request.params.get("status") == "settling"
    done = [move(session, one, "settling") if begins else settle(session, one) for one in chosen]
    return {"transactions": {one["id"]: one["status"] for one in done}}


def change_dispute(plan: FaultPlan, session: Session, request: Request) -> Doc:
    """Open one (`transaction`, `kind`, `reason`, `amount`), or decide one (`dispute`, `status`)."""
    body = request.params
    if "dispute" not in body:
        return disputes.open_dispute(session, body)
    return disputes.move_dispute(session, disputes.get_dispute(session, body["dispute"]), str(body["status"]))


def show_evidence(plan: FaultPlan, session: Session, request: Request) -> Doc:
    return disputes.show_evidence(session, str(request.params.get("dispute")))


def set_endpoint(plan: FaultPlan, session: Session, request: Request) -> Doc:
    """`url`, and `secret` as `public_key|private_key`."""
    url, keys = request.params.get("url"), request.params.get("secret")
    if url and not str(url).startswith(("http://", "https://")):
        raise invalid("url must begin with http:// or https://", "url")
    session.save_setting("notifications", {"url": url, "keys": keys})
    return {"url": url, "enabled": bool(url)}


def notify(plan: FaultPlan, session: Session, request: Request) -> Doc:
    """`kind`, and the `transaction` or `dispute` it is about: the signed form, and where it is sent, if anywhere."""
    body = request.params
    subject: Doc = {"check": True}
    if "transaction" in body:
        subject = {"transaction": get_transaction(session, body["transaction"])}
    elif "dispute" in body:
        subject = {"dispute": disputes.get_dispute(session, body["dispute"])}
    form = notifications.build_notification(session, str(body.get("kind", "check")), subject)
    return form | {"url": session.setting("notifications", {}).get("url")}


def delete_data(plan: FaultPlan, session: Session, request: Request) -> Doc:
    """Empty the books; where notifications go is kept."""
    endpoint = session.setting("notifications", {})
    for table in books.TABLES:
        session.db.execute(f"DELETE FROM {table}")  # noqa: S608
    plan.clear(session)
    session.save_setting("notifications", endpoint)
    return {"deleted": True}


CONTROLS: dict[tuple[str, str], Control] = {
    ("POST", "/_faults"): add_fault,
    ("GET", "/_faults"): show_faults,
    ("DELETE", "/_faults"): clear_faults,
    ("POST", "/_settings"): change_settings,
    ("GET", "/_books"): show_books,
    ("POST", "/_clock"): move_clock,
    ("POST", "/_settle"): run_batch,
    ("POST", "/_disputes"): change_dispute,
    ("GET", "/_evidence"): show_evidence,
    ("POST", "/_webhooks"): set_endpoint,
    ("POST", "/_notify"): notify,
    ("DELETE", "/_data"): delete_data,
}
