"""Stripe's wire format read into our dataclasses: pure functions over plain dicts, no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from payments.errors import GatewayMismatchError, InvalidRequestError
from payments.gateways.base import (
    CardDetails,
    ChargeResult,
    ChargeStatus,
    Decline,
    GatewayFact,
    RefundResult,
    RefundStatus,
)
from payments.kinds import OperationKind
from payments.money import Money, exponent
from payments.redaction import redact_data

Doc = Mapping[str, Any]

# How long a card authorization holds when Stripe does not say (docs.stripe.com/payments/place-a-hold).
AUTHORIZATION_HOLDS = timedelta(days=7)

# Names of our ids in the metadata of Stripe's objects.
OPERATION_ID, PAYMENT_ID, ORDER_ID = "operation_id", "payment_id", "order_id"
CAPTURE_OPERATION_ID = "capture_operation_id"

# --- money --------------------------------------------------------------------------------------------------
# Digits that Stripe counts, where they are not those of ISO 4217 (docs.stripe.com/currencies, special cases):
# UGX and ISK kept the two digits that they once had, the last two always being zero; MGA has none.
# HUF and TWD have two digits for charges as in ISO; only their payouts are whole.
WIRE_DIGITS = {"ISK": 2, "UGX": 2, "MGA": 0}


def to_wire(amount: Money) -> int:
    """Raises `InvalidRequestError` for a fraction that Stripe cannot express."""
    shift = WIRE_DIGITS.get(amount.currency, 0) - exponent(amount.currency)
    if amount.currency not in WIRE_DIGITS or shift == 0:
        return amount.minor
    if shift > 0:
        return int(amount.minor * 10**shift)
    whole, rest = divmod(amount.minor, 10**-shift)
    if rest:
        raise InvalidRequestError(f"Stripe takes whole {amount.currency} only: {amount} was not sent")
    return int(whole)


def from_wire(number: int, currency: str) -> Money:
    """What Stripe states. Raises `GatewayMismatchError` for a fraction that the currency does not have."""
    code = currency.upper()
    shift = WIRE_DIGITS.get(code, exponent(code)) - exponent(code)
    if shift <= 0:
        return Money(number * 10**-shift, code)
    whole, rest = divmod(number, 10**shift)
    if rest:
        raise GatewayMismatchError(f"Stripe states {number} {code}, which is no whole amount of {code}")
    return Money(whole, code)


# --- declines -----------------------------------------------------------------------------------------------
# Stripe's decline code -> our code and advice, after docs.stripe.com/declines/codes. What smells of theft or
# fraud must look like any other decline to the customer, so its advice says no more than theirs.
_ANY = ("card_declined", "try_another_method")
_STOLEN = ("lost_or_stolen", "try_another_method")
_FRAUD = ("suspected_fraud", "try_another_method")
_LIMIT = ("limit_exceeded", "try_another_method")
_CALL = ("call_issuer", "contact_issuer")
_LATER = ("issuer_unavailable", "try_again_later")
_UNSUPPORTED = ("not_supported", "try_another_method")
_AUTHENTICATE = ("authentication_required", "authenticate")
DECLINES: dict[str, tuple[str, str]] = {
    "insufficient_funds": ("insufficient_funds", "try_another_method"),
    "expired_card": ("expired_card", "try_another_method"),
    "incorrect_cvc": ("incorrect_cvc", "correct_details"),
    "invalid_cvc": ("incorrect_cvc", "correct_details"),
    "incorrect_number": ("incorrect_card", "correct_details"),
    "invalid_number": ("incorrect_card", "correct_details"),
    "invalid_account": ("incorrect_card", "contact_issuer"),
    "new_account_information_available": ("incorrect_card", "contact_issuer"),
    "incorrect_address": ("incorrect_address", "correct_details"),
    "incorrect_zip": ("incorrect_address", "correct_details"),
    "invalid_expiry_month": ("incorrect_expiry", "correct_details"),
    "invalid_expiry_year": ("incorrect_expiry", "correct_details"),
    "incorrect_pin": ("incorrect_pin", "correct_details"),
    "invalid_pin": ("incorrect_pin", "correct_details"),
    "offline_pin_required": ("incorrect_pin", "correct_details"),
    "online_or_offline_pin_required": ("incorrect_pin", "correct_details"),
    "lost_card": _STOLEN,
    "stolen_card": _STOLEN,
    "pickup_card": _STOLEN,
    "restricted_card": _STOLEN,
    "fraudulent": _FRAUD,
    "merchant_blacklist": _FRAUD,
    "security_violation": _FRAUD,
    "highest_risk_level": _FRAUD,
    "card_velocity_exceeded": _LIMIT,
    "withdrawal_count_limit_exceeded": _LIMIT,
    "pin_try_exceeded": _LIMIT,
    "call_issuer": _CALL,
    "do_not_honor": _CALL,
    "no_action_taken": _CALL,
    "not_permitted": _CALL,
    "service_not_allowed": _CALL,
    "transaction_not_allowed": _CALL,
    "revocation_of_all_authorizations": _CALL,
    "revocation_of_authorization": _CALL,
    "stop_payment_order": _CALL,
    "invalid_amount": ("invalid_amount", "contact_issuer"),
    "duplicate_transaction": ("duplicate_transaction", "wait_for_first"),
    "card_not_supported": _UNSUPPORTED,
    "currency_not_supported": _UNSUPPORTED,
    "testmode_decline": _UNSUPPORTED,
    "issuer_not_available": _LATER,
    "reenter_transaction": _LATER,
    "try_again_later": _LATER,
    "processing_error": ("processing_error", "try_again_later"),
    "authentication_required": _AUTHENTICATE,
    "authentication_not_handled": _AUTHENTICATE,
    "mobile_device_authentication_required": _AUTHENTICATE,
    "approve_with_id": ("authentication_required", "try_again_later"),
    "payment_intent_authentication_failure": ("authentication_failed", "authenticate"),
    "generic_decline": _ANY,
    "card_declined": _ANY,
}


def read_decline(error: Doc) -> Decline:
    """From an error answer or from an intent's last payment error."""
    gateway_code = error.get("decline_code") or error.get("code") or ""
    code, advice = DECLINES.get(gateway_code, _ANY)
    return Decline(code, gateway_code, advice, str(redact_data(error.get("message") or "")))


# --- cards --------------------------------------------------------------------------------------------------
THREE_D_SECURE = {"authenticated": "authenticated", "attempt_acknowledged": "attempted", "failed": "failed"}
_WORST_FIRST = ("fail", "pass", "unavailable", "unchecked")


def read_card(charge: Doc) -> CardDetails | None:
    """The card of an expanded charge, with the checks and the risk that were found."""
    card = (charge.get("payment_method_details") or {}).get("card")
    outcome = charge.get("outcome") or {}
    return describe_card(card, risk_score=outcome.get("risk_score")) if card else None


def describe_card(card: Doc, *, risk_score: int | None = None) -> CardDetails:
    checks = card.get("checks") or {}
    return CardDetails(
        brand=card.get("brand") or "",
        last4=card.get("last4") or "",
        country=card.get("country") or "",
        funding=card.get("funding") or "",
        exp_month=card.get("exp_month"),
        exp_year=card.get("exp_year"),
        fingerprint=card.get("fingerprint") or "",
        avs=combine_checks(checks.get("address_line1_check"), checks.get("address_postal_code_check")),
        cvc=combine_checks(checks.get("cvc_check")),
        three_d_secure=THREE_D_SECURE.get((card.get("three_d_secure") or {}).get("result") or "", ""),
        risk_score=risk_score,
    )


def combine_checks(*checks: str | None) -> str:
    """One failed part fails the whole; else one that passed is worth more than one that was not looked at."""
    return next((word for word in _WORST_FIRST if word in checks), "")


# --- results ------------------------------------------------------------------------------------------------


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
    """None while it is not captured, or when another operation of ours captured it."""
    if intent["status"] == "canceled":
        return build_result(intent, ChargeStatus.FAILED)
    captured_by = (intent.get("metadata") or {}).get(CAPTURE_OPERATION_ID, "")
    if intent["status"] != "succeeded" or (operation_id and captured_by not in ("", operation_id)):
        return None
    return build_result(intent, ChargeStatus.CAPTURED, amount=intent["amount_received"])


def read_void(intent: Doc, operation_id: str = "") -> ChargeResult | None:
    """None while the hold stands; FAILED when it was captured and cannot be released any more."""
    if intent["status"] == "canceled":
        return build_result(intent, ChargeStatus.VOIDED)
    if intent["status"] == "succeeded":
        return build_result(intent, ChargeStatus.FAILED, amount=intent["amount_received"])
    return None


_READERS: dict[OperationKind, Callable[[Doc, str], ChargeResult | None]] = {
    OperationKind.AUTHORIZE: read_authorization,
    OperationKind.CAPTURE: read_capture,
    OperationKind.VOID: read_void,
}


def build_result(intent: Doc, status: ChargeStatus, *, amount: int | None = None) -> ChargeResult:
    charge = expanded_charge(intent)
    error = intent.get("last_payment_error")
    stated = intent["amount"] if amount is None else amount
    return ChargeResult(
        status=status,
        reference=intent["id"],
        amount=from_wire(stated, intent["currency"]),
        next_action=read_next_action(intent) if status is ChargeStatus.REQUIRES_ACTION else None,
        card=read_card(charge) or read_refused_card(error),
        decline=read_decline(error) if error and status is ChargeStatus.DECLINED else None,
        expires_at=read_expiry(charge) if status is ChargeStatus.AUTHORIZED else None,
        raw=trim(intent),
    )


def expanded_charge(intent: Doc) -> Doc:
    charge = intent.get("latest_charge")
    return charge if isinstance(charge, Mapping) else {}


def read_refused_card(error: Doc | None) -> CardDetails | None:
    card = ((error or {}).get("payment_method") or {}).get("card")
    return describe_card(card) if card else None


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


def read_time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


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


# --- what is kept of an answer ------------------------------------------------------------------------------
# The fields that an operator may need: objects and states, money, the card and its checks, refusals.
# fmt: off
_KEPT = frozenset({
    # objects and their ids
    "id", "object", "type", "livemode", "created", "payment_intent", "charge", "latest_charge",
    "balance_transaction", "metadata",
    # money and state
    "amount", "amount_capturable", "amount_captured", "amount_received", "amount_refunded", "currency",
    "status", "paid", "captured", "canceled_at", "cancellation_reason", "capture_before", "reason",
    "result",
    # the card and its checks
    "payment_method_details", "card", "brand", "last4", "country", "funding", "exp_month", "exp_year",
    "fingerprint", "checks", "address_line1_check", "address_postal_code_check", "cvc_check",
    "three_d_secure", "outcome", "risk_level", "risk_score",
    # refusals
    "last_payment_error", "code", "decline_code", "message", "failure_code", "failure_message",
    "failure_reason", "network_status", "network_decline_code", "network_advice_code", "seller_message",
})
# fmt: on


def trim(doc: Doc) -> dict[str, Any]:
    """What an operator may need of an answer: no client secret, no address, no empty field, no card data."""
    kept: dict[str, Any] = redact_data(_trim(doc))
    return kept


def _trim(doc: Doc) -> dict[str, Any]:
    trimmed: dict[str, Any] = {}
    for name, value in doc.items():
        if name == "metadata":
            trimmed[name] = dict(value or {})
        elif name in _KEPT and value is not None:
            trimmed[name] = _trim(value) if isinstance(value, Mapping) else value
    return trimmed


# --- events -------------------------------------------------------------------------------------------------
_INTENT_EVENTS = {
    "payment_intent.amount_capturable_updated": OperationKind.AUTHORIZE,
    "payment_intent.requires_action": OperationKind.AUTHORIZE,
    "payment_intent.processing": OperationKind.AUTHORIZE,
    "payment_intent.payment_failed": OperationKind.AUTHORIZE,
    "payment_intent.succeeded": OperationKind.CAPTURE,
    "payment_intent.canceled": OperationKind.VOID,
}
# The last one is the name that older API versions use.
_REFUND_EVENTS = frozenset({"refund.created", "refund.updated", "refund.failed", "charge.refund.updated"})


def read_facts(event: Doc) -> list[GatewayFact]:
    """The facts in one event; none for a type that says nothing of a payment's money."""
    kind, subject = event["type"], event["data"]["object"]
    when = read_time(event["created"])
    if kind in _INTENT_EVENTS:
        return read_intent_fact(subject, _INTENT_EVENTS[kind], when)
    if kind == "charge.captured":
        return read_capture_fact(subject, when)
    if kind in _REFUND_EVENTS:
        return [read_refund_fact(subject, when)]
    if kind == "charge.refunded":
        # Newer API versions leave the refunds out here and tell of them in refund.* events alone.
        return [read_refund_fact(refund, when) for refund in (subject.get("refunds") or {}).get("data", ())]
    return []


def read_intent_fact(intent: Doc, kind: OperationKind, when: datetime) -> list[GatewayFact]:
    result = read_intent(intent, kind=kind)
    if result is None:
        return []
    metadata = intent.get("metadata") or {}
    names = {OperationKind.AUTHORIZE: OPERATION_ID, OperationKind.CAPTURE: CAPTURE_OPERATION_ID}
    return [
        GatewayFact(
            kind=kind,
            result=result,
            operation_id=metadata.get(names.get(kind, ""), ""),
            payment_id=metadata.get(PAYMENT_ID, ""),
            reference=intent["id"],
            occurred_at=when,
        )
    ]


def read_capture_fact(charge: Doc, when: datetime) -> list[GatewayFact]:
    """A charge carries the metadata that its intent had at first, so it names no capture of ours."""
    if not charge.get("payment_intent"):
        return []
    result = ChargeResult(
        status=ChargeStatus.CAPTURED,
        reference=charge["payment_intent"],
        amount=from_wire(charge["amount_captured"], charge["currency"]),
        card=read_card(charge),
        raw=trim(charge),
    )
    payment_id = (charge.get("metadata") or {}).get(PAYMENT_ID, "")
    return [
        GatewayFact(
            kind=OperationKind.CAPTURE,
            result=result,
            payment_id=payment_id,
            reference=result.reference,
            occurred_at=when,
        )
    ]


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


def find_by_metadata(docs: Sequence[Doc], name: str, value: str) -> Doc | None:
    return next((doc for doc in docs if (doc.get("metadata") or {}).get(name) == value), None)
