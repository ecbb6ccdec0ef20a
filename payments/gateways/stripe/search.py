"""Finds what became of an operation at Stripe: by reference, by our id in the metadata, or by age."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import stripe

from payments.gateways.base import FetchRequest
from payments.gateways.stripe import wire
from payments.gateways.stripe.client import to_doc
from payments.gateways.stripe.errors import is_missing
from payments.gateways.stripe.requests import EXPAND_CHARGE
from payments.kinds import OperationKind

Doc = dict[str, Any]

KEY_LIFETIME = timedelta(hours=24)  # Stripe forgets a key after it, so nothing is sent again later
CLOCK_SKEW = timedelta(minutes=5)  # between our clock and Stripe's, when objects are searched by their age


def find_intent(client: stripe.StripeClient, request: FetchRequest) -> Doc | None:
    if request.reference:
        return retrieve_intent(client, request.reference)
    name, query = search_terms(request)
    hits = client.v1.payment_intents.search({"query": query, "limit": 2})
    found = [to_doc(hit) for hit in hits.data] or list_recent(client, "payment_intents", request.since)
    match = next((doc for doc in found if names_operation(doc, name, request)), None)
    return retrieve_intent(client, match["id"]) if match else None


def retrieve_intent(client: stripe.StripeClient, reference: str) -> Doc | None:
    try:
        params: Any = {"expand": EXPAND_CHARGE}
        return to_doc(client.v1.payment_intents.retrieve(reference, params))
    except stripe.InvalidRequestError as error:
        if is_missing(error):
            return None
        raise


def find_refund(client: stripe.StripeClient, request: FetchRequest) -> Doc | None:
    try:
        if request.own_reference:
            return to_doc(client.v1.refunds.retrieve(request.own_reference))
        if not request.reference:
            found = list_recent(client, "refunds", request.since)
        else:
            page = client.v1.refunds.list({"payment_intent": request.reference, "limit": 100})
            found = [to_doc(refund) for refund in page.auto_paging_iter()]
    except stripe.InvalidRequestError as error:
        if is_missing(error):
            return None
        raise
    match = wire.find_by_metadata(found, wire.OPERATION_ID, request.operation_id)
    return dict(match) if match else None


def list_recent(client: stripe.StripeClient, kind: str, since: datetime | None) -> list[Doc]:
    """Objects as old as an operation begun at `since` can have made."""
    if since is None:
        return []
    window = {
        "gte": int((since - CLOCK_SKEW).timestamp()),
        "lte": int((since + KEY_LIFETIME).timestamp()),
    }
    service: Any = getattr(client.v1, kind)
    page = service.list({"created": window, "limit": 100})
    return [to_doc(item) for item in page.auto_paging_iter()]


def search_terms(request: FetchRequest) -> tuple[str, str]:
    """Where our operation's id stands in an intent's metadata, and Stripe's query for it.

    A capture's id is part of a key there, and what has that key is what does not lack it (docs.stripe.com/search).
    """
    if request.kind is OperationKind.CAPTURE:
        name = f"{wire.CAPTURED_PREFIX}{request.operation_id}"
        return name, f"-metadata['{name}']:null"
    name = wire.VOID_OPERATION_ID if request.kind is OperationKind.VOID else wire.OPERATION_ID
    return name, f"metadata['{name}']:'{request.operation_id}'"


def names_operation(doc: Doc, name: str, request: FetchRequest) -> bool:
    """A search may be out of date or inexact: only the metadata itself is believed."""
    metadata = doc.get("metadata") or {}
    if request.kind is OperationKind.CAPTURE:
        return name in metadata
    return metadata.get(name) == request.operation_id
