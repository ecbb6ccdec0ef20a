"""Braintree's notifications, made of a payment of ours: a form of signed XML."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlencode
from xml.etree.ElementTree import Element, SubElement, tostring

from payments.gateways.braintree.wire import to_wire
from payments.money import Money
from webhooks.simulation.subject import Movement, SimulatedEvent, Subject
from webhooks.verifiers import braintree

Doc = dict[str, Any]
HAS_WINDOW = False  # a delivery is repeated for a day, and the signature has no time
SENDS_BATCHES = False
REPLY_TIME = timedelta(days=10)


def write(names: Sequence[str], subject: Subject) -> Doc:
    [name] = names
    return {
        "timestamp": subject.now,
        "kind": name.partition(":")[0],
        "subject": EVENTS[name].make(subject),
    }


def seal(content: Mapping[str, Any], *, secret: str, signed_at: int) -> tuple[bytes, dict[str, str]]:
    root = Element("notification")
    fill(root, content)
    payload = base64.encodebytes(tostring(root, "utf-8", xml_declaration=True)).decode()
    form = {"bt_signature": braintree.sign(payload, secret=secret), "bt_payload": payload}
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "User-Agent": "Braintree-Webhooks (simulated)",
    }
    return urlencode(form).encode(), headers


def forge_secret(secret: str) -> str:
    """Under the account's own public key."""
    return f"{secret.partition('|')[0]}|{secrets.token_hex(16)}"


# --- XML ----------------------------------------------------------------------------------------------------


def fill(element: Element, value: Any) -> None:
    """Dashed names, and a type on everything that is no text."""
    match value:
        case None:
            element.set("nil", "true")
        case Mapping():
            for name, member in value.items():
                fill(SubElement(element, name.replace("_", "-")), member)
        case list():
            element.set("type", "array")
            for member in value:
                fill(SubElement(element, "item"), member)
        case bool():
            element.set("type", "boolean")
            element.text = str(value).lower()
        case datetime():
            element.set("type", "datetime")
            element.text = f"{value:%Y-%m-%dT%H:%M:%SZ}"
        case date():
            element.set("type", "date")
            element.text = value.isoformat()
        case _:
            element.text = str(value)


# --- transactions -------------------------------------------------------------------------------------------


def make_transaction(subject: Subject, movement: Movement, status: str, **changes: Any) -> Doc:
    payment = subject.payment
    transaction: Doc = {
        "id": find_sale(subject),
        "type": "sale",
        "status": status,
        "amount": to_wire(movement.money),
        "currency_iso_code": payment.currency,
        "order_id": movement.operation_id or None,
        "created_at": payment.created_at,
        "updated_at": subject.now,
        "processor_response_code": "1000",
        "processor_response_text": "Approved",
        "refund_ids": [],
        "partial_settlement_transaction_ids": [],
    }
    return {"transaction": transaction | changes}


def find_sale(subject: Subject) -> str:
    return subject.payment.gateway_reference or make_reference(subject.name)


def make_reference(name: str) -> str:
    return f"sim{name}"


def make_capture(subject: Subject, *, status: str) -> Doc:
    """A capture of the whole is the authorization itself, one of a part is a transaction of its own."""
    capture = subject.capture()
    submitted = {
        "status": "submitted_for_settlement",
        "timestamp": subject.now,
        "amount": to_wire(capture.money),
    }
    held = submitted | {"status": "authorized", "amount": to_wire(subject.payment.total)}
    history = {"status_history": [held, submitted, submitted | {"status": status}]}
    if not is_part(subject, capture):
        return make_transaction(subject, capture, status, **history)
    part = {
        "id": capture.reference or make_reference(capture.name),
        "authorized_transaction_id": find_sale(subject),
    }
    return make_transaction(subject, capture, status, **part, **history)


def is_part(subject: Subject, capture: Movement) -> bool:
    others = [one for one in subject.find_captures() if one.pk != capture.operation_id]
    return bool(others) or (capture.operation is not None and not capture.operation.releases_rest)


def make_refund(subject: Subject, *, status: str) -> Doc:
    refund = subject.refund()
    return make_transaction(
        subject,
        refund,
        status,
        id=refund.reference or make_reference(refund.name),
        type="credit",
        refunded_transaction_id=find_sale(subject),
        status_history=[{"status": status, "timestamp": subject.now, "amount": to_wire(refund.money)}],
    )


# --- disputes -----------------------------------------------------------------------------------------------


def make_dispute(subject: Subject, *, status: str, kind: str = "chargeback") -> Doc:
    reference, amount = subject.dispute()
    authorization = subject.find_authorization()
    dispute = {
        "id": reference or make_reference(f"{subject.name}d"),
        "kind": kind,
        "status": status,
        "reason": "fraud",
        "reason_code": "83",
        "amount": to_wire(amount),
        "amount_disputed": to_wire(amount),
        "amount_won": to_wire(amount if status == "won" else Money(0, amount.currency)),
        "currency_iso_code": amount.currency,
        "case_number": f"CB{subject.name}",
        "received_date": subject.now.date(),
        "reply_by_date": (subject.now + REPLY_TIME).date(),
        "updated_at": subject.now,
        "transaction": {
            "id": find_sale(subject),
            "amount": to_wire(subject.payment.total),
            "order_id": authorization.pk,
        },
    }
    return {"dispute": dispute}


# --- of no payment ------------------------------------------------------------------------------------------


def make_check(subject: Subject) -> Doc:
    return {"check": True}


def make_disbursement(subject: Subject, *, problem: str = "") -> Doc:
    payment = subject.payment
    return {
        "disbursement": {
            "id": make_reference(subject.token),
            "amount": to_wire(payment.total),
            "disbursement_date": subject.now.date(),
            "transaction_ids": [find_sale(subject)],
            "success": not problem,
            "exception_message": problem or None,
            "retry": False,
        }
    }


def tell(says: str, make: Callable[..., Doc], before: str = "", **how: str) -> SimulatedEvent:
    return SimulatedEvent(says, partial(make, **how), before)


def tell_dispute(says: str, status: str, before: str = "dispute_opened", **how: str) -> SimulatedEvent:
    return tell(says, make_dispute, before, status=status, **how)


_DECLINED = "settlement_declined"
EVENTS: Mapping[str, SimulatedEvent] = {
    "check": tell("the test of the address (not read)", make_check),
    "transaction_settled": tell("a capture settled", make_capture, status="settled"),
    "transaction_settled:refund": tell("a refund settled", make_refund, status="settled"),
    "transaction_settlement_declined": tell("a capture was not settled", make_capture, status=_DECLINED),
    "transaction_settlement_declined:refund": tell("a refund was not settled", make_refund, status=_DECLINED),
    "refund_failed": tell("a refund failed", make_refund, "transaction_settled:refund", status="failed"),
    "transaction_disbursed": tell(
        "a capture was paid out (not read)", make_capture, "transaction_settled", status="settled"
    ),
    "disbursement": tell("a payout (not read)", make_disbursement),
    "disbursement_exception": tell("a payout failed (not read)", make_disbursement, problem="bank_rejected"),
    "dispute_opened": tell_dispute("a chargeback; the amount was taken", "open", ""),
    "dispute_opened:retrieval": tell_dispute("an inquiry; no money moves", "open", "", kind="retrieval"),
    "dispute_under_review": tell_dispute("Braintree looks at the evidence", "under_review"),
    "dispute_disputed": tell_dispute("evidence was submitted", "disputed"),
    "dispute_won": tell_dispute("decided for us", "won"),
    "dispute_lost": tell_dispute("decided against us", "lost"),
    "dispute_accepted": tell_dispute("we gave in", "accepted"),
    "dispute_auto_accepted": tell_dispute("Braintree gave in for us", "auto_accepted"),
    "dispute_expired": tell_dispute("nobody answered in time", "expired"),
}
