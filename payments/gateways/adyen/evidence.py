"""Our answer to a dispute: the defense that our evidence fits, and the documents for it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence

from payments.errors import InvalidRequestError
from payments.gateways.adyen.pdf import write_pdf
from payments.gateways.adyen.wire import Doc
from payments.gateways.base import EvidenceFile, EvidenceRequest

CONTENT_TYPES = {"application/pdf": "application/pdf", "image/jpeg": "image/jpg"}
MATERIAL = "DefenseMaterial"  # Adyen's type for a document of no type of its own
# Which of our kinds a document type asks for, by what its code speaks of.
_WORDS = {
    "shipping_documentation": ("deliver", "ship", "received", "goodsorservicesprovided"),
    "receipt": ("invoice", "receipt", "tid"),
    "refund_policy": ("refund", "credit", "return"),
    "cancellation_policy": ("cancel", "terms"),
    "customer_communication": ("communication", "cardholder", "identif"),
}


def choose_defense(reasons: Sequence[Doc], evidence: Mapping[str, EvidenceFile]) -> tuple[str, list[Doc]]:
    """The code of the defense that our evidence fits best, and the documents to supply for it.

    Raises `InvalidRequestError` when none fits: nothing was sent.
    """
    best: tuple[int, str, list[Doc]] | None = None
    for reason in reasons:
        documents = fill_documents(reason.get("defenseDocumentTypes") or (), evidence)
        if documents is not None and (best is None or len(documents) > best[0]):
            best = (len(documents), str(reason["defenseReasonCode"]), documents)
    if best is None:
        raise InvalidRequestError(
            "Adyen offers no defense that this evidence is enough for; nothing was sent"
        )
    return best[1], [*best[2], *build_rest(best[2], evidence)]


def build_rest(documents: Sequence[Doc], evidence: Mapping[str, EvidenceFile]) -> Iterator[Doc]:
    """The evidence that no type asked for, so that nothing is kept back: under the general type, or else the first."""
    codes = [document["defenseDocumentTypeCode"] for document in documents]
    supplied = {document["content"] for document in documents}
    for file in dict.fromkeys(evidence.values() if codes else ()):
        document = build_document(MATERIAL if MATERIAL in codes else codes[0], file)
        if document["content"] not in supplied:
            yield document


def fill_documents(types: Sequence[Doc], evidence: Mapping[str, EvidenceFile]) -> list[Doc] | None:
    """One document for each type that we have something for; None when a required one stays empty."""
    documents: list[Doc] = []
    for wanted in types:
        code = str(wanted["defenseDocumentTypeCode"])
        file = find_evidence(code, evidence)
        if file is not None:
            documents.append(build_document(code, file))
        elif wanted.get("requirementLevel") == "Required" and not wanted.get("available"):
            return None
    return documents


def find_evidence(code: str, evidence: Mapping[str, EvidenceFile]) -> EvidenceFile | None:
    spoken = code.lower()
    for kind, words in _WORDS.items():
        if kind in evidence and any(word in spoken for word in words):
            return evidence[kind]
    # Adyen's general type takes anything; what fits no type at all goes there too.
    return next(iter(evidence.values()), None) if code == MATERIAL else None


def build_document(code: str, file: EvidenceFile) -> Doc:
    return {
        "defenseDocumentTypeCode": code,
        "contentType": CONTENT_TYPES[file.content_type],
        "content": base64.b64encode(file.content).decode(),
    }


def collect_evidence(request: EvidenceRequest) -> dict[str, EvidenceFile]:
    """The files, and one more with all texts: Adyen has no field for a word. Raises `InvalidRequestError`."""
    for kind, file in request.files.items():
        if file.content_type not in CONTENT_TYPES:
            raise InvalidRequestError(
                f"Adyen takes PDF and JPEG: {file.name} ({kind}) is {file.content_type}; nothing was sent"
            )
    texts = {kind: text for kind, text in request.texts.items() if text.strip()}
    if not texts and not request.files:
        raise InvalidRequestError(f"There is no evidence for dispute {request.reference}; nothing was sent")
    files = dict(request.files)
    if texts:
        statement = EvidenceFile("statement.pdf", "application/pdf", write_pdf(texts))
        files = {"uncategorized": statement, **files} if "uncategorized" not in files else files
        for kind in texts:
            files.setdefault(kind, statement)
    return files
