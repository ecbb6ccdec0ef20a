"""Disputes: inquiries and chargebacks, the evidence against them, and how the bank decides."""

from . import wire
from .balance import DAY, DISPUTE_FEE, book
from .books import Session, new_id
from .cards import find_card
from .files import read_upload
from .refunds import load_refundable
from .wire import Doc, StateError, public

ANSWER_SECONDS = 7 * DAY
# Stripe's test texts: evidence that says so is decided so.
MAGIC = {"winning_evidence": "win_dispute", "losing_evidence": "lose_dispute"}
DECISION_SECONDS = 1
NETWORK_CODES = {"fraudulent": "10.4", "product_not_received": "13.1", "duplicate": "12.6.1"}
FILE_NAMES = """
cancellation_policy customer_communication customer_signature duplicate_charge_documentation receipt
refund_policy service_documentation shipping_documentation uncategorized_file
"""
TEXT_NAMES = """
access_activity_log billing_address cancellation_policy_disclosure cancellation_rebuttal
customer_email_address customer_name customer_purchase_ip duplicate_charge_explanation duplicate_charge_id
product_description refund_policy_disclosure refund_refusal_explanation service_date shipping_address
shipping_carrier shipping_date shipping_tracking_number uncategorized_text
"""
FILE_FIELDS, TEXT_FIELDS = FILE_NAMES.split(), TEXT_NAMES.split()


def long_text(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > 20_000:
        raise wire.invalid(f"Invalid string: {name} must be at most 20000 characters", name)
    return value


EVIDENCE = {**dict.fromkeys(FILE_FIELDS, wire.string), **dict.fromkeys(TEXT_FIELDS, long_text)}
UPDATE: wire.Spec = {
    "evidence": wire.nested(EVIDENCE),
    "submit": wire.boolean,
    "metadata": wire.metadata,
    "expand": wire.strings,
}
ANSWERABLE = {"needs_response": "under_review", "warning_needs_response": "warning_under_review"}
OPEN = (*ANSWERABLE, *ANSWERABLE.values())


# --- the cardholder -----------------------------------------------------------------------------------------


def create_dispute(
    session: Session,
    identity: str,
    *,
    amount: int | None = None,
    reason: str = "fraudulent",
    inquiry: bool = False,
) -> Doc:
    """The cardholder's bank asks about a payment (an inquiry), or takes its money back at once, with a fee.

    Raises StateError when nothing is left of what was captured, or the charge is disputed already.
    """
    intent, charge = load_refundable(session, {"payment_intent": identity})
    left = charge["amount_captured"] - charge["amount_refunded"]
    if not 0 < (amount or left) <= left:
        raise StateError(
            f"The disputed amount is greater than what is left of the charge ({left}).", param="amount"
        )
    dispute = build_dispute(session, intent, charge, reason)
    dispute["amount"] = amount or left
    session.put(charge | {"disputed": True})
    if inquiry:
        dispute |= {"status": "warning_needs_response", "is_charge_refundable": True}
        dispute["payment_method_details"]["card"]["case_type"] = "inquiry"
        session.put(dispute)
        session.record("inquiry", intent, 0, dispute["id"])
        session.emit("charge.dispute.created", dispute, intent)
        return dispute
    withdraw(session, intent, dispute)
    session.emit("charge.dispute.created", dispute, intent)
    session.emit("charge.dispute.funds_withdrawn", dispute, intent)
    return dispute


def build_dispute(session: Session, intent: Doc, charge: Doc, reason: str) -> Doc:
    code, brand = NETWORK_CODES.get(reason, "13.3"), charge["payment_method_details"]["card"]["brand"]
    return {
        "id": new_id("du"),
        "object": "dispute",
        "amount": 0,
        "balance_transactions": [],
        "charge": charge["id"],
        "created": session.now,
        "currency": charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {},
        "evidence_details": {
            "due_by": session.now + ANSWER_SECONDS,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
        },
        "is_charge_refundable": False,
        "livemode": False,
        "metadata": {},
        "payment_intent": intent["id"],
        "payment_method_details": {
            "card": {"brand": brand, "case_type": "chargeback", "network_reason_code": code},
            "type": "card",
        },
        "reason": reason,
        "status": "needs_response",
    }


def withdraw(session: Session, intent: Doc, dispute: Doc) -> None:
    transaction = book(session, intent, dispute, "dispute", -dispute["amount"], DISPUTE_FEE)
    dispute["balance_transactions"] = [public(transaction)]
    session.put(dispute)
    session.record("dispute", intent, dispute["amount"], dispute["id"])


def escalate_inquiry(session: Session, identity: str) -> Doc:
    """The cardholder is not satisfied: the inquiry becomes a chargeback, with a deadline of its own."""
    dispute = session.get(identity, "dispute")
    if not dispute["status"].startswith("warning_") or dispute["status"] == "warning_closed":
        raise StateError(f"This dispute is {dispute['status']}: only an open inquiry can be escalated.")
    intent = session.get(dispute["payment_intent"], "payment_intent")
    previous = {"status": dispute["status"]}
    dispute |= {"status": "needs_response", "is_charge_refundable": False}
    dispute["payment_method_details"]["card"]["case_type"] = "chargeback"
    dispute["evidence_details"] |= {"due_by": session.now + ANSWER_SECONDS, "submission_count": 0}
    withdraw(session, intent, dispute)
    session.emit("charge.dispute.updated", dispute, intent, previous=previous)
    session.emit("charge.dispute.funds_withdrawn", dispute, intent)
    return dispute


def dispute_as_told(session: Session, identity: str) -> None:
    """What the card's token foretold; nothing when the payment was refunded before the dispute came."""
    reason = find_card(session.get(identity, "payment_intent")["_token"]).dispute
    inquiry = reason == "inquiry"
    try:
        create_dispute(session, identity, reason="general" if inquiry else reason, inquiry=inquiry)
    except StateError:
        return


# --- the shop -----------------------------------------------------------------------------------------------


def update_dispute(session: Session, identity: str, params: Doc) -> Doc:
    """Keep evidence, and with `submit` send it to the bank: once, in time, for good."""
    given = wire.check_params(params, UPDATE)
    dispute = session.get(identity, "dispute")
    submits = given.get("submit", True)
    if dispute["status"] not in ANSWERABLE and ("evidence" in given or submits):
        raise StateError(f"This dispute is {dispute['status']}: it takes no more evidence.")
    if session.now >= dispute["evidence_details"]["due_by"]:
        raise StateError("The deadline of this dispute has passed: it takes no more evidence.")
    evidence = given.get("evidence", {})
    for field in FILE_FIELDS:
        if field in evidence:
            read_upload(session, evidence[field], purpose="dispute_evidence", param=f"evidence[{field}]")
    dispute["evidence"] |= evidence
    dispute["metadata"] |= given.get("metadata", {})
    dispute["evidence_details"]["has_evidence"] = bool(dispute["evidence"])
    if submits:
        submit(session, dispute)
    intent = session.get(dispute["payment_intent"], "payment_intent")
    session.emit("charge.dispute.updated", dispute, intent)
    return session.put(dispute)


def submit(session: Session, dispute: Doc) -> None:
    dispute["status"] = ANSWERABLE[dispute["status"]]
    dispute["evidence_details"] |= {"submission_count": 1, "submission_method": "manual"}
    text = dispute["evidence"].get("uncategorized_text", "")
    for word, action in MAGIC.items():
        if word in text:
            session.set_timer(DECISION_SECONDS, action, dispute["id"])


def close_dispute(session: Session, identity: str, params: Doc) -> Doc:
    """Give in: a chargeback that nobody has answered is lost. An inquiry is given in to by a refund."""
    wire.check_params(params, {"expand": wire.strings})
    dispute = session.get(identity, "dispute")
    if dispute["status"] != "needs_response":
        raise StateError(
            f"This dispute is {dispute['status']}: only one that needs a response can be closed."
        )
    return decide_dispute(session, identity, status="lost")


# --- the bank -----------------------------------------------------------------------------------------------


def decide_dispute(session: Session, identity: str, *, status: str) -> Doc:
    """`won` gives the money back (not the fee), `lost` does not. An inquiry that is won is closed.

    Raises StateError for a dispute that is decided, and for the loss of an inquiry: that is escalated first.
    """
    dispute = session.get(identity, "dispute")
    if dispute["status"] not in OPEN:
        raise StateError(f"This dispute is already {dispute['status']}.")
    is_inquiry = dispute["status"].startswith("warning_")
    if is_inquiry and status == "lost":
        raise StateError("An inquiry cannot be lost before it is escalated.")
    intent = session.get(dispute["payment_intent"], "payment_intent")
    previous = {"status": dispute["status"]}
    dispute["status"] = "warning_closed" if is_inquiry else status
    if status == "won" and not is_inquiry:
        transaction = book(session, intent, dispute, "dispute_reversal", dispute["amount"])
        dispute["balance_transactions"].append(public(transaction))
        session.emit("charge.dispute.funds_reinstated", dispute, intent)
    session.put(dispute)
    session.record(
        "inquiry_closed" if is_inquiry else f"dispute_{status}", intent, dispute["amount"], dispute["id"]
    )
    session.emit("charge.dispute.closed", dispute, intent, previous=previous)
    return dispute


def decide_if_open(session: Session, identity: str, *, status: str) -> None:
    """As `decide_dispute`; nothing when it was decided in the meantime."""
    if session.get(identity, "dispute")["status"] in OPEN:
        decide_dispute(session, identity, status=status)


def expire_disputes(session: Session) -> int:
    """Decide what nobody answered in time: a chargeback is lost, an inquiry is closed."""
    waiting = session.select(
        "dispute",
        "json_extract(doc, '$.status') IN ('needs_response', 'warning_needs_response')"
        " AND json_extract(doc, '$.evidence_details.due_by') <= ?",
        (session.now,),
    )
    for dispute in waiting:
        is_inquiry = dispute["status"].startswith("warning_")
        decide_dispute(session, dispute["id"], status="won" if is_inquiry else "lost")
    return len(waiting)


def collect_evidence(session: Session, identity: str) -> bytes:
    """All that was given to answer a dispute with, one after the other, for the judge."""
    dispute = session.get(identity, "dispute")
    parts = [
        read_upload(session, value) if field in FILE_FIELDS else value.encode()
        for field, value in sorted(dispute["evidence"].items())
    ]
    return b"\n".join(parts)
