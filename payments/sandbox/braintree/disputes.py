"""Disputes, their evidence, and what is decided about them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from payments.sandbox.books import Session
from payments.sandbox.wire import Doc

from .answers import Refusal, Status, new_id, stamp
from .transactions import get_transaction

REPLY_DAYS = 10
REASON_CODES = {"fraud": "83", "product_not_received": "30"}
TEXT_CATEGORIES = frozenset({"TRACKING_NUMBER", "CARRIER_NAME", "PROOF_OF_DELIVERY"})


def open_dispute(session: Session, body: Doc) -> Doc:
    """`transaction`, and optionally `kind`, `reason` and `amount`."""
    transaction = get_transaction(session, str(body.get("transaction")))
    day = datetime.fromtimestamp(session.now, UTC)
    reason = body.get("reason", "fraud")
    dispute = {
        "id": new_id(),
        "object": "dispute",
        "created": session.now,
        "kind": body.get("kind", "chargeback"),
        "status": "open",
        "reason": reason,
        "reason_code": REASON_CODES.get(reason),
        "amount": body.get("amount", transaction["amount"]),
        "amount_disputed": body.get("amount", transaction["amount"]),
        "amount_won": "0.00",
        "currency_iso_code": transaction["currency_iso_code"],
        "case_number": f"CB{new_id()}",
        "merchant_account_id": transaction["merchant_account_id"],
        "received_date": day.date().isoformat(),
        "reply_by_date": (day + timedelta(days=REPLY_DAYS)).date().isoformat(),
        "created_at": stamp(session),
        "updated_at": stamp(session),
        "evidence": [],
        "status_history": [{"status": "open", "timestamp": stamp(session)}],
        "transaction": {name: transaction[name] for name in ("id", "amount", "created_at", "order_id")},
    }
    transaction["disputes"] = [
        *transaction["disputes"],
        {name: dispute[name] for name in ("id", "amount", "currency_iso_code", "kind", "status")},
    ]
    session.put(transaction)
    return session.put(dispute)


def get_dispute(session: Session, identity: str) -> Doc:
    """Raises Status 404."""
    found = session.find(identity, "dispute")
    if found is None:
        raise Status(404)
    return found


def show_dispute(session: Session, identity: str, _: Doc) -> Doc:
    return get_dispute(session, identity)


def move_dispute(session: Session, dispute: Doc, status: str) -> Doc:
    dispute["status"] = status
    dispute["updated_at"] = stamp(session)
    dispute["status_history"] = [*dispute["status_history"], {"status": status, "timestamp": stamp(session)}]
    return session.put(dispute)


def accept(session: Session, identity: str, params: Doc) -> Doc:
    return answer_open(session, identity, "accepted", "95704")


def finalize(session: Session, identity: str, params: Doc) -> Doc:
    return answer_open(session, identity, "disputed", "95705")


def answer_open(session: Session, identity: str, status: str, code: str) -> Doc:
    dispute = get_dispute(session, identity)
    if dispute["status"] != "open":
        raise Refusal(code, subject="dispute")
    return move_dispute(session, dispute, status)


def add_evidence(session: Session, identity: str, params: Doc) -> Doc:
    dispute = get_dispute(session, identity)
    given: dict[str, Any] = params.get("evidence") or {}
    if dispute["status"] != "open":
        raise Refusal("95701", subject="dispute")
    category = given.get("category") or None
    if category and (category not in TEXT_CATEGORIES or dispute["reason"] not in REASON_CODES):
        raise Refusal("95713", subject="dispute")
    document = given.get("document_upload_id")
    if document and not session.find(document, "document"):
        raise Status(404)
    evidence = {
        "id": new_id(),
        "comments": given.get("comments") or None,
        "category": category,
        "created_at": stamp(session),
        "sent_to_processor_at": None,
        "url": f"https://documents.example/{document}" if document else None,
        "_document": document or "",
    }
    dispute["evidence"] = [*dispute["evidence"], evidence]
    session.put(dispute)
    return evidence


def upload_document(session: Session, _: str, params: Doc) -> Doc:
    document = {"id": new_id(), "object": "document", "created": session.now, "kind": "evidence_document"}
    kept = {"content_type": params["content_type"], "_content": params["content"]}
    return session.put(document | kept)


def show_evidence(session: Session, identity: str) -> Doc:
    """All that was given: the comments, and the files' contents, a character for each byte."""
    evidence = get_dispute(session, identity)["evidence"]
    documents = [session.find(one["_document"], "document") for one in evidence if one["_document"]]
    return {
        "comments": [one["comments"] for one in evidence if one["comments"]],
        "files": [document["_content"] for document in documents if document],
    }
