"""The controls that Adyen lacks: faults, clock, webhooks, challenges, disputes and a view of the books."""

from collections.abc import Callable
from dataclasses import asdict

from payments.sandbox.books import TABLES, Session
from payments.sandbox.faults import FaultPlan, parse_fault
from payments.sandbox.summary import EMPTY, count_row
from payments.sandbox.wire import Request, invalid

from . import changes, disputes, notifications, payments
from .wire import Doc, public

Control = Callable[[FaultPlan, Session, Request], Doc]


def add_fault(plan: FaultPlan, session: Session, request: Request) -> Doc:
    fault = parse_fault(request.params)
    plan.add(session, fault)
    return asdict(fault)


def show_faults(plan: FaultPlan, session: Session, request: Request) -> Doc:
    return {"faults": plan.show()}


def clear_faults(plan: FaultPlan, session: Session, request: Request) -> Doc:
    plan.clear(session)
    return {"faults": []}


def set_webhook(plan: FaultPlan, session: Session, request: Request) -> Doc:
    return notifications.set_endpoint(session, request.params.get("url"), request.params.get("secret"))


def pause_webhooks(plan: FaultPlan, session: Session, request: Request) -> Doc:
    session.save_setting("webhooks_paused", True)
    return {"paused": True}


def resume_webhooks(plan: FaultPlan, session: Session, request: Request) -> Doc:
    session.save_setting("webhooks_paused", False)
    return {"paused": False}


def flush(plan: FaultPlan, session: Session, request: Request) -> Doc:
    """Hand over what waits instead of delivering it: `batch` notifications to a webhook."""
    return {"webhooks": notifications.flush(session, batch=int(request.params.get("batch") or 1))}


def show_deliveries(plan: FaultPlan, session: Session, request: Request) -> Doc:
    docs = session.select("notification")
    names = ("status", "attempts")
    shown = [{**{name: doc[name] for name in names}, "event": doc["item"]["eventCode"]} for doc in docs]
    return {"deliveries": shown}


def show_books(plan: FaultPlan, session: Session, request: Request) -> Doc:
    """Every payment whose metadata has what is asked for, and what was done with it; minor units."""
    match = request.params.get("metadata") or {}
    entries = {
        payment["id"]: {**public(payment), **EMPTY, "idempotency_keys": [], "movements": []}
        for payment in session.select("payment")
        if all(payment["metadata"].get(name) == value for name, value in match.items())
    }
    for row in session.db.execute("SELECT * FROM journal ORDER BY seq"):
        if row["payment_intent"] in entries:
            count_row(entries[row["payment_intent"]], dict(row))
    return {"payments": entries}


def move_clock(plan: FaultPlan, session: Session, request: Request) -> Doc:
    """`advance_seconds` adds."""
    seconds = request.params.get("advance_seconds")
    if not isinstance(seconds, int):
        raise invalid("advance_seconds is needed: an integer", "advance_seconds")
    session.save_setting("clock_offset", session.setting("clock_offset", 0) + seconds)
    return {"now": session.now + seconds}


def change_settings(plan: FaultPlan, session: Session, request: Request) -> Doc:
    """`several_captures`: whether the account has Adyen's consent for them."""
    session.save_setting("several_captures", bool(request.params.get("several_captures")))
    return {"several_captures": session.setting("several_captures")}


def find_named(session: Session, request: Request) -> Doc:
    """By either reference, Adyen's or the shop's. Raises ApiError 404."""
    reference = str(request.params.get("reference") or "")
    found = session.find(reference, "payment") or payments.find_by_own_reference(session, reference)
    if found is None:
        raise invalid("There is no payment with this reference.", "reference", status=404)
    return found


def authenticate(plan: FaultPlan, session: Session, request: Request) -> Doc:
    success = bool(request.params.get("success", True))
    payment = payments.authenticate(session, find_named(session, request), success=success)
    return {"redirectResult": payment["_challenge"], "status": payment["status"]}


def expire(plan: FaultPlan, session: Session, request: Request) -> Doc:
    return public(changes.expire(session, find_named(session, request)))


def move_dispute(plan: FaultPlan, session: Session, request: Request) -> Doc:
    """Raise one against the payment `reference` by `event`, or move `dispute` on by another."""
    given = request.params
    code, status = str(given.get("event") or ""), str(given.get("status") or "")
    if "dispute" in given:
        return disputes.tell(session, session.get(given["dispute"], "dispute"), code, status)
    payment = find_named(session, request)
    value = int(given.get("amount") or payment["captured"] or payment["amount"])
    reason = str(given.get("reason") or "10.4")
    return disputes.raise_dispute(session, payment, code=code or "CHARGEBACK", value=value, reason=reason)


def show_evidence(plan: FaultPlan, session: Session, request: Request) -> Doc:
    """The documents supplied for a `dispute`, as they came: Base64."""
    dispute = session.get(str(request.params.get("dispute") or ""), "dispute")
    return {"documents": dispute["_contents"]}


def announce_report(plan: FaultPlan, session: Session, request: Request) -> Doc:
    account, name = str(request.params.get("account") or ""), str(request.params.get("name") or "")
    url = f"{request.base_url}/reports/download/MerchantAccount/{account}/{name}"
    notifications.announce_report(session, account, name, url)
    return {"url": url}


def delete_data(plan: FaultPlan, session: Session, request: Request) -> Doc:
    """Empty the books; where webhooks go is kept."""
    endpoint = session.setting("endpoint")
    for table in TABLES:
        session.db.execute(f"DELETE FROM {table}")  # noqa: S608
    plan.clear(session)
    if endpoint:
        session.save_setting("endpoint", endpoint)
    return {"deleted": True}


CONTROLS: dict[tuple[str, str], Control] = {
    ("POST", "/_faults"): add_fault,
    ("GET", "/_faults"): show_faults,
    ("DELETE", "/_faults"): clear_faults,
    ("POST", "/_webhooks"): set_webhook,
    ("POST", "/_webhooks/pause"): pause_webhooks,
    ("POST", "/_webhooks/resume"): resume_webhooks,
    ("POST", "/_webhooks/flush"): flush,
    ("GET", "/_deliveries"): show_deliveries,
    ("GET", "/_books"): show_books,
    ("POST", "/_clock"): move_clock,
    ("POST", "/_settings"): change_settings,
    ("POST", "/_authenticate"): authenticate,
    ("POST", "/_expire"): expire,
    ("POST", "/_disputes"): move_dispute,
    ("GET", "/_evidence"): show_evidence,
    ("POST", "/_reports"): announce_report,
    ("DELETE", "/_data"): delete_data,
}
