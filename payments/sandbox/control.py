"""The controls that Stripe lacks: faults, clock, webhooks, payouts, disputes and the judge's summary."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, date, datetime, time

from . import balance, books, disputes, holds, report_faults, summary, timers, webhooks, wire
from .books import Session
from .faults import FaultPlan, parse_fault
from .wire import Doc, Request, invalid, public

Control = Callable[[FaultPlan, Session, Request], Doc]


def add_fault(plan: FaultPlan, session: Session, request: Request) -> Doc:
    fault = parse_fault(request.params)
    plan.add(session, fault)
    return asdict(fault)


def show_faults(plan: FaultPlan, session: Session, request: Request) -> Doc:
    return {"faults": plan.show(), "report_faults": session.setting("report_faults", [])}


def clear_faults(plan: FaultPlan, session: Session, request: Request) -> Doc:
    plan.clear(session)
    session.save_setting("report_faults", [])
    return {"faults": []}


def add_report_fault(plan: FaultPlan, session: Session, request: Request) -> Doc:
    return {"report_faults": report_faults.add_report_fault(session, request.params)}


def set_webhook(plan: FaultPlan, session: Session, request: Request) -> Doc:
    return webhooks.set_endpoint(session, request.params.get("url"), request.params.get("secret"))


def pause_webhooks(plan: FaultPlan, session: Session, request: Request) -> Doc:
    session.save_setting("webhooks_paused", True)
    return {"paused": True}


def resume_webhooks(plan: FaultPlan, session: Session, request: Request) -> Doc:
    session.save_setting("webhooks_paused", False)
    return {"paused": False}


def show_deliveries(plan: FaultPlan, session: Session, request: Request) -> Doc:
    return summary.list_deliveries(session)


def show_books(plan: FaultPlan, session: Session, request: Request) -> Doc:
    match = request.params.get("metadata", {})
    if not isinstance(match, dict):
        raise invalid("metadata[key]=value narrows the summary", "metadata")
    return summary.summarise_books(session, match)


def move_clock(plan: FaultPlan, session: Session, request: Request) -> Doc:
    """`advance_seconds` adds, `now` sets (Unix seconds); old holds and unanswered disputes end, and timers run."""
    body = request.params
    given = body.get("advance_seconds", body.get("now"))
    if not isinstance(given, int):
        raise invalid("advance_seconds or now is needed: an integer", "advance_seconds")
    moved = given if "advance_seconds" in body else given - session.now
    session.save_setting("clock_offset", session.setting("clock_offset", 0) + moved)
    session.now += moved
    expired = holds.expire_authorizations(session)
    return {"now": session.now, "expired": expired, "unanswered": disputes.expire_disputes(session)}


def settle(plan: FaultPlan, session: Session, request: Request) -> Doc:
    """Whatever was left for later happens now: refunds that bounce, disputes that come."""
    return {"settled": timers.run_timers(session, everything=True)}


def create_payouts(plan: FaultPlan, session: Session, request: Request) -> Doc:
    """The automatic payouts that arrive on `date` (YYYY-MM-DD, UTC; today unless told), one per currency."""
    text = request.params.get("date") or datetime.fromtimestamp(session.now, UTC).date().isoformat()
    try:
        day = datetime.combine(date.fromisoformat(text), time(), UTC)
    except (TypeError, ValueError):
        raise invalid("date must be written as YYYY-MM-DD", "date") from None
    return {"payouts": [public(payout) for payout in balance.create_payouts(session, int(day.timestamp()))]}


def create_fee(plan: FaultPlan, session: Session, request: Request) -> Doc:
    """A fee outside any payment: `amount` in minor units, `currency`, `description`."""
    given = wire.check_params(
        request.params,
        {"amount": wire.amount, "currency": wire.currency, "description": wire.string},
        required=("amount", "currency"),
    )
    text = given.get("description", "Network costs")
    fee = balance.book_fee(session, given["amount"], currency=given["currency"], description=text)
    return public(fee)


def create_dispute(plan: FaultPlan, session: Session, request: Request) -> Doc:
    """A chargeback of `payment_intent`, or with `inquiry` a question first; or, with `dispute` and `status`,
    what becomes of it: won, lost, or (an inquiry) escalated.
    """
    body = request.params
    if "dispute" in body:
        if body.get("status") == "escalated":
            return public(disputes.escalate_inquiry(session, body["dispute"]))
        if body.get("status") not in ("won", "lost"):
            raise invalid("status must be won, lost or escalated", "status")
        return public(disputes.decide_dispute(session, body["dispute"], status=body["status"]))
    if not isinstance(body.get("payment_intent"), str):
        raise invalid("Missing required param: payment_intent.", "payment_intent", "parameter_missing")
    amount = wire.amount("amount", body["amount"]) if "amount" in body else None
    reason, inquiry = str(body.get("reason", "fraudulent")), bool(body.get("inquiry", False))
    dispute = disputes.create_dispute(
        session, body["payment_intent"], amount=amount, reason=reason, inquiry=inquiry
    )
    return public(dispute)


def delete_data(plan: FaultPlan, session: Session, request: Request) -> Doc:
    """Empty the books; where webhooks go is kept."""
    endpoint = session.setting("webhook", {})
    for table in books.TABLES:
        session.db.execute(f"DELETE FROM {table}")  # noqa: S608
    plan.clear(session)
    session.save_setting("webhook", endpoint)
    return {"deleted": True}


CONTROLS: dict[tuple[str, str], Control] = {
    ("POST", "/_faults"): add_fault,
    ("GET", "/_faults"): show_faults,
    ("DELETE", "/_faults"): clear_faults,
    ("POST", "/_report_faults"): add_report_fault,
    ("GET", "/_report_faults"): show_faults,
    ("POST", "/_webhooks"): set_webhook,
    ("POST", "/_webhooks/pause"): pause_webhooks,
    ("POST", "/_webhooks/resume"): resume_webhooks,
    ("GET", "/_deliveries"): show_deliveries,
    ("GET", "/_books"): show_books,
    ("POST", "/_clock"): move_clock,
    ("POST", "/_settle"): settle,
    ("POST", "/_payouts"): create_payouts,
    ("POST", "/_fees"): create_fee,
    ("POST", "/_disputes"): create_dispute,
    ("DELETE", "/_data"): delete_data,
}
