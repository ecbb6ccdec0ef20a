"""Adyen's answers read into our results: pure functions over plain dicts, no network."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from payments.gateways.adyen.cards import read_card, read_saved
from payments.gateways.adyen.declines import read_decline
from payments.gateways.adyen.wire import Doc, from_wire, trim
from payments.gateways.base import ChargeResult, ChargeStatus, Decline, RefundResult, RefundStatus
from payments.money import Money

# Adyen states no end of an authorization: this is what the schemes warrant at least, and below Adyen's own 28 days.
AUTHORIZATION_HOLDS = timedelta(days=7)
# ChallengeShopper and its like are for native 3-D Secure, which we switch off.
RESULTS = {
    "Authorised": ChargeStatus.AUTHORIZED,
    "Refused": ChargeStatus.DECLINED,
    "Cancelled": ChargeStatus.DECLINED,
    "Error": ChargeStatus.DECLINED,
    "RedirectShopper": ChargeStatus.REQUIRES_ACTION,
    "Pending": ChargeStatus.PENDING,
    "Received": ChargeStatus.PENDING,
}


def read_payment(answer: Doc, *, asked: Money, now: datetime, return_url: str = "") -> ChargeResult:
    """The answer to /payments and /payments/details. Raises `ValueError` for a result that we do not know.

    A redirect names no reference: its authorization does not exist before the customer has come back.
    """
    status = RESULTS.get(answer["resultCode"])
    if status is None:
        raise ValueError(f"unknown resultCode {answer['resultCode']!r}")
    is_refused = status is ChargeStatus.DECLINED
    extra = answer.get("additionalData") or {}
    return ChargeResult(
        status=status,
        reference="" if status is ChargeStatus.REQUIRES_ACTION else answer["pspReference"],
        amount=asked if is_refused else read_amount(answer, asked),
        next_action=read_next_action(answer, return_url) if status is ChargeStatus.REQUIRES_ACTION else None,
        card=read_card(answer),
        decline=read_refusal(answer) if is_refused else None,
        expires_at=now + AUTHORIZATION_HOLDS if status is ChargeStatus.AUTHORIZED else None,
        saved=read_saved(extra) if status is ChargeStatus.AUTHORIZED else None,
        raw=trim(answer),
    )


def read_amount(answer: Doc, asked: Money) -> Money:
    """What Adyen states, right or wrong; older accounts state it beside the card, or not at all."""
    if stated := answer.get("amount"):
        return from_wire(stated)
    extra = answer.get("additionalData") or {}
    if "authorisedAmountValue" in extra:
        number, code = int(extra["authorisedAmountValue"]), extra["authorisedAmountCurrency"]
        return from_wire({"value": number, "currency": code})
    return asked


def read_refusal(answer: Doc) -> Decline:
    code, reason = str(answer.get("refusalReasonCode") or ""), str(answer.get("refusalReason") or "")
    if not code and answer["resultCode"] == "Error":
        code = "4"
    return read_decline(reason, code)


def read_next_action(answer: Doc, return_url: str) -> dict[str, Any]:
    """Raises `KeyError` for anything but a redirect by GET: we asked for nothing else."""
    action = answer["action"]
    if action["type"] != "redirect" or action.get("method", "GET") != "GET":
        raise KeyError("action.url")
    return {"type": "redirect_to_url", "redirect_to_url": {"url": action["url"], "return_url": return_url}}


def read_modification(answer: Doc, *, reference: str, asked: Money) -> ChargeResult:
    """A capture or a void that was received; how it ends is told by a webhook."""
    return ChargeResult(
        status=ChargeStatus.PENDING,
        reference=answer.get("paymentPspReference") or reference,
        amount=read_amount(answer, asked),
        own_reference=read_received(answer),
        raw=trim(answer),
    )


def read_refund(answer: Doc, *, asked: Money) -> RefundResult:
    return RefundResult(
        status=RefundStatus.PENDING,
        reference=read_received(answer),
        amount=read_amount(answer, asked),
        raw=trim(answer),
    )


def read_received(answer: Doc) -> str:
    """The modification's own reference. Raises `ValueError` when Adyen does not say that it has it."""
    if answer["status"] != "received":
        raise ValueError(f"unknown status {answer['status']!r}")
    return str(answer["pspReference"])
