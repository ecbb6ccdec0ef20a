"""How Braintree moves money: it knows no key to repeat a request by, so what it refuses may be done, and we look."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import braintree

from payments.errors import GatewayTimeoutError, InvalidRequestError
from payments.gateways.base import (
    CaptureRequest,
    ChargeRequest,
    ChargeResult,
    ChargeStatus,
    Decline,
    FetchRequest,
    RefundRequest,
    RefundResult,
    RefundStatus,
    VoidRequest,
)
from payments.gateways.braintree import requests as build
from payments.gateways.braintree import results, wire
from payments.gateways.braintree.client import to_doc
from payments.gateways.braintree.errors import (
    NotSettledError,
    RefundDeclinedError,
    WrongStateError,
    raise_refusal,
    translated,
)
from payments.gateways.braintree.search import fetch, find_ours, find_transaction, find_void
from payments.gateways.braintree.states import authorized_amount, is_parent, read_amount
from payments.gateways.doubt import doubted, read_or_doubt
from payments.kinds import OperationKind

Doc = dict[str, Any]
MoneyRequest = ChargeRequest | CaptureRequest | VoidRequest | RefundRequest

RETRY_AFTER_SETTLEMENT = timedelta(hours=1)


def send(operation: str, request: MoneyRequest, call: Callable[..., Any], *args: object) -> Doc:
    """The transaction that Braintree answers with, declined or not. Raises for what it would not do at all."""
    with translated(operation, request.operation_id):
        answer = call(*args)
        raise_refusal(answer, f"{operation} {request.operation_id}")
        return to_doc(answer.transaction)


def authorize(sdk: braintree.BraintreeGateway, request: ChargeRequest, params: Doc) -> ChargeResult:
    sale = send("authorize", request, sdk.transaction.sale, params)
    if sale.get("gateway_rejection_reason") == "duplicate":
        sale = find_first(sdk, request, sale)
    return read_or_doubt("Braintree", results.read_authorization, sale)


def find_first(sdk: braintree.BraintreeGateway, request: ChargeRequest, rejected: Doc) -> Doc:
    """A duplicate was refused because there is a first one: that is the operation.

    Raises `GatewayTimeoutError` when Braintree does not show it (yet).
    """
    with translated("authorize", request.operation_id):
        found = find_ours(sdk, request.operation_id) or rejected
    if found["id"] == rejected["id"] or found.get("gateway_rejection_reason") == "duplicate":
        raise GatewayTimeoutError(
            f"Braintree refused {request.operation_id} as a duplicate and does not show the first"
        )
    return found


# --- captures -----------------------------------------------------------------------------------------------


def capture_whole(sdk: braintree.BraintreeGateway, request: CaptureRequest) -> ChargeResult | None:
    """None when the authorization was captured in parts, of which this must be the last one."""
    params = {"order_id": request.operation_id}
    submit = sdk.transaction.submit_for_settlement
    try:
        taken = send("capture", request, submit, request.reference, wire.to_wire(request.amount), params)
    except WrongStateError as refusal:
        return settle_capture(sdk, refusal, request)
    return read_or_doubt("Braintree", results.read_capture, taken)


def settle_capture(
    sdk: braintree.BraintreeGateway, refusal: WrongStateError, request: CaptureRequest
) -> ChargeResult | None:
    """It was captured already by this operation, or in parts: None. Else raises."""
    if done := find_capture(sdk, request):
        return done
    with translated("capture", request.operation_id):
        parent = find_transaction(sdk, request.reference)
    if parent is None or not is_parent(parent):
        raise refusal
    return None


def capture_part(sdk: braintree.BraintreeGateway, request: CaptureRequest) -> ChargeResult:
    """A transaction of its own, below the authorization."""
    params = build.build_part(request)
    submit = sdk.transaction.submit_for_partial_settlement
    try:
        part = send("capture", request, submit, request.reference, wire.to_wire(request.amount), params)
    except WrongStateError:
        if done := find_capture(sdk, request):
            return done
        raise
    return read_or_doubt("Braintree", results.read_capture, part)


def find_capture(sdk: braintree.BraintreeGateway, request: CaptureRequest) -> ChargeResult | None:
    done = fetch(sdk, FetchRequest(OperationKind.CAPTURE, request.operation_id, request.reference))
    return done if isinstance(done, ChargeResult) else None


# --- what gives back ----------------------------------------------------------------------------------------


def void(sdk: braintree.BraintreeGateway, request: VoidRequest) -> ChargeResult:
    if done := check_voidable(request, *read_void(sdk, request)):
        return done
    try:
        voided = send("void", request, sdk.transaction.void, request.reference)
    except WrongStateError:
        _, known = read_void(sdk, request)
        if known is None or known.status is not ChargeStatus.VOIDED:
            raise
        return known
    with doubted("Braintree"):
        rest = request.amount if is_parent(voided) else authorized_amount(voided)
        return results.build_result(voided, ChargeStatus.VOIDED, amount=rest)


def check_voidable(request: VoidRequest, held: Doc, known: ChargeResult | None) -> ChargeResult | None:
    """What it says when it is void already. Raises `InvalidRequestError` when it is captured."""
    if known is not None:
        if known.status is ChargeStatus.VOIDED:
            return known
        raise InvalidRequestError(f"{request.reference} is captured: it was not voided")
    if is_parent(held) and not request.is_rest:
        raise InvalidRequestError(f"{request.reference} is captured in parts: it was not voided")
    return None


def read_void(sdk: braintree.BraintreeGateway, request: VoidRequest) -> tuple[Doc, ChargeResult | None]:
    """The transaction, and whether it is void. Raises `InvalidRequestError` for one that is not known."""
    with translated("void", request.operation_id):
        held = find_transaction(sdk, request.reference)
        if held is None:
            raise InvalidRequestError(
                f"Braintree knows no transaction {request.reference}: nothing was voided"
            )
        return held, find_void(sdk, held)


def refund(sdk: braintree.BraintreeGateway, request: RefundRequest) -> RefundResult:
    target = request.capture_reference or request.reference
    params = build.build_refund(request)
    try:
        refunded = send("refund", request, sdk.transaction.refund, target, params)
    except WrongStateError:
        return refund_unsettled(sdk, request, target)
    except RefundDeclinedError as declined:
        failure = Decline("refund_failed", declined.gateway_code, "refund_by_other_means")
        return RefundResult(RefundStatus.FAILED, "", request.amount, failure)
    return read_or_doubt("Braintree", results.read_refund, refunded)


def refund_unsettled(sdk: braintree.BraintreeGateway, request: RefundRequest, target: str) -> RefundResult:
    """The cardholder never paid a voided capture, so it is given back whole; a part has to wait."""
    with translated("refund", request.operation_id):
        capture = find_transaction(sdk, target)
    if capture is None:
        raise InvalidRequestError(f"Braintree knows no transaction {target}: nothing was refunded")
    with doubted("Braintree"):
        if done := results.read_refund(capture):
            return done
        is_whole = read_amount(capture) == request.amount and not capture.get("refund_ids")
    if capture["status"] == "submitted_for_settlement" and is_whole:
        try:
            voided = send("refund", request, sdk.transaction.void, target)
            return read_or_doubt("Braintree", results.read_refund, voided)
        except WrongStateError:
            pass  # it began to settle meanwhile
    raise NotSettledError(
        f"{target} is {capture['status']}: {request.operation_id} can be refunded once it has settled",
        retry_after=int(RETRY_AFTER_SETTLEMENT.total_seconds()),
    )
