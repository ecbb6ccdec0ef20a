"""Braintree's transactions read into our results: pure functions over plain dicts, no network."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from payments.gateways.base import ChargeResult, ChargeStatus, Decline, RefundResult, RefundStatus
from payments.gateways.braintree.cards import read_card, read_saved
from payments.gateways.braintree.declines import read_decline
from payments.gateways.braintree.states import (
    CAPTURED,
    PARENT_STATES,
    REFUSALS,
    SETTLEMENT_FAILURES,
    authorized_amount,
    is_parent,
    is_refund,
    read_amount,
    was_captured,
)
from payments.gateways.braintree.wire import Doc, read_time, trim
from payments.kinds import OperationKind
from payments.money import Money

# How long an authorization holds when Braintree does not say: its own default for cards.
AUTHORIZATION_HOLDS = timedelta(days=7)


def read_transaction(
    transaction: Doc, *, kind: OperationKind, operation_id: str = ""
) -> ChargeResult | RefundResult | None:
    """What a transaction says of one operation on it; None when that operation was not done (yet)."""
    return _READERS[kind](transaction, operation_id)


def read_authorization(transaction: Doc, operation_id: str = "") -> ChargeResult | None:
    """A transaction that was captured since was authorized; one that was voided before holds nothing."""
    status = transaction["status"]
    held = authorized_amount(transaction)
    if status == "authorized" or status in PARENT_STATES or was_captured(transaction):
        return build_result(transaction, ChargeStatus.AUTHORIZED, amount=held)
    if status in ("voided", "authorization_expired"):
        return build_result(transaction, ChargeStatus.VOIDED, amount=held)
    if status in REFUSALS or (status == "failed" and transaction.get("processor_response_code")):
        return build_result(transaction, ChargeStatus.DECLINED)
    return build_result(transaction, ChargeStatus.FAILED if status == "failed" else ChargeStatus.PENDING)


def read_capture(transaction: Doc, operation_id: str = "") -> ChargeResult | None:
    """None while it is not captured, or when another operation of ours captured it, or captured parts of it.

    A capture that was voided before it settled was a capture: its void is the refund of it.
    """
    status = transaction["status"]
    if is_parent(transaction):
        return None
    is_part = bool(transaction.get("authorized_transaction_id"))
    if status in SETTLEMENT_FAILURES:
        # Not DECLINED: it had succeeded when it was submitted, and is taken back.
        return build_result(transaction, ChargeStatus.FAILED)
    if is_part and status in REFUSALS | {"failed"}:
        return build_result(transaction, ChargeStatus.DECLINED)
    if was_captured(transaction):
        is_mine = not operation_id or transaction.get("order_id") == operation_id
        return build_result(transaction, ChargeStatus.CAPTURED) if is_mine else None
    if status in ("voided", "authorization_expired"):
        return build_result(transaction, ChargeStatus.VOIDED)
    return build_result(transaction, ChargeStatus.PENDING) if is_part else None


def read_void(transaction: Doc, operation_id: str = "") -> ChargeResult | None:
    """None while the hold stands; FAILED when it was captured and cannot be released any more."""
    status = transaction["status"]
    if is_parent(transaction):
        return build_result(transaction, ChargeStatus.VOIDED) if status != "settlement_pending" else None
    if was_captured(transaction):
        held, taken = authorized_amount(transaction), read_amount(transaction)
        if taken < held:  # the rest was released with the one capture
            return build_result(transaction, ChargeStatus.VOIDED, amount=held - taken)
        return build_result(transaction, ChargeStatus.FAILED)
    if status in ("voided", "authorization_expired"):
        return build_result(transaction, ChargeStatus.VOIDED)
    return None


def read_refund(transaction: Doc, operation_id: str = "") -> RefundResult | None:
    """A refund, or a capture that was voided before it settled, which gives all of it back."""
    if not is_refund(transaction):
        if transaction["status"] == "voided" and was_captured(transaction):
            return build_refund(transaction, RefundStatus.SUCCEEDED)
        return None
    status = transaction["status"]
    if status in CAPTURED:
        return build_refund(transaction, RefundStatus.SUCCEEDED)
    if status in REFUSALS or status in SETTLEMENT_FAILURES or status in ("failed", "voided"):
        return build_refund(transaction, RefundStatus.FAILED)
    return build_refund(transaction, RefundStatus.PENDING)


_READERS: dict[OperationKind, Callable[[Doc, str], ChargeResult | RefundResult | None]] = {
    OperationKind.AUTHORIZE: read_authorization,
    OperationKind.CAPTURE: read_capture,
    OperationKind.VOID: read_void,
    OperationKind.REFUND: read_refund,
}


# --- building -----------------------------------------------------------------------------------------------


def build_result(transaction: Doc, status: ChargeStatus, *, amount: Money | None = None) -> ChargeResult:
    is_held = status is ChargeStatus.AUTHORIZED
    is_capture = status is ChargeStatus.CAPTURED
    stated = read_amount(transaction) if amount is None else amount
    is_part = bool(transaction.get("authorized_transaction_id"))
    is_refused = status is ChargeStatus.DECLINED or (
        status is ChargeStatus.FAILED and transaction["status"] in SETTLEMENT_FAILURES
    )
    return ChargeResult(
        status=status,
        reference=transaction.get("authorized_transaction_id") or transaction["id"],
        amount=stated,
        card=read_card(transaction),
        decline=read_decline(transaction) if is_refused else None,
        expires_at=read_expiry(transaction) if is_held else None,
        own_reference=transaction["id"] if is_capture or is_part else "",
        total_captured=stated if is_capture and not is_part else None,
        saved=read_saved(transaction),
        raw=trim(transaction),
    )


def build_refund(transaction: Doc, status: RefundStatus) -> RefundResult:
    failed = status is RefundStatus.FAILED
    code = read_decline(transaction).gateway_code or transaction["status"] if failed else ""
    return RefundResult(
        status=status,
        reference=transaction["id"],
        amount=read_amount(transaction),
        failure=Decline("refund_failed", code, "refund_by_other_means") if failed else None,
        raw=trim(transaction),
    )


def read_expiry(transaction: Doc) -> datetime | None:
    if transaction.get("authorization_expires_at"):
        return read_time(transaction["authorization_expires_at"])
    created = transaction.get("created_at")
    return read_time(created) + AUTHORIZATION_HOLDS if created else None
