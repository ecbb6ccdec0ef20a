"""Finds what became of an operation at Braintree: by the transaction's id, or by ours as its order id."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import braintree
from braintree import TransactionSearch
from braintree.exceptions.not_found_error import NotFoundError

from payments.gateways.base import ChargeResult, FetchRequest, RefundResult
from payments.gateways.braintree.client import to_doc
from payments.gateways.braintree.errors import translated
from payments.gateways.braintree.results import read_transaction, read_void
from payments.gateways.braintree.states import REFUSALS, authorized_amount, is_parent, read_amount
from payments.kinds import OperationKind

Doc = dict[str, Any]


def fetch(sdk: braintree.BraintreeGateway, request: FetchRequest) -> ChargeResult | RefundResult | None:
    with translated("fetch", request.operation_id):
        transaction = locate(sdk, request)
        if transaction is None:
            return None
        if request.kind is OperationKind.VOID:
            return find_void(sdk, transaction)
        return read_transaction(transaction, kind=request.kind, operation_id=request.operation_id)


def find_transaction(sdk: braintree.BraintreeGateway, transaction_id: str) -> Doc | None:
    try:
        return to_doc(sdk.transaction.find(transaction_id))
    except NotFoundError:
        prove_address(sdk, transaction_id)
        return None


def find_dispute(sdk: braintree.BraintreeGateway, reference: str) -> Doc | None:
    try:
        return to_doc(sdk.dispute.find(reference))
    except NotFoundError:
        prove_address(sdk, reference)
        return None


def prove_address(sdk: braintree.BraintreeGateway, reference: str) -> None:
    """The SDK keeps no body of a 404, and behind a wrong address nothing would ever be found.

    Raises `NotFoundError` when the search, which always answers, is not there either.
    """
    sdk.transaction.search(TransactionSearch.id == reference)


def locate(sdk: braintree.BraintreeGateway, request: FetchRequest) -> Doc | None:
    known = request.own_reference or request.reference
    if request.kind is OperationKind.VOID or (request.kind is OperationKind.AUTHORIZE and known):
        # A void has no id of its own.
        return find_transaction(sdk, request.reference) if request.reference else None
    found = find_transaction(sdk, known) if known else None
    if found and found.get("order_id") == request.operation_id:
        return found
    if ours := find_ours(sdk, request.operation_id):
        return ours
    # A capture that was voided before it settled is the refund of it.
    return found if request.kind is OperationKind.REFUND else None


def find_ours(sdk: braintree.BraintreeGateway, operation_id: str) -> Doc | None:
    found = sdk.transaction.search(TransactionSearch.order_id == operation_id)
    docs = [to_doc(transaction) for transaction in found.items]
    return choose(doc for doc in docs if doc.get("order_id") == operation_id)


def choose(transactions: Iterable[Doc]) -> Doc | None:
    """The one that tells of an operation, of all that carry its id: what moved money goes before what did not.

    An id occurs twice when a request was repeated, and Braintree refused the second as a duplicate.
    """
    return min(transactions, key=rank, default=None)


def rank(transaction: Doc) -> tuple[bool, bool, str]:
    status = transaction["status"]
    no_answer = transaction.get("gateway_rejection_reason") == "duplicate"
    return no_answer, status in REFUSALS or status == "failed", str(transaction.get("created_at"))


def find_void(sdk: braintree.BraintreeGateway, held: Doc) -> ChargeResult | None:
    """After captures of parts the void is of what they left, which their parent does not say."""
    voided = read_void(held)
    if voided is None or not is_parent(held):
        return voided
    ids = held["partial_settlement_transaction_ids"]
    parts = sdk.transaction.search(TransactionSearch.ids.in_list(list(ids)))
    rest = authorized_amount(held)
    for part in parts.items:
        rest -= read_amount(to_doc(part))
    return replace(voided, amount=rest)
