"""Stripe's webhook events read into facts about money: pure functions over plain dicts, no network."""

from __future__ import annotations

from datetime import datetime

from payments.gateways.base import ChargeResult, ChargeStatus, Fact, FraudWarning, GatewayFact
from payments.gateways.stripe.cards import read_card
from payments.gateways.stripe.disputes import DISPUTE_EVENTS, read_dispute
from payments.gateways.stripe.results import (
    build_capture,
    count_unexplained,
    is_rest_released,
    read_authorization,
    read_captures,
    read_refund,
    read_void,
)
from payments.gateways.stripe.wire import (
    OPERATION_ID,
    PAYMENT_ID,
    VOID_OPERATION_ID,
    Doc,
    from_wire,
    read_time,
    reference_of,
    trim,
)
from payments.kinds import OperationKind

_AUTHORIZATION_EVENTS = frozenset(
    {
        "payment_intent.requires_action",
        "payment_intent.processing",
        "payment_intent.payment_failed",
    }
)
# Each capture changes what may still be captured, and the last one ends the intent.
_CAPTURE_EVENTS = frozenset({"payment_intent.amount_capturable_updated", "payment_intent.succeeded"})
_WARNING_EVENT = "radar.early_fraud_warning.created"
# The last one is the name that older API versions use.
_REFUND_EVENTS = frozenset({"refund.created", "refund.updated", "refund.failed", "charge.refund.updated"})


def read_facts(event: Doc) -> list[Fact]:
    """The facts in one event; none for a type that says nothing of a payment's money."""
    kind, subject = event["type"], event["data"]["object"]
    when = read_time(event["created"])
    if kind in DISPUTE_EVENTS:
        return [read_dispute(subject, occurred_at=when)]
    if kind == _WARNING_EVENT:
        return [read_warning(subject, when)]
    return [*read_money_facts(kind, subject, when)]


def read_money_facts(kind: str, subject: Doc, when: datetime) -> list[GatewayFact]:
    if kind in _AUTHORIZATION_EVENTS:
        return [tell_authorization(subject, when)]
    if kind in _CAPTURE_EVENTS:
        return read_progress(subject, when)
    if kind == "payment_intent.canceled":
        return [tell_void(subject, when)]
    if kind == "charge.captured":
        return read_capture_fact(subject, when)
    if kind in _REFUND_EVENTS:
        return [read_refund_fact(subject, when)]
    if kind == "charge.refunded":
        # Newer API versions leave the refunds out here and tell of them in refund.* events alone.
        return [read_refund_fact(refund, when) for refund in (subject.get("refunds") or {}).get("data", ())]
    return []


def read_warning(warning: Doc, when: datetime) -> FraudWarning:
    """One of a charge without an intent names the charge alone (docs.stripe.com/api/radar/early_fraud_warnings)."""
    return FraudWarning(
        reference=warning["id"],
        payment_reference=reference_of(warning.get("payment_intent")) or reference_of(warning["charge"]),
        reason=warning.get("fraud_type") or "",
        occurred_at=when,
        raw=trim(warning),
    )


# --- intents ------------------------------------------------------------------------------------------------


def read_progress(intent: Doc, when: datetime) -> list[GatewayFact]:
    """How far an intent has come: authorized, each capture by its own operation, the rest released.

    What was told before is told again, which does nothing again.
    """
    captures = read_captures(intent)
    facts = [
        tell(intent, OperationKind.CAPTURE, build_capture(intent, capture.amount), when, operation_id)
        for operation_id, capture in captures.items()
    ]
    is_ended, unexplained = intent["status"] == "succeeded", count_unexplained(intent)
    if not captures and not is_ended:
        facts.append(tell_authorization(intent, when))
    if unexplained > 0 or (is_ended and not captures):
        facts.append(tell(intent, OperationKind.CAPTURE, build_capture(intent, unexplained), when))
    if is_rest_released(intent):
        facts.append(tell_void(intent, when))
    return facts


def tell_authorization(intent: Doc, when: datetime) -> GatewayFact:
    operation_id = (intent.get("metadata") or {}).get(OPERATION_ID, "")
    return tell(intent, OperationKind.AUTHORIZE, read_authorization(intent), when, operation_id)


def tell_void(intent: Doc, when: datetime) -> GatewayFact:
    """A cancellation takes no metadata: only the release of a rest names its operation."""
    operation_id = (intent.get("metadata") or {}).get(VOID_OPERATION_ID, "")
    return tell(intent, OperationKind.VOID, read_void(intent), when, operation_id)


def tell(
    intent: Doc, kind: OperationKind, result: ChargeResult | None, when: datetime, operation_id: str = ""
) -> GatewayFact:
    """Raises `ValueError` when the intent does not say what its event is called."""
    if result is None:
        raise ValueError(f"an intent that is {intent['status']} says nothing of {kind}")
    return GatewayFact(
        kind=kind,
        result=result,
        operation_id=operation_id,
        payment_id=(intent.get("metadata") or {}).get(PAYMENT_ID, ""),
        reference=intent["id"],
        occurred_at=when,
    )


# --- charges and refunds ------------------------------------------------------------------------------------


def read_capture_fact(charge: Doc, when: datetime) -> list[GatewayFact]:
    """A charge carries the metadata that its intent had at first, so it names no capture of ours.

    Of one that may be captured in parts it says only the sum; there the intent's own events tell the parts.
    """
    card = (charge.get("payment_method_details") or {}).get("card") or {}
    in_parts = (card.get("multicapture") or {}).get("status") == "available"
    if not charge.get("payment_intent") or in_parts:
        return []
    fact = GatewayFact(
        kind=OperationKind.CAPTURE,
        result=read_captured_charge(charge),
        payment_id=(charge.get("metadata") or {}).get(PAYMENT_ID, ""),
        reference=charge["payment_intent"],
        occurred_at=when,
    )
    return [fact]


def read_captured_charge(charge: Doc) -> ChargeResult:
    return ChargeResult(
        status=ChargeStatus.CAPTURED,
        reference=charge["payment_intent"],
        amount=from_wire(charge["amount_captured"], charge["currency"]),
        card=read_card(charge),
        own_reference=charge["id"],
        raw=trim(charge),
    )


def read_refund_fact(refund: Doc, when: datetime) -> GatewayFact:
    metadata = refund.get("metadata") or {}
    return GatewayFact(
        kind=OperationKind.REFUND,
        result=read_refund(refund),
        operation_id=metadata.get(OPERATION_ID, ""),
        payment_id=metadata.get(PAYMENT_ID, ""),
        reference=refund.get("payment_intent") or "",
        occurred_at=when,
    )
