"""Stripe's payment intents and refunds read into our results: pure functions over plain dicts, no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from payments.gateways.base import (
    ChargeResult,
    ChargeStatus,
    Decline,
    RefundResult,
    RefundStatus,
    SavedToken,
)
from payments.gateways.stripe.cards import read_card, read_refused_card
from payments.gateways.stripe.declines import read_decline
from payments.gateways.stripe.wire import (
    CAPTURE_OPERATION_ID,
    CAPTURED_PREFIX,
    VOID_OPERATION_ID,
    Doc,
    from_wire,
    read_time,
    reference_of,
    trim,
)
from payments.kinds import OperationKind

# How long a card authorization holds when Stripe does not say (docs.stripe.com/payments/place-a-hold).
AUTHORIZATION_HOLDS = timedelta(days=7)


# --- captures -----------------------------------------------------------------------------------------------
# An intent states only how much was captured in all. Which operation took which part stands in its metadata, which
# is written in the very call that captures: both are done, or neither.


@dataclass(frozen=True, slots=True)
class Capture:
    """One capture of ours on an intent; the amount is Stripe's number."""

    amount: int
    final: bool

    def to_metadata(self) -> str:
        return f"{self.amount} final" if self.final else str(self.amount)


def read_captures(intent: Doc) -> dict[str, Capture]:
    """Our captures on an intent by operation id, oldest first as ids go. Raises `ValueError` for one defaced."""
    metadata = intent.get("metadata") or {}
    captures = {}
    for name in sorted(metadata):
        if name.startswith(CAPTURED_PREFIX):
            amount, _, final = str(metadata[name]).partition(" ")
            captures[name.removeprefix(CAPTURED_PREFIX)] = Capture(int(amount), final == "final")
    if not captures and metadata.get(CAPTURE_OPERATION_ID) and intent["status"] == "succeeded":
        captures[metadata[CAPTURE_OPERATION_ID]] = Capture(intent["amount_received"], True)
    return captures


def count_unexplained(intent: Doc) -> int:
    """What was captured beyond all captures of ours: by somebody else, or by a gateway that counts wrongly."""
    claimed = sum(capture.amount for capture in read_captures(intent).values())
    return int((intent.get("amount_received") or 0) - claimed)


def is_multicapture(intent: Doc) -> bool:
    """Whether Stripe lets this authorization be captured in parts; its charge must be expanded."""
    card = (expanded_charge(intent).get("payment_method_details") or {}).get("card") or {}
    return bool((card.get("multicapture") or {}).get("status") == "available")


# --- intents ------------------------------------------------------------------------------------------------


def read_intent(intent: Doc, *, kind: OperationKind, operation_id: str = "") -> ChargeResult | None:
    """What the intent says of one operation on it; None when that operation was not done (yet)."""
    return _READERS[kind](intent, operation_id)


def read_authorization(intent: Doc, operation_id: str = "") -> ChargeResult | None:
    """An intent that was captured since was authorized; one that was canceled holds nothing."""
    match intent["status"]:
        case "requires_capture":
            # A part may have been taken already: the hold was for the sum of both.
            held = intent["amount_capturable"] + (intent.get("amount_received") or 0)
            return build_result(intent, ChargeStatus.AUTHORIZED, amount=held)
        case "succeeded":
            return build_result(intent, ChargeStatus.AUTHORIZED)
        case "requires_action":
            return build_result(intent, ChargeStatus.REQUIRES_ACTION)
        case "canceled":
            return build_result(intent, ChargeStatus.VOIDED)
        case "requires_payment_method":
            refused = bool(intent.get("last_payment_error"))
            return build_result(intent, ChargeStatus.DECLINED if refused else ChargeStatus.FAILED)
        case _:
            return build_result(intent, ChargeStatus.PENDING)


def read_capture(intent: Doc, operation_id: str = "") -> ChargeResult | None:
    """None while it is not captured, or when other operations of ours captured it.

    The amount is what Stripe says was captured, less what others captured: never our own number echoed.
    """
    if intent["status"] == "canceled":
        return build_result(intent, ChargeStatus.FAILED)
    captures = read_captures(intent)
    if operation_id in captures:
        amount = captures[operation_id].amount + count_unexplained(intent)
        return build_capture(intent, amount)
    if captures or intent["status"] != "succeeded":
        return None
    return build_capture(intent, intent["amount_received"])


def build_capture(intent: Doc, amount: int) -> ChargeResult:
    return build_result(intent, ChargeStatus.CAPTURED, amount=amount)


def read_void(intent: Doc, operation_id: str = "") -> ChargeResult | None:
    """None while the hold stands; FAILED when it was captured and cannot be released any more."""
    if intent["status"] == "canceled":
        return build_result(intent, ChargeStatus.VOIDED)
    if intent["status"] != "succeeded":
        return None
    if is_rest_released(intent):
        return build_result(intent, ChargeStatus.VOIDED, amount=intent["amount"] - intent["amount_received"])
    return build_result(intent, ChargeStatus.FAILED, amount=intent["amount_received"])


def is_rest_released(intent: Doc) -> bool:
    """Whether something was left after the captures, and was let go by us or by time, not by a final capture."""
    captures = read_captures(intent).values()
    ran_out = captures and not any(one.final for one in captures) and not count_unexplained(intent)
    by_us = (intent.get("metadata") or {}).get(VOID_OPERATION_ID)
    if intent["status"] != "succeeded" or not (by_us or ran_out):
        return False
    return bool(intent["amount_received"] < intent["amount"])


_READERS: dict[OperationKind, Callable[[Doc, str], ChargeResult | None]] = {
    OperationKind.AUTHORIZE: read_authorization,
    OperationKind.CAPTURE: read_capture,
    OperationKind.VOID: read_void,
}


def build_result(intent: Doc, status: ChargeStatus, *, amount: int | None = None) -> ChargeResult:
    charge = expanded_charge(intent)
    error = intent.get("last_payment_error")
    stated = intent["amount"] if amount is None else amount
    is_captured = status is ChargeStatus.CAPTURED
    return ChargeResult(
        status=status,
        reference=intent["id"],
        amount=from_wire(stated, intent["currency"]),
        next_action=read_next_action(intent) if status is ChargeStatus.REQUIRES_ACTION else None,
        card=read_card(charge) or read_refused_card(error),
        decline=read_decline(error) if error and status is ChargeStatus.DECLINED else None,
        expires_at=read_expiry(charge) if status is ChargeStatus.AUTHORIZED else None,
        own_reference=reference_of(intent.get("latest_charge")) if is_captured else "",
        total_captured=from_wire(intent["amount_received"], intent["currency"]) if is_captured else None,
        is_hold_open=intent["status"] == "requires_capture" if is_captured else None,
        saved=read_saved(intent) if status is ChargeStatus.AUTHORIZED else None,
        raw=trim(intent),
    )


def expanded_charge(intent: Doc) -> Doc:
    charge = intent.get("latest_charge")
    return charge if isinstance(charge, Mapping) else {}


def read_saved(intent: Doc) -> SavedToken | None:
    """The token that an intent leaves behind, when it was made to leave one."""
    token, customer = reference_of(intent.get("payment_method")), reference_of(intent.get("customer"))
    if intent.get("setup_future_usage") != "off_session" or not (token and customer):
        return None
    return SavedToken(token, customer)


def read_next_action(intent: Doc) -> dict[str, Any] | None:
    """The redirect alone: the rest of Stripe's answer is for its own JavaScript."""
    redirect = (intent.get("next_action") or {}).get("redirect_to_url")
    if not redirect:
        return None
    return {
        "type": "redirect_to_url",
        "redirect_to_url": {"url": redirect["url"], "return_url": redirect.get("return_url") or ""},
    }


def read_expiry(charge: Doc) -> datetime | None:
    card = (charge.get("payment_method_details") or {}).get("card") or {}
    if card.get("capture_before"):
        return read_time(card["capture_before"])
    return read_time(charge["created"]) + AUTHORIZATION_HOLDS if charge else None


# --- refunds ------------------------------------------------------------------------------------------------
REFUND_STATUS = {
    "succeeded": RefundStatus.SUCCEEDED,
    "failed": RefundStatus.FAILED,
    "canceled": RefundStatus.FAILED,
}


def read_refund(refund: Doc) -> RefundResult:
    status = REFUND_STATUS.get(refund["status"], RefundStatus.PENDING)
    reason = refund.get("failure_reason") or refund["status"]
    failed = status is RefundStatus.FAILED
    return RefundResult(
        status=status,
        reference=refund["id"],
        amount=from_wire(refund["amount"], refund["currency"]),
        failure=Decline("refund_failed", reason, "refund_by_other_means") if failed else None,
        raw=trim(refund),
    )
