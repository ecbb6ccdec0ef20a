"""Runs a POST once per Idempotency-Key and answers every repetition with the same bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request

from payments import idempotency
from payments.api.authentication import get_client
from payments.api.errors import CONTENT_TYPE as PROBLEM_TYPE
from payments.api.errors import describe_error
from payments.errors import IdempotencyKeyMissingError, InvalidRequestError, PaymentError
from payments.idempotency import Claim, StoredAnswer
from payments.redaction import contains_card_data

MIN_KEY_LENGTH = 16
MAX_KEY_LENGTH = 255
RETRY_AFTER_SECONDS = 2
RESPOND_ASYNC = "respond-async"
# Refusals that are the outcome of the execution, and so the answer for ever; anything else frees the key.
FINAL_STATUSES = frozenset({402, 403, 409})
_COLLECTIONS = {"ord": "orders", "whe": "webhook_endpoints", "lst": "lists/entries"}  # by the prefix of an id
_FREEING_STATUSES = frozenset({400, 422, 429, 503})


@dataclass(frozen=True, slots=True)
class Answer:
    """A projection with its status."""

    status: int
    data: Mapping[str, Any]


def wants_to_wait(request: Request) -> bool:
    """Unless the caller prefers an answer at once (`Prefer: respond-async`, RFC 7240)."""
    preferences = request.headers.get("Prefer", "").split(",")
    return not any(re.split("[;=]", one)[0].strip().lower() == RESPOND_ASYNC for one in preferences)


def answer_once(
    request: Request,
    *,
    route: str,
    path: Mapping[str, str],
    perform: Callable[[Claim], Answer],
    resume: Callable[[str], Answer] | None = None,
) -> HttpResponse:
    """Performs the call under its key, resumes it if its first process died, or replays its answer.

    `route` names the operation, `path` its object. `resume` gets the id of what the first call made; without
    it, `perform` must tell by `claim.is_new`. Validate before: what is refused here is final. Raises the
    errors of `read_key` and `idempotency.claim`.
    """
    key = read_key(request)
    claim = idempotency.claim(
        scope=get_client(request).pk, route=route, key=key, payload={"path": dict(path), "body": request.data}
    )
    if claim.replay is not None:
        response = _make_response(claim.replay)
        response.headers["Idempotent-Replayed"] = "true"
    else:
        response = _run(
            claim, lambda: resume(claim.resource) if resume and claim.resource else perform(claim)
        )
    response.headers["Idempotency-Key"] = key
    if response.status_code == 202 and not wants_to_wait(request):
        response.headers["Preference-Applied"] = RESPOND_ASYNC
    return response


def read_key(request: Request) -> str:
    """The key, bare or as a quoted string (RFC 8941). Raises `InvalidRequestError` and its kin."""
    raw: str = request.META.get("HTTP_IDEMPOTENCY_KEY", "").strip()
    if not raw:
        raise IdempotencyKeyMissingError(
            "Send an Idempotency-Key, so that this call happens once. Nothing was done."
        )
    if len(raw) >= 2 and raw[0] == raw[-1] == '"':
        raw = re.sub(r"\\([\"\\])", r"\1", raw[1:-1])
    if not MIN_KEY_LENGTH <= len(raw) <= MAX_KEY_LENGTH or not raw.isascii() or not raw.isprintable():
        raise InvalidRequestError(
            f"An Idempotency-Key has {MIN_KEY_LENGTH} to {MAX_KEY_LENGTH} printable ASCII characters; "
            "nothing was done."
        )
    if contains_card_data(raw) is not None:
        raise InvalidRequestError("The Idempotency-Key looks like card data. Nothing was done.")
    return raw


def _run(claim: Claim, work: Callable[[], Answer]) -> HttpResponse:
    """An exception that is no outcome leaves the claim to its lease: who repeats the call resumes it."""
    try:
        answer = work()
    except PaymentError as error:
        if error.status in _FREEING_STATUSES:
            idempotency.abandon(claim)  # does nothing once there is an order
        if error.status not in FINAL_STATUSES or error.retriable:
            raise
        problem = describe_error(error)
        status, content_type, data = problem["status"], PROBLEM_TYPE, problem
    else:
        status, content_type, data = answer.status, "application/json", dict(answer.data)
    body = JSONRenderer().render(data)
    if status == 202:  # undecided: a repetition gets the outcome, not this answer
        idempotency.defer(claim)
        return _make_response(StoredAnswer(status, content_type, body))
    return _make_response(idempotency.complete(claim, status=status, content_type=content_type, body=body))


def _make_response(stored: StoredAnswer) -> HttpResponse:
    """The headers follow from status and body, so that a replay has the same ones."""
    response = HttpResponse(stored.body, status=stored.status, content_type=stored.content_type)
    if stored.status in (201, 202):
        response.headers["Location"] = _locate(json.loads(stored.body))
    if stored.status == 202:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def _locate(data: Mapping[str, Any]) -> str:
    kind = _COLLECTIONS.get(str(data["id"]).partition("_")[0], "refunds")
    return f"/api/v1/{kind}/{data['id']}"
