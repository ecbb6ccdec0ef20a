"""Adyen's notifications, made of a payment of ours; several may go in one delivery."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from payments.encryption import resolve_secret
from payments.gateways.adyen.wire import OPERATION_ID, ORDER_ID, PAYMENT_ID, to_wire
from payments.money import Money
from webhooks.simulation.subject import Movement, SimulatedEvent, Subject
from webhooks.verifiers import adyen

Doc = dict[str, Any]
HAS_WINDOW = False
SENDS_BATCHES = True
DEFENSE_TIME = timedelta(days=18)


def write(names: Sequence[str], subject: Subject) -> Doc:
    items = [EVENTS[name].make(subject) | {"eventCode": name.partition(":")[0]} for name in names]
    return {"live": "false", "notificationItems": [{"NotificationRequestItem": item} for item in items]}


def seal(content: Mapping[str, Any], *, secret: str, signed_at: int) -> tuple[bytes, dict[str, str]]:
    items = [_sign(entry["NotificationRequestItem"], secret) for entry in content["notificationItems"]]
    signed = {**content, "notificationItems": [{"NotificationRequestItem": item} for item in items]}
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": "Adyen HttpClient (simulated)",
    }
    return json.dumps(signed).encode(), headers


def _sign(item: Doc, secret: str) -> Doc:
    signature = adyen.sign(item, secret=secret)
    return {**item, "additionalData": {**item["additionalData"], "hmacSignature": signature}}


def forge_secret(secret: str) -> str:
    return secrets.token_hex(32)


# --- items --------------------------------------------------------------------------------------------------


def make_item(
    subject: Subject, money: Money, *, extra: Mapping[str, str] | None = None, **changes: Any
) -> Doc:
    """About the authorization, unless the changes say which modification it is."""
    payment, authorization = subject.payment, subject.find_authorization()
    account = resolve_secret(str(payment.account.options.get("merchant_account", "")))
    return {
        "additionalData": {
            f"metadata.{OPERATION_ID}": authorization.pk,
            f"metadata.{ORDER_ID}": payment.order_id,
            f"metadata.{PAYMENT_ID}": payment.pk,
            **(extra or {}),
        },
        "amount": to_wire(money),
        "eventDate": subject.now.isoformat(timespec="seconds"),
        "merchantAccountCode": account or "Simulated",
        "merchantReference": authorization.pk,
        "paymentMethod": "visa",
        "pspReference": find_payment(subject),
        "reason": "",
        "success": "true",
    } | changes


def find_payment(subject: Subject) -> str:
    return subject.payment.gateway_reference or make_reference(subject.name)


def make_reference(name: str) -> str:
    return f"SIM{name.upper()}"


def make_authorization(subject: Subject, *, refusal: str = "") -> Doc:
    money = subject.money(subject.payment.amount, "is of nothing")
    card = {"cardSummary": "1111", "expiryDate": "3/2030", "authCode": "053587"}
    outcome = {"success": "false", "reason": refusal} if refusal else {"reason": "053587:1111:03/2030"}
    return make_item(subject, money, extra={} if refusal else card, **outcome)


def make_adjustment(subject: Subject) -> Doc:
    money = subject.money(subject.payment.authorized, "was never authorized")
    own = make_reference(subject.token)
    return make_item(subject, money, pspReference=own, originalReference=find_payment(subject))


def make_change(subject: Subject, movement: Movement, *, refusal: str = "", extra: str = "") -> Doc:
    """The end of a modification, which has a reference of its own."""
    item = make_item(
        subject,
        movement.money,
        extra={"modification.action": extra} if extra else {},
        pspReference=movement.reference or make_reference(movement.name),
        originalReference=find_payment(subject),
    )
    if movement.operation_id:
        item["merchantReference"] = movement.operation_id
    return item | ({"success": "false", "reason": refusal} if refusal else {})


def make_capture(subject: Subject, *, refusal: str = "") -> Doc:
    return make_change(subject, subject.capture(), refusal=refusal)


def make_capture_failed(subject: Subject) -> Doc:
    return make_change(subject, subject.capture()) | {"reason": "Capture Failed"}


def make_void(subject: Subject, *, refusal: str = "", action: str = "") -> Doc:
    return make_change(subject, subject.void(), refusal=refusal, extra=action)


def make_technical_cancel(subject: Subject) -> Doc:
    """Names our authorization, not the void."""
    return make_void(subject) | {"merchantReference": subject.find_authorization().pk}


def make_expiry(subject: Subject) -> Doc:
    return make_item(subject, subject.void().money)


def make_refund(subject: Subject, *, refusal: str = "", action: str = "") -> Doc:
    return make_change(subject, subject.refund(), refusal=refusal, extra=action)


def make_refund_failed(subject: Subject) -> Doc:
    """`success` says that this notice is true: the refund was taken back."""
    return make_refund(subject) | {"reason": "Refund Failed"}


# --- disputes -----------------------------------------------------------------------------------------------


def make_dispute(subject: Subject, status: str, *, kind: str = "chargeback") -> Doc:
    reference, amount = subject.dispute()
    extra = {f"{kind}ReasonCode": "10.4", f"{kind}SchemeCode": "visa", "disputeStatus": status}
    if status in ("Undefended", "Unresponded"):
        extra["defensePeriodEndsAt"] = (subject.now + DEFENSE_TIME).isoformat(timespec="seconds")
    return make_item(
        subject,
        amount,
        extra=extra,
        pspReference=reference or make_reference(f"{subject.name}DISPUTE"),
        originalReference=find_payment(subject),
        reason="Other Fraud-Card Absent Environment",
    )


def tell_dispute(says: str, status: str, before: str = "", *, kind: str = "chargeback") -> SimulatedEvent:
    return SimulatedEvent(says, partial(make_dispute, status=status, kind=kind), before)


# --- of no payment ------------------------------------------------------------------------------------------


def make_report(subject: Subject) -> Doc:
    """Its reference is a file's name, its reason where the file is."""
    name = f"payments_accounting_report_{subject.now:%Y_%m_%d}.csv"
    address = f"https://ca-test.adyen.com/reports/download/MerchantAccount/Simulated/{name}"
    nothing = Money(0, subject.payment.currency)
    item = make_item(subject, nothing, pspReference=name, merchantReference="", reason=address)
    return item | {"additionalData": {}}


def make_notice(subject: Subject) -> Doc:
    money = subject.money(subject.payment.amount, "is of nothing")
    own = make_reference(subject.token)
    return make_item(subject, money, pspReference=own, originalReference=find_payment(subject))


def tell(says: str, make: Callable[..., Doc], before: str = "", **how: str) -> SimulatedEvent:
    return SimulatedEvent(says, partial(make, **how), before)


_HELD, _TAKEN, _BACK = "AUTHORISATION", "CAPTURE", "REFUND"
_NOTIFIED, _CHARGED, _DEFENDED = "NOTIFICATION_OF_CHARGEBACK", "CHARGEBACK", "CHARGEBACK_REVERSED"
EVENTS: Mapping[str, SimulatedEvent] = {
    _HELD: tell("authorized", make_authorization),
    f"{_HELD}:refused": tell("the card was declined", make_authorization, refusal="Refused"),
    "AUTHORISATION_ADJUSTMENT": tell("the hold was changed elsewhere", make_adjustment, _HELD),
    _TAKEN: tell("captured", make_capture, _HELD),
    f"{_TAKEN}:refused": tell("not captured", make_capture, _HELD, refusal="Insufficient balance on payment"),
    "CAPTURE_FAILED": tell("a capture was taken back by the scheme", make_capture_failed, _TAKEN),
    "CANCELLATION": tell("voided", make_void, _HELD),
    "CANCELLATION:refused": tell("not voided", make_void, _HELD, refusal="Transaction has been captured"),
    "TECHNICAL_CANCEL": tell("voided by our own reference", make_technical_cancel, _HELD),
    "CANCEL_OR_REFUND:cancel": tell("reversed, which was a void", make_void, _HELD, action="cancel"),
    "CANCEL_OR_REFUND:refund": tell("reversed, which was a refund", make_refund, _TAKEN, action="refund"),
    "EXPIRE": tell("the hold, or what was left of it, ran out", make_expiry, _HELD),
    _BACK: tell("a refund succeeded", make_refund, _TAKEN),
    f"{_BACK}:refused": tell("a refund failed", make_refund, _TAKEN, refusal="Refused"),
    "REFUND_WITH_DATA": tell("a refund with data succeeded", make_refund, _TAKEN),
    "REFUND_FAILED": tell("a refund that had succeeded failed", make_refund_failed, _BACK),
    "REFUNDED_REVERSED": tell("a refund came back from the bank", make_refund_failed, _BACK),
    "REQUEST_FOR_INFORMATION": tell_dispute("an inquiry; no money moves", "Unresponded", kind="rfi"),
    _NOTIFIED: tell_dispute("a chargeback is coming", "Undefended"),
    _CHARGED: tell_dispute("the disputed amount was taken", "Undefended", _NOTIFIED),
    "INFORMATION_SUPPLIED": tell_dispute("evidence was submitted", "Pending", _CHARGED),
    _DEFENDED: tell_dispute("the amount came back for now", "Pending", _CHARGED),
    "SECOND_CHARGEBACK": tell_dispute("the bank did not accept the defence", "Lost", _DEFENDED),
    "PREARBITRATION_OPEN": tell_dispute("the bank goes on", "Undefended", _DEFENDED),
    "PREARBITRATION_WON": tell_dispute("decided for us", "Won", "PREARBITRATION_OPEN"),
    "PREARBITRATION_LOST": tell_dispute("decided against us", "Lost", "PREARBITRATION_OPEN"),
    "DISPUTE_DEFENSE_PERIOD_ENDED": tell_dispute("nobody answered in time", "Lost", _CHARGED),
    "ISSUER_RESPONSE_TIMEFRAME_EXPIRED": tell_dispute("the bank was silent: won", "Won", _DEFENDED),
    "NOTIFICATION_OF_FRAUD": tell("the issuer reports fraud", make_notice, _TAKEN),
    "MANUAL_REVIEW_ACCEPT": tell("accepted in a review at Adyen (not read)", make_notice, _HELD),
    "MANUAL_REVIEW_REJECT": tell("rejected in a review at Adyen (not read)", make_notice, _HELD),
    "REPORT_AVAILABLE": tell("a report is ready (not read)", make_report),
}
