"""Our requests in Stripe's parameters: the same request is always the same on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from payments.gateways.base import CaptureRequest, ChargeRequest, RefundRequest, VoidRequest
from payments.gateways.stripe import wire
from payments.gateways.stripe.results import Capture

Doc = dict[str, Any]

EXPAND_CHARGE = ["latest_charge"]
CANCELLATION_REASONS = frozenset({"abandoned", "duplicate", "fraudulent", "requested_by_customer"})
REFUND_REASONS = CANCELLATION_REASONS - {"abandoned"}
METADATA_KEYS, METADATA_KEY_LENGTH, METADATA_VALUE_LENGTH = 50, 40, 500  # docs.stripe.com/metadata
# Stripe allows fifty captures; each needs a key of the metadata, beside our ids and some of the caller's.
MAX_CAPTURES = 40


def build_charge(request: ChargeRequest, *, customer: str = "") -> Doc:
    """`customer` is Stripe's own. No `receipt_email`: Stripe would write to the customer in its own name."""
    params: Doc = {
        "amount": wire.to_wire(request.amount),
        "currency": request.amount.currency.lower(),
        "payment_method": request.payment_method,
        "payment_method_types": ["card"],
        "capture_method": "manual",
        "confirm": True,
        "metadata": build_metadata(
            request.metadata,
            captures=MAX_CAPTURES if request.several_captures else 1,
            operation_id=request.operation_id,
            payment_id=request.payment_id,
            order_id=request.order_id,
        ),
        "expand": EXPAND_CHARGE,
    }
    if card := build_card_options(request):
        params["payment_method_options"] = {"card": card}
    return params | build_presence(request) | build_owner(request, customer)


def build_presence(request: ChargeRequest) -> Doc:
    """Whether the cardholder is there, and where to be sent after 3-D Secure."""
    if request.is_merchant_initiated:
        return {"off_session": True}
    return {"return_url": request.return_url} if request.return_url else {}


def build_owner(request: ChargeRequest, customer: str) -> Doc:
    """Whose the card is, and whether it is kept."""
    owner: Doc = {"customer": customer} if customer else {}
    return owner | ({"setup_future_usage": "off_session"} if request.save_payment_method else {})


def build_card_options(request: ChargeRequest) -> Doc:
    options: Doc = {}
    if request.request_three_d_secure and not request.is_merchant_initiated:
        options["request_three_d_secure"] = "any"
    if request.several_captures:
        options["request_multicapture"] = "if_available"
    return options


def build_capture(request: CaptureRequest) -> Doc:
    """A final capture is sent as every account may send it, with or without multicapture."""
    amount = wire.to_wire(request.amount)
    name = f"{wire.CAPTURED_PREFIX}{request.operation_id}"
    params: Doc = {
        "amount_to_capture": amount,
        "metadata": {name: Capture(amount, request.final).to_metadata()},
        "expand": EXPAND_CHARGE,
    }
    if not request.final:
        params["final_capture"] = False
    return params


def build_release(request: VoidRequest) -> Doc:
    """After captures an intent is not canceled: a last capture of nothing lets the rest go."""
    return {
        "amount_to_capture": 0,
        "final_capture": True,
        "metadata": {wire.VOID_OPERATION_ID: request.operation_id},
        "expand": EXPAND_CHARGE,
    }


def build_cancellation(request: VoidRequest) -> Doc:
    params: Doc = {"expand": EXPAND_CHARGE}
    if request.reason in CANCELLATION_REASONS:
        params["cancellation_reason"] = request.reason
    return params


def build_refund(request: RefundRequest) -> Doc:
    """Against the payment: Stripe limits a refund by all that was captured, not by one capture."""
    params: Doc = {
        "payment_intent": request.reference,
        "amount": wire.to_wire(request.amount),
        "metadata": build_metadata({"reason": request.reason}, operation_id=request.operation_id),
    }
    if request.reason in REFUND_REASONS:
        params["reason"] = request.reason
    return params


def build_metadata(extra: Mapping[str, str], *, captures: int = 0, **ours: str) -> dict[str, str]:
    """Our ids, and as much of the caller's own as Stripe takes; a label too long must not fail a payment.

    `captures` keys are left free for the captures to come, and one for the release of their rest.
    """
    room = METADATA_KEYS - len(ours) - captures - 1
    fitting = [(key, value) for key, value in extra.items() if value and len(key) <= METADATA_KEY_LENGTH]
    return {**{key: str(value)[:METADATA_VALUE_LENGTH] for key, value in fitting[:room]}, **ours}
