"""Our requests in Adyen's words: the same request is always the same on the wire."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any

from payments.errors import InvalidRequestError
from payments.gateways.adyen import wire
from payments.gateways.base import CaptureRequest, ChargeRequest, RefundRequest, VoidRequest

Doc = dict[str, Any]

REFUND_REASONS = {
    "requested_by_customer": "CUSTOMER REQUEST",
    "duplicate": "DUPLICATE",
    "fraudulent": "FRAUD",
}
KEY_LENGTH = 64
METADATA_PAIRS, METADATA_KEY_LENGTH, METADATA_VALUE_LENGTH = 20, 20, 80
# Our exemption -> additionalData.scaExemption (Adyen's AdditionalData3DSecure). It has no word for a series of equal
# amounts: that is what the processing model says.
EXEMPTIONS = {"low_value": "lowValue", "tra": "transactionRiskAnalysis"}
CARD_DATA = frozenset({"number", "cvc", "expiryMonth", "expiryYear"})


def build_charge(request: ChargeRequest) -> Doc:
    """Authorize now, capture later; 3-D Secure by redirect alone: nothing of Adyen's runs in the shop's page."""
    body: Doc = {
        "amount": wire.to_wire(request.amount),
        "reference": request.operation_id,
        **build_method(request),
        "channel": "Web",
        **build_authentication(request),
        "metadata": build_metadata(request),
    }
    if request.return_url:
        body["returnUrl"] = request.return_url
    if request.customer_email:
        body["shopperEmail"] = request.customer_email
    return body


def build_authentication(request: ChargeRequest) -> Doc:
    """Whether 3-D Secure is asked for. An exemption goes straight to the issuer, who may refuse softly (38)."""
    authentication: Doc = {"threeDSRequestData": {"nativeThreeDS": "disabled"}}
    extra: Doc = {"manualCapture": "true"}
    if request.request_three_d_secure:
        authentication["attemptAuthentication"] = "always"
    elif request.sca_exemption:
        authentication["attemptAuthentication"] = "never"
        if name := EXEMPTIONS.get(request.sca_exemption):
            extra["scaExemption"] = name
    return {"authenticationData": authentication, "additionalData": extra}


def build_method(request: ChargeRequest) -> Doc:
    """Who pays with what. A token is a stored card of its shopper, `<id>` or `<shopper>:<id>`; or `data:` and, in
    base64, the `paymentMethod` that Adyen's component made in the browser. Raises `InvalidRequestError`.
    """
    shopper = request.customer_reference or request.customer_id
    kind, _, rest = request.payment_method.rpartition(":")
    if kind == "data":
        shown: Doc = {"paymentMethod": read_component(rest), "shopperInteraction": "Ecommerce"}
    else:
        shopper = kind or shopper
        shown = build_stored(rest, model=choose_model(request))
    if request.save_payment_method:
        if not shopper:
            raise InvalidRequestError(
                "Adyen keeps a card for a customer only, and none is named; nothing was sent"
            )
        shown |= {"storePaymentMethod": True, "recurringProcessingModel": "CardOnFile"}
    return shown | ({"shopperReference": shopper} if shopper else {})


def choose_model(request: ChargeRequest) -> str:
    if request.is_merchant_initiated:
        return "UnscheduledCardOnFile"
    return "Subscription" if request.sca_exemption == "recurring" else "CardOnFile"


def build_stored(token: str, *, model: str) -> Doc:
    return {
        "paymentMethod": {"type": "scheme", "storedPaymentMethodId": token},
        "shopperInteraction": "ContAuth",
        "recurringProcessingModel": model,
    }


def read_component(text: str) -> Doc:
    """Raises `InvalidRequestError` for what cannot be read, and for card data that was not encrypted."""
    try:
        method = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError):
        method = None
    if not isinstance(method, dict):
        raise InvalidRequestError("the token is not what Adyen's component made; nothing was sent")
    if found := CARD_DATA & method.keys():
        raise InvalidRequestError(f"the token holds card data in the clear ({min(found)}); nothing was sent")
    return method


def build_metadata(request: ChargeRequest) -> dict[str, str]:
    """Our ids, and as much of the caller's own as Adyen takes; a label too long must not fail a payment."""
    ours = {
        wire.OPERATION_ID: request.operation_id,
        wire.PAYMENT_ID: request.payment_id,
        wire.ORDER_ID: request.order_id,
    }
    fitting = [
        (key, value) for key, value in request.metadata.items() if value and len(key) <= METADATA_KEY_LENGTH
    ]
    room = METADATA_PAIRS - len(ours)
    return {**{key: str(value)[:METADATA_VALUE_LENGTH] for key, value in fitting[:room]}, **ours}


def build_capture(request: CaptureRequest) -> Doc:
    return {"reference": request.operation_id, "amount": wire.to_wire(request.amount)}


def build_cancellation(request: VoidRequest) -> Doc:
    """By our own reference of the authorization where nobody knows Adyen's."""
    body: Doc = {"reference": request.operation_id}
    if not request.reference:
        body["paymentReference"] = request.authorization_id
    return body


def build_refund(request: RefundRequest) -> Doc:
    body: Doc = {"reference": request.operation_id, "amount": wire.to_wire(request.amount)}
    if request.reason in REFUND_REASONS:
        body["merchantRefundReason"] = REFUND_REASONS[request.reason]
    return body


def shorten_key(key: str) -> str:
    """Adyen takes 64 characters; what is longer becomes a digest, the same one each time."""
    return key if len(key) <= KEY_LENGTH else hashlib.sha256(key.encode()).hexdigest()
