"""Our requests in Braintree's parameters: the same request is always the same on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from payments.gateways.base import CaptureRequest, ChargeRequest, RefundRequest
from payments.gateways.braintree import wire

Doc = dict[str, Any]
# Our exemption -> Braintree's `sca_exemption`; a series of equal amounts is a source of transactions there.
EXEMPTIONS = {"low_value": "low_value", "tra": "transaction_risk_analysis"}


def build_charge(request: ChargeRequest, merchant_accounts: Mapping[str, str]) -> Doc:
    """Metadata stays here: Braintree takes none but fields that were set up in its control panel."""
    token = request.payment_method.removeprefix(wire.VAULT)
    is_saved = request.is_merchant_initiated or token != request.payment_method
    options: Doc = {"submit_for_settlement": False}
    params: Doc = {
        "amount": wire.to_wire(request.amount),
        "order_id": request.operation_id,
        "payment_method_token" if is_saved else "payment_method_nonce": token,
        "options": options,
    }
    if account := merchant_accounts.get(request.amount.currency):
        params["merchant_account_id"] = account
    if request.is_merchant_initiated:
        params["transaction_source"] = "unscheduled"
    elif request.request_three_d_secure:
        options["three_d_secure"] = {"required": True}
    elif request.sca_exemption:
        params |= build_exemption(request.sca_exemption)
    if request.save_payment_method and not is_saved:
        options["store_in_vault_on_success"] = True
        params |= build_owner(request)
    return params


def build_exemption(exemption: str) -> Doc:
    if exemption == "recurring":
        return {"transaction_source": "recurring"}
    return {"sca_exemption": EXEMPTIONS[exemption]}


def build_owner(request: ChargeRequest) -> Doc:
    """Whose a card becomes. No email unless it is kept: Braintree would write to the customer in its own name."""
    if request.customer_reference:
        return {"customer_id": request.customer_reference}
    return {"customer": {"email": request.customer_email}} if request.customer_email else {}


def build_part(request: CaptureRequest) -> Doc:
    return {"order_id": request.operation_id, "final_capture": request.final}


def build_refund(request: RefundRequest) -> Doc:
    return {"amount": wire.to_wire(request.amount), "order_id": request.operation_id}
