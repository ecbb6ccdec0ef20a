"""Stripe's events, made of a payment of ours."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from payments.gateways.stripe.wire import (
    CAPTURED_PREFIX,
    OPERATION_ID,
    ORDER_ID,
    PAYMENT_ID,
    VOID_OPERATION_ID,
    to_wire,
)
from payments.money import Money
from webhooks.simulation.subject import Movement, SimulatedEvent, Subject
from webhooks.verifiers import stripe

Doc = dict[str, Any]
HAS_WINDOW = True
SENDS_BATCHES = False
DISPUTE_FEE = 1500  # minor units
ANSWER_TIME = timedelta(days=7)


def write(names: Sequence[str], subject: Subject) -> Doc:
    [name] = names
    return {
        "id": f"evt_{secrets.token_hex(12)}",
        "object": "event",
        "type": name.partition(":")[0],
        "created": int(subject.now.timestamp()),
        "livemode": False,
        "pending_webhooks": 1,
        "data": {"object": EVENTS[name].make(subject)},
    }


def seal(content: Mapping[str, Any], *, secret: str, signed_at: int) -> tuple[bytes, dict[str, str]]:
    body = json.dumps(content, indent=2).encode()
    return body, {
        "Content-Type": "application/json; charset=utf-8",
        "Stripe-Signature": stripe.sign(body, secret=secret, timestamp=signed_at),
        "User-Agent": "Stripe/1.0 (simulated)",
    }


def forge_secret(secret: str) -> str:
    return f"whsec_{secrets.token_hex(16)}"


# --- intents ------------------------------------------------------------------------------------------------


def make_intent(subject: Subject, status: str, **changes: Any) -> Doc:
    """Before anything was captured."""
    payment, amount = subject.payment, to_wire(subject.payment.total)
    return {
        "id": find_intent(subject),
        "object": "payment_intent",
        "amount": amount,
        "amount_capturable": amount if status == "requires_capture" else 0,
        "amount_received": 0,
        "capture_method": "manual",
        "currency": payment.currency.lower(),
        "status": status,
        "created": int(payment.created_at.timestamp()),
        "latest_charge": None,
        "last_payment_error": None,
        "livemode": False,
        "metadata": make_metadata(subject),
    } | changes


def find_intent(subject: Subject) -> str:
    return subject.payment.gateway_reference or f"pi_simulated_{subject.name}"


def make_metadata(subject: Subject) -> Doc:
    payment = subject.payment
    authorization = subject.find_authorization()
    return {ORDER_ID: payment.order_id, PAYMENT_ID: payment.pk, OPERATION_ID: authorization.pk}


def make_created(subject: Subject) -> Doc:
    return make_intent(subject, "requires_payment_method")


def make_challenged(subject: Subject) -> Doc:
    url = f"https://hooks.stripe.com/redirect/authenticate/{find_intent(subject)}"
    redirect = {"url": url, "return_url": subject.payment.order.return_url or None}
    action = {"type": "redirect_to_url", "redirect_to_url": redirect}
    return make_intent(subject, "requires_action", next_action=action)


def make_processing(subject: Subject) -> Doc:
    return make_intent(subject, "processing")


def make_declined(subject: Subject) -> Doc:
    error = {"type": "card_error", "code": "card_declined", "message": "Your card was declined."}
    return make_intent(subject, "requires_payment_method", last_payment_error=error)


def make_authorized(subject: Subject) -> Doc:
    return make_intent(subject, "requires_capture", latest_charge=find_charge(subject))


def make_part_captured(subject: Subject) -> Doc:
    return make_captured(subject, "requires_capture")


def make_succeeded(subject: Subject) -> Doc:
    return make_captured(subject, "succeeded")


def make_captured(subject: Subject, status: str) -> Doc:
    """With every capture that we know of, and the one it is about."""
    capture = subject.capture()
    received = count_captured(subject, capture)
    whole = to_wire(subject.payment.total)
    metadata = make_metadata(subject) | name_captures(subject, capture)
    return make_intent(
        subject,
        status,
        amount_received=received,
        amount_capturable=max(whole - received, 0) if status == "requires_capture" else 0,
        latest_charge=find_charge(subject),
        metadata=metadata,
    )


def list_captures(subject: Subject, capture: Movement) -> list[tuple[str, Money, bool]]:
    """Each with its operation, its amount, and whether it let the rest go."""
    known = [one for one in subject.find_captures() if one.pk != capture.operation_id]
    listed = [(one.pk, one.money, one.releases_rest) for one in known]
    is_last = capture.operation is None or capture.operation.releases_rest
    return [*listed, (capture.operation_id, capture.money, is_last)]


def count_captured(subject: Subject, capture: Movement) -> int:
    return sum(to_wire(money) for _, money, _ in list_captures(subject, capture))


def name_captures(subject: Subject, capture: Movement) -> Doc:
    """Each under a key of its own, as it was sent; what was done at Stripe's own pages has none."""
    return {
        f"{CAPTURED_PREFIX}{operation_id}": f"{to_wire(money)} final" if is_last else str(to_wire(money))
        for operation_id, money, is_last in list_captures(subject, capture)
        if operation_id
    }


def make_canceled(subject: Subject) -> Doc:
    subject.void()
    if subject.find_captures():
        raise subject.refuse("was captured, so its intent is not canceled but succeeds")
    return make_intent(subject, "canceled", canceled_at=int(subject.now.timestamp()))


def make_released(subject: Subject) -> Doc:
    """After captures of parts the rest was let go, which ends the intent."""
    void, captures = subject.void(), subject.find_captures()
    if not captures:
        raise subject.refuse("was not captured, so its intent is canceled")
    taken = {f"{CAPTURED_PREFIX}{one.pk}": str(to_wire(one.money)) for one in captures}
    metadata = make_metadata(subject) | taken
    if void.operation_id:
        metadata[VOID_OPERATION_ID] = void.operation_id
    received = sum(to_wire(one.money) for one in captures)
    return make_intent(subject, "succeeded", amount_received=received, metadata=metadata)


# --- charges ------------------------------------------------------------------------------------------------


def find_charge(subject: Subject) -> str:
    return f"ch_simulated_{subject.name}"


def make_charge(subject: Subject, **changes: Any) -> Doc:
    payment = subject.payment
    return {
        "id": find_charge(subject),
        "object": "charge",
        "amount": to_wire(payment.total),
        "amount_captured": 0,
        "amount_refunded": to_wire(Money(payment.refunded, payment.currency)),
        "captured": False,
        "created": int(payment.created_at.timestamp()),
        "currency": payment.currency.lower(),
        "failure_code": None,
        "livemode": False,
        "metadata": make_metadata(subject),
        "paid": True,
        "payment_intent": find_intent(subject),
        "payment_method_details": {"type": "card", "card": {"brand": "visa", "last4": "4242"}},
        "status": "succeeded",
    } | changes


def make_charge_captured(subject: Subject) -> Doc:
    capture = subject.capture()
    parts = list_captures(subject, capture)
    is_one = len(parts) == 1 and parts[0][2]
    charge = make_charge(subject, captured=True, amount_captured=count_captured(subject, capture))
    charge["payment_method_details"]["card"]["multicapture"] = {
        "status": "unavailable" if is_one else "available"
    }
    return charge


def make_charge_failed(subject: Subject) -> Doc:
    return make_charge(subject, status="failed", paid=False, failure_code="card_declined")


def make_charge_refunded(subject: Subject) -> Doc:
    refund, captured = make_refund(subject, "succeeded"), subject.payment.captured
    return make_charge(
        subject,
        captured=True,
        amount_captured=to_wire(Money(captured, subject.payment.currency)),
        amount_refunded=refund["amount"],
    )


def make_charge_with_refund(subject: Subject) -> Doc:
    return make_charge_refunded(subject) | {"refunds": {"data": [make_refund(subject, "succeeded")]}}


# --- refunds ------------------------------------------------------------------------------------------------


def make_refund(subject: Subject, status: str) -> Doc:
    refund = subject.refund()
    return {
        "id": refund.reference or f"re_simulated_{refund.name}",
        "object": "refund",
        "amount": to_wire(refund.money),
        "charge": find_charge(subject),
        "created": int(subject.now.timestamp()),
        "currency": subject.payment.currency.lower(),
        "metadata": {OPERATION_ID: refund.operation_id} if refund.operation_id else {},
        "payment_intent": find_intent(subject),
        "reason": None,
        "status": status,
    }


def make_refund_created(subject: Subject) -> Doc:
    return make_refund(subject, "pending")


def make_refund_succeeded(subject: Subject) -> Doc:
    return make_refund(subject, "succeeded")


def make_refund_failed(subject: Subject) -> Doc:
    return make_refund(subject, "failed") | {"failure_reason": "expired_or_canceled_card"}


def make_warning(subject: Subject) -> Doc:
    return {
        "id": f"issfr_simulated_{subject.token}",
        "object": "radar.early_fraud_warning",
        "actionable": True,
        "charge": find_charge(subject),
        "created": int(subject.now.timestamp()),
        "fraud_type": "unauthorized_use_of_card",
        "livemode": False,
        "payment_intent": find_intent(subject),
    }


# --- disputes -----------------------------------------------------------------------------------------------


def make_dispute(subject: Subject, status: str, *, moved: Sequence[int] = (), answers: int = 0) -> Doc:
    """`moved`: the times that the amount left (-1) our balance and came back (1)."""
    reference, amount = subject.dispute()
    currency, seconds = subject.payment.currency, int(subject.now.timestamp())
    fees = [to_wire(Money(DISPUTE_FEE, currency)) if sign < 0 else 0 for sign in moved]
    return {
        "id": reference or f"du_simulated_{subject.name}",
        "object": "dispute",
        "amount": to_wire(amount),
        "balance_transactions": [
            {"object": "balance_transaction", "amount": sign * to_wire(amount), "currency": currency.lower()}
            | {"fee": fee, "reporting_category": "dispute" if sign < 0 else "dispute_reversal"}
            for sign, fee in zip(moved, fees, strict=True)
        ],
        "charge": find_charge(subject),
        "created": seconds,
        "currency": currency.lower(),
        "evidence_details": {
            "due_by": seconds + int(ANSWER_TIME.total_seconds()),
            "has_evidence": answers > 0,
            "past_due": False,
            "submission_count": answers,
        },
        "is_charge_refundable": not moved,
        "livemode": False,
        "metadata": {},
        "payment_intent": find_intent(subject),
        "payment_method_details": {"type": "card", "card": {"brand": "visa", "network_reason_code": "10.4"}},
        "reason": "fraudulent",
        "status": status,
    }


def make_inquiry(subject: Subject) -> Doc:
    return make_dispute(subject, "warning_needs_response")


def make_inquiry_closed(subject: Subject) -> Doc:
    return make_dispute(subject, "warning_closed", answers=1)


def make_dispute_open(subject: Subject) -> Doc:
    return make_dispute(subject, "needs_response", moved=[-1])


def make_dispute_answered(subject: Subject) -> Doc:
    return make_dispute(subject, "under_review", moved=[-1], answers=1)


def make_dispute_won(subject: Subject) -> Doc:
    return make_dispute(subject, "won", moved=[-1, 1], answers=1)


def make_dispute_lost(subject: Subject) -> Doc:
    return make_dispute(subject, "lost", moved=[-1], answers=1)


# --- of no payment ------------------------------------------------------------------------------------------


def make_payout(subject: Subject, status: str) -> Doc:
    payment = subject.payment
    return {
        "id": f"po_simulated_{subject.name}",
        "object": "payout",
        "amount": to_wire(payment.total),
        "arrival_date": int(subject.now.timestamp()),
        "automatic": True,
        "currency": payment.currency.lower(),
        "livemode": False,
        "status": status,
    }


def make_payout_pending(subject: Subject) -> Doc:
    return make_payout(subject, "pending")


def make_payout_paid(subject: Subject) -> Doc:
    return make_payout(subject, "paid")


def make_payout_failed(subject: Subject) -> Doc:
    return make_payout(subject, "failed") | {"failure_code": "account_closed"}


def make_report_run(subject: Subject) -> Doc:
    return {
        "id": f"frr_simulated_{subject.name}",
        "object": "reporting.report_run",
        "livemode": False,
        "report_type": "balance_change_from_activity.itemized.3",
        "status": "succeeded",
    }


_CREATED, _AUTHORIZED = "payment_intent.created", "payment_intent.amount_capturable_updated"
_REFUND, _DISPUTE = "refund.created", "charge.dispute.created"
EVENTS: Mapping[str, SimulatedEvent] = {
    _CREATED: SimulatedEvent("an intent that nothing was paid with yet", make_created),
    "payment_intent.requires_action": SimulatedEvent("3-D Secure is wanted", make_challenged, _CREATED),
    "payment_intent.processing": SimulatedEvent("the answer is still to come", make_processing, _CREATED),
    "payment_intent.payment_failed": SimulatedEvent("the card was declined", make_declined, _CREATED),
    _AUTHORIZED: SimulatedEvent("authorized", make_authorized, _CREATED),
    f"{_AUTHORIZED}:captured": SimulatedEvent(
        "captured in part, the rest still held", make_part_captured, _AUTHORIZED
    ),
    "payment_intent.succeeded": SimulatedEvent("captured, and the hold ended", make_succeeded, _AUTHORIZED),
    "payment_intent.succeeded:released": SimulatedEvent(
        "the rest after captures was let go", make_released, f"{_AUTHORIZED}:captured"
    ),
    "payment_intent.canceled": SimulatedEvent("voided before any capture", make_canceled, _AUTHORIZED),
    "charge.succeeded": SimulatedEvent("authorized (not read)", make_charge, _CREATED),
    "charge.failed": SimulatedEvent("the card was declined (not read)", make_charge_failed, _CREATED),
    "charge.captured": SimulatedEvent("captured once and for all", make_charge_captured, _AUTHORIZED),
    "charge.expired": SimulatedEvent("the hold ran out (not read)", make_charge, _AUTHORIZED),
    "charge.updated": SimulatedEvent("something of the charge changed (not read)", make_charge),
    "charge.refunded": SimulatedEvent(
        "refunded, without saying which refund (not read)", make_charge_refunded, _REFUND
    ),
    "charge.refunded:listed": SimulatedEvent(
        "refunded, with the refund, as older API versions say it", make_charge_with_refund, _REFUND
    ),
    _REFUND: SimulatedEvent("a refund is on its way", make_refund_created),
    "refund.updated": SimulatedEvent("a refund succeeded", make_refund_succeeded, _REFUND),
    "refund.failed": SimulatedEvent("a refund failed", make_refund_failed, _REFUND),
    "charge.refund.updated": SimulatedEvent(
        "a refund succeeded, by its older name", make_refund_succeeded, _REFUND
    ),
    _DISPUTE: SimulatedEvent("a chargeback", make_dispute_open),
    f"{_DISPUTE}:inquiry": SimulatedEvent("an inquiry; no money moves", make_inquiry),
    "charge.dispute.updated": SimulatedEvent("evidence was submitted", make_dispute_answered, _DISPUTE),
    "charge.dispute.closed:won": SimulatedEvent("the bank decided for us", make_dispute_won, _DISPUTE),
    "charge.dispute.closed:lost": SimulatedEvent("the bank decided against us", make_dispute_lost, _DISPUTE),
    "charge.dispute.closed:inquiry": SimulatedEvent(
        "an inquiry without a chargeback", make_inquiry_closed, f"{_DISPUTE}:inquiry"
    ),
    "charge.dispute.funds_withdrawn": SimulatedEvent(
        "the disputed amount was taken", make_dispute_open, _DISPUTE
    ),
    "charge.dispute.funds_reinstated": SimulatedEvent(
        "the disputed amount came back", make_dispute_won, "charge.dispute.funds_withdrawn"
    ),
    "radar.early_fraud_warning.created": SimulatedEvent("the issuer reports fraud", make_warning),
    "payout.created": SimulatedEvent("a payout is on its way (not read)", make_payout_pending),
    "payout.paid": SimulatedEvent("a payout arrived (not read)", make_payout_paid, "payout.created"),
    "payout.failed": SimulatedEvent("a payout failed (not read)", make_payout_failed, "payout.created"),
    "reporting.report_run.succeeded": SimulatedEvent("a report is ready (not read)", make_report_run),
}
