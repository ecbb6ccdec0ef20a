"""Our answer to a dispute put into Stripe's fields: pure functions, no network."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from payments.errors import InvalidRequestError
from payments.gateways.base import EvidenceFile, EvidenceRequest
from payments.kinds import EVIDENCE_KINDS

# Which of Stripe's fields takes a text of our kind, and which a file (docs.stripe.com/api/disputes/evidence_object).
# What is not here goes to Stripe's fields for the rest.
TEXT_FIELDS = {
    "product_description": "product_description",
    "shipping_tracking_number": "shipping_tracking_number",
    "refund_policy": "refund_policy_disclosure",
    "cancellation_policy": "cancellation_policy_disclosure",
    "duplicate_charge_explanation": "duplicate_charge_explanation",
    "access_activity_log": "access_activity_log",
}
FILE_FIELDS = {
    "customer_communication": "customer_communication",
    "receipt": "receipt",
    "shipping_documentation": "shipping_documentation",
    "service_documentation": "service_documentation",
    "refund_policy": "refund_policy",
    "cancellation_policy": "cancellation_policy",
    "duplicate_charge_explanation": "duplicate_charge_documentation",
}
REST_TEXT, REST_FILE = "uncategorized_text", "uncategorized_file"
TEXT_LENGTH, ALL_TEXTS_LENGTH = 20_000, 150_000


class NamedFile(io.BytesIO):
    """A file as the SDK reads it; Stripe finds its type from its content."""

    def __init__(self, file: EvidenceFile) -> None:
        super().__init__(file.content)
        self.name = file.name


def build_texts(request: EvidenceRequest) -> dict[str, str]:
    """Stripe's fields and their texts. Raises `InvalidRequestError` for what Stripe would not take."""
    check_kinds(request)
    fields: dict[str, str] = {}
    rest = []
    for kind, text in request.texts.items():
        if kind in TEXT_FIELDS:
            fields[TEXT_FIELDS[kind]] = text
        else:
            rest.append(text if kind == "uncategorized" else f"{kind.replace('_', ' ').capitalize()}: {text}")
    if rest:
        fields[REST_TEXT] = "\n\n".join(rest)
    for field, text in fields.items():
        if len(text) > TEXT_LENGTH:
            raise refuse(request, f"{field} has {len(text)} characters, Stripe takes {TEXT_LENGTH}")
    if (length := sum(map(len, fields.values()))) > ALL_TEXTS_LENGTH:
        raise refuse(request, f"its texts have {length} characters, Stripe takes {ALL_TEXTS_LENGTH}")
    return fields


def place_files(request: EvidenceRequest) -> dict[str, str]:
    """Stripe's field for each kind of file. Raises `InvalidRequestError` when two would share the only one left."""
    check_kinds(request)
    fields = {kind: FILE_FIELDS.get(kind, REST_FILE) for kind in request.files}
    rest = [kind for kind, field in fields.items() if field == REST_FILE]
    if len(rest) > 1:
        raise refuse(request, f"Stripe takes one file for all of {', '.join(rest)}: put them into one")
    return fields


def check_kinds(request: EvidenceRequest) -> None:
    given: Mapping[str, Any] = {**request.texts, **request.files}
    if unknown := sorted(set(given) - set(EVIDENCE_KINDS)):
        raise refuse(request, f"there is no evidence called {', '.join(unknown)}")


def refuse(request: EvidenceRequest, why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The evidence for {request.reference} cannot be sent: {why}; nothing was sent"
    )
