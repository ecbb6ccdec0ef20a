"""Our answer to a dispute: texts as comments, files as documents, each under Braintree's category if it has one."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import braintree

from payments.errors import InvalidRequestError
from payments.gateways.base import EvidenceFile, EvidenceRequest
from payments.gateways.braintree.errors import check, error_codes

Doc = dict[str, Any]

CATEGORY_CODES = frozenset({"95706", "95711", "95712", "95713", "95714"})
EVIDENCE_CATEGORIES = {"shipping_tracking_number": "TRACKING_NUMBER"}
FILE_CATEGORIES = {"shipping_documentation": "PROOF_OF_DELIVERY"}
EXTENSIONS = {"application/pdf": "pdf", "image/jpeg": "jpg", "image/png": "png"}


def describe_evidence(kind: str, text: str) -> str:
    """A tracking number has a field of its own; what has none says what it is."""
    return text if kind in EVIDENCE_CATEGORIES else f"{kind.replace('_', ' ').capitalize()}: {text}"


class NamedFile(io.BytesIO):
    """What the SDK reads a document from: it takes the type from the name's ending."""

    def __init__(self, file: EvidenceFile) -> None:
        """Raises `InvalidRequestError` for a type that Braintree does not take."""
        super().__init__(file.content)
        if file.content_type not in EXTENSIONS:
            raise InvalidRequestError(f"Braintree takes no {file.content_type} as evidence: nothing was sent")
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", file.name.rpartition(".")[0] or file.name).strip("-")
        self.name = f"{stem or 'evidence'}.{EXTENSIONS[file.content_type]}"


def read_texts(request: EvidenceRequest) -> dict[str, str]:
    """By our kinds, as Braintree gets them."""
    return {kind: describe_evidence(kind, text) for kind, text in request.texts.items() if text}


def find_sent(dispute: Doc) -> set[str]:
    """The texts that an earlier try has added."""
    return {str(item.get("comments") or "") for item in dispute.get("evidence") or ()}


def send_evidence(sdk: braintree.BraintreeGateway, dispute: Doc, request: EvidenceRequest) -> None:
    """Everything but what is there already; then the answer is closed, for good."""
    sent = find_sent(dispute)
    for kind, text in read_texts(request).items():
        if text not in sent:
            add = sdk.dispute.add_text_evidence
            add_evidence(add, request.reference, {"content": text}, EVIDENCE_CATEGORIES.get(kind))
    for kind, file in request.files.items():
        document = {"document_id": upload_file(sdk, file, f"submit_evidence {request.reference}")}
        add_evidence(sdk.dispute.add_file_evidence, request.reference, document, FILE_CATEGORIES.get(kind))
    check(sdk.dispute.finalize(request.reference), f"submit_evidence {request.reference}")


def add_evidence(add: Callable[..., Any], reference: str, content: Doc, category: str | None) -> None:
    """A category that the dispute's reason does not know is left away."""
    answer = add(reference, {**content, "category": category} if category else content)
    if category and CATEGORY_CODES & set(error_codes(answer)):
        answer = add(reference, content)
    check(answer, f"submit_evidence {reference}")


def upload_file(sdk: braintree.BraintreeGateway, file: EvidenceFile, subject: str) -> str:
    upload = sdk.document_upload.create({"kind": "evidence_document", "file": NamedFile(file)})
    check(upload, subject)
    return str(upload.document_upload.id)
