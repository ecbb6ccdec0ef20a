"""Modifications: captures, cancels and refunds, each only received at first, and ended by a notification."""

from payments.sandbox.books import Session

from . import ledger, notifications
from .cards import find_card
from .payments import check_account, find_by_own_reference, find_payment
from .wire import Doc, amount, new_reference, refuse, show_amount, text

TOO_MUCH = "Insufficient balance on payment"


def open_amount(payment: Doc) -> int:
    """What may still be captured or released."""
    if payment["status"] != "authorised":
        return 0
    return int(payment["amount"]) - int(payment["captured"]) - int(payment["released"])


def receive(body: Doc, payment_reference: str, own: str) -> Doc:
    return {
        "merchantAccount": body["merchantAccount"],
        "paymentPspReference": payment_reference,
        "pspReference": own,
        "reference": body.get("reference", ""),
        "status": "received",
    }


def read_change(session: Session, body: Doc, payment_reference: str) -> tuple[Doc, int, str]:
    """The payment, the amount and the modification's new reference. Raises ApiError."""
    check_account(body)
    payment = find_payment(session, payment_reference)
    value, currency = amount(body)
    if currency != payment["currency"]:
        raise refuse("138", f"Unsupported currency specified: {currency}")
    return payment, value, new_reference()


# --- captures -----------------------------------------------------------------------------------------------


def capture(session: Session, body: Doc, payment_reference: str) -> Doc:
    payment, value, own = read_change(session, body, payment_reference)
    card = find_card(payment["_token"])
    reference = str(body.get("reference") or "")
    reason = TOO_MUCH if value > open_amount(payment) else "Refused" if card.capture == "refused" else ""
    if not reason:
        take(session, payment, value, own, reference)
    else:
        session.record("capture_failed", payment, value)
    notifications.emit(
        session,
        "CAPTURE",
        payment,
        value=value,
        own=own,
        reference=reference,
        success=not reason,
        reason=reason,
    )
    if not reason and card.capture == "fails":
        fail_capture(session, payment, value, own, reference)
    return {**receive(body, payment_reference, own), "amount": show_amount(value, payment["currency"])}


def take(session: Session, payment: Doc, value: int, own: str, reference: str) -> None:
    """Without consent for several captures the first one releases the rest."""
    payment["captured"] += value
    session.record("capture", payment, value, own)
    ledger.settle(session, payment, value, own, reference)
    if not session.setting("several_captures", False):
        release(session, payment, open_amount(payment), "expire")
    session.put(payment)


def fail_capture(session: Session, payment: Doc, value: int, own: str, reference: str) -> None:
    """The scheme refuses what Adyen had accepted."""
    payment["captured"] -= value
    session.put(payment)
    session.record("capture_failed", payment, value)
    ledger.write(session, payment, "CaptureFailed", own=own, reference=reference, payable=-value)
    notifications.emit(
        session,
        "CAPTURE_FAILED",
        payment,
        value=value,
        own=own,
        reference=reference,
        reason="Capture Failed",
    )


# --- cancels ------------------------------------------------------------------------------------------------


def cancel(session: Session, body: Doc, payment_reference: str) -> Doc:
    check_account(body)
    payment = find_payment(session, payment_reference)
    own = new_reference()
    end_hold(session, payment, "CANCELLATION", own, str(body.get("reference") or ""))
    return receive(body, payment_reference, own)


def cancel_by_own_reference(session: Session, body: Doc) -> Doc:
    """The technical cancel: it is received for any reference, and its notification names the payment's own."""
    account = check_account(body)
    wanted, own = text(body, "paymentReference"), new_reference()
    payment = find_by_own_reference(session, wanted)
    if payment is not None:
        end_hold(session, payment, "TECHNICAL_CANCEL", own, wanted)
    return {
        "merchantAccount": account,
        "paymentReference": wanted,
        "pspReference": own,
        "reference": body.get("reference", ""),
        "status": "received",
    }


def end_hold(session: Session, payment: Doc, code: str, own: str, reference: str) -> None:
    """Release what is not captured; a payment that waits for its customer is called off."""
    is_waiting, value = payment["status"] == "pending", open_amount(payment)
    if is_waiting or value:
        release(session, payment, value, "cancel")
        if is_waiting or not payment["captured"]:
            payment["status"] = "cancelled"
        session.put(payment)
    notifications.emit(
        session,
        code,
        payment,
        value=value or payment["amount"],
        own=own,
        reference=reference,
        success=is_waiting or value > 0,
        reason="" if is_waiting or value else "Transaction has nothing left to cancel",
    )


def release(session: Session, payment: Doc, value: int, operation: str) -> None:
    if value:
        payment["released"] += value
        session.record(operation, payment, value)
        ledger.write(session, payment, "Cancelled", authorised=-value)


def expire(session: Session, payment: Doc) -> Doc:
    """The scheme lets go of what was not captured."""
    value = open_amount(payment)
    release(session, payment, value, "expire")
    session.put(payment)
    if value:
        notifications.emit(session, "EXPIRE", payment, value=value)
    return payment


# --- refunds ------------------------------------------------------------------------------------------------


def refund(session: Session, body: Doc, payment_reference: str) -> Doc:
    payment, value, own = read_change(session, body, payment_reference)
    reference, behaviour = str(body.get("reference") or ""), find_card(payment["_token"]).refund
    reason = ""
    if not payment["captured"]:
        reason = "Transaction hasn't been captured, refund not possible"
    elif value > payment["captured"] - payment["refunded"]:
        reason = TOO_MUCH
    elif behaviour == "refused":
        reason = "Refused"
    if not reason:
        payment["refunded"] += value
        session.put(payment)
        session.record("refund", payment, value, own)
        ledger.give_back(session, payment, value, own, reference)
    notifications.emit(
        session,
        "REFUND",
        payment,
        value=value,
        own=own,
        reference=reference,
        success=not reason,
        reason=reason,
    )
    if not reason and behaviour in ("fails", "reversed"):
        return_refund(session, payment, value, own, reference, behaviour)
    return {**receive(body, payment_reference, own), "amount": show_amount(value, payment["currency"])}


def return_refund(
    session: Session, payment: Doc, value: int, own: str, reference: str, behaviour: str
) -> None:
    """The money comes back."""
    code = "REFUND_FAILED" if behaviour == "fails" else "REFUNDED_REVERSED"
    payment["refunded"] -= value
    session.put(payment)
    session.record("refund_failed", payment, value)
    record = "RefundFailed" if behaviour == "fails" else "RefundedReversed"
    ledger.write(session, payment, record, own=own, reference=reference, payable=value)
    notifications.emit(
        session, code, payment, value=value, own=own, reference=reference, reason="Refund Failed"
    )
