"""The address that gateways deliver to."""

from __future__ import annotations

import json
from functools import lru_cache

import structlog
from django.conf import settings
from django.db import Error as DatabaseFailure
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.views.decorators.csrf import csrf_exempt

from payments.networks import parse_address
from webhooks.forgeries import retry_seconds
from webhooks.inbound import MAX_BODY_BYTES, Verdict, answer_challenge, receive
from webhooks.tasks import inbound_bell
from webhooks.verifiers import RECEIPTS

logger = structlog.stdlib.get_logger(__name__)

_ACCEPTED = b'{"received":true}'
_PROBLEMS = {
    Verdict.UNKNOWN_ACCOUNT: (404, "There is no such gateway account"),
    Verdict.NO_SECRET: (503, "The account has no webhook secret yet; nothing was stored"),
    Verdict.FOREIGN_ADDRESS: (403, "The account takes no webhooks from this address"),
    Verdict.THROTTLED: (429, "Too many bad signatures came from this address"),
    Verdict.TOO_LARGE: (413, f"The body is larger than {MAX_BODY_BYTES} bytes"),
    Verdict.INVALID_SIGNATURE: (400, "The webhook signature is invalid"),
    Verdict.OUTSIDE_WINDOW: (400, "The webhook timestamp is outside the window"),
}


@csrf_exempt
def receive_webhook(request: HttpRequest, gateway: str, account: str) -> HttpResponse:
    """`POST /webhooks/<gateway>/<account>/`: 200 only after the commit; 503 asks to come again.

    A GET is answered when it is the gateway's challenge to a new address.
    """
    if request.method == "GET" and (answer := answer_challenge(gateway, account, request.GET.dict())):
        return HttpResponse(answer, content_type="text/plain")
    if request.method != "POST":
        return _problem(request, 405, "method_not_allowed", "Webhooks are POSTed", {"Allow": "POST"})
    try:
        body = _read_body(request)
        receipt = receive(gateway, account, headers=_read_headers(request), body=body, ip=_read_ip(request))
    except UnreadablePostError:
        return _problem(request, 400, "unreadable_body", "The body broke off")
    except DatabaseFailure as error:
        logger.error("webhook_not_stored", gateway=gateway, account=account, error=str(error))
        return _problem(request, 503, "not_stored", "The webhook could not be stored", {"Retry-After": "10"})
    if receipt.verdict in _PROBLEMS:
        status, title = _PROBLEMS[receipt.verdict]
        wait = {"Retry-After": str(retry_seconds())} if status == 429 else None
        return _problem(request, status, receipt.verdict, title, wait)
    if receipt.verdict is Verdict.STORED:
        inbound_bell.ring_on_commit()
    if gateway in RECEIPTS:
        return _accept(RECEIPTS[gateway], "text/plain")
    return _accept(_ACCEPTED, "application/json")


def _accept(body: bytes, content_type: str) -> HttpResponse:
    # With its length said, since the server would send it in chunks otherwise: a third packet for every receipt.
    return HttpResponse(body, content_type=content_type, headers={"Content-Length": str(len(body))})


def _read_body(request: HttpRequest) -> bytes:
    """At most one byte more than is taken. Raises `UnreadablePostError`."""
    if request.META.get("CONTENT_LENGTH") or not request.META.get("wsgi.input_terminated"):
        return bytes(request.read(MAX_BODY_BYTES + 1))
    try:  # sent in chunks, which Django reads nothing of, and of which the server knows the end
        return bytes(request.META["wsgi.input"].read(MAX_BODY_BYTES + 1))
    except Exception as error:  # each server has exceptions of its own for chunks that are none
        raise UnreadablePostError(f"the body broke off: {type(error).__name__}") from error


def _read_headers(request: HttpRequest) -> dict[str, str]:
    # Not request.headers, which builds a mapping of all of them for the few that are wanted.
    return {
        name[5:].replace("_", "-").lower(): value
        for name, value in request.META.items()
        if name.startswith("HTTP_")
    } | {"content-type": request.META.get("CONTENT_TYPE", "")}


def _read_ip(request: HttpRequest) -> str:
    """Who sent it: behind N trusted proxies, the last entry but N-1 of what they append to X-Forwarded-For."""
    hops = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    trusted = settings.TRUSTED_PROXIES
    text = hops[-trusted] if 0 < trusted <= len(hops) else request.META.get("REMOTE_ADDR", "")
    return _parse_ip(text)


@lru_cache(maxsize=1024)  # a gateway has few addresses
def _parse_ip(text: str) -> str:
    """In its shortest form, or "" for what is none."""
    try:
        return str(parse_address(text))
    except ValueError:
        return ""


def _problem(
    request: HttpRequest, status: int, code: str, title: str, headers: dict[str, str] | None = None
) -> HttpResponse:
    """An answer by RFC 9457, as the storefront API gives."""
    problem = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "code": str(code),
        "request_id": getattr(request, "request_id", ""),
    }
    return HttpResponse(
        json.dumps(problem), status=status, content_type="application/problem+json", headers=headers
    )
