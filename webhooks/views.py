"""The address that gateways deliver to."""

from __future__ import annotations

import json
from ipaddress import ip_address

import structlog
from django.conf import settings
from django.db import Error as DatabaseFailure
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.views.decorators.csrf import csrf_exempt

from webhooks.inbound import MAX_BODY_BYTES, Verdict, receive
from webhooks.tasks import inbound_bell

logger = structlog.stdlib.get_logger(__name__)

_ACCEPTED = b'{"received":true}'
_PROBLEMS = {
    Verdict.UNKNOWN_ACCOUNT: (404, "There is no such gateway account"),
    Verdict.NO_SECRET: (503, "The account has no webhook secret yet; nothing was stored"),
    Verdict.TOO_LARGE: (413, f"The body is larger than {MAX_BODY_BYTES} bytes"),
    Verdict.INVALID_SIGNATURE: (400, "The webhook signature is invalid"),
    Verdict.OUTSIDE_WINDOW: (400, "The webhook timestamp is outside the window"),
}


@csrf_exempt
def receive_webhook(request: HttpRequest, gateway: str, account: str) -> HttpResponse:
    """`POST /webhooks/<gateway>/<account>/`: 200 only after the commit; 503 asks to come again."""
    if request.method != "POST":
        return _problem(request, 405, "method_not_allowed", "Webhooks are POSTed", {"Allow": "POST"})
    try:
        body = request.read(MAX_BODY_BYTES + 1)
        receipt = receive(gateway, account, headers=_read_headers(request), body=body, ip=_read_ip(request))
    except UnreadablePostError:
        return _problem(request, 400, "unreadable_body", "The body broke off")
    except DatabaseFailure as error:
        logger.error("webhook_not_stored", gateway=gateway, account=account, error=str(error))
        return _problem(request, 503, "not_stored", "The webhook could not be stored", {"Retry-After": "10"})
    if receipt.verdict in _PROBLEMS:
        status, title = _PROBLEMS[receipt.verdict]
        return _problem(request, status, receipt.verdict, title)
    if receipt.verdict is Verdict.STORED:
        inbound_bell.ring_on_commit()
    return HttpResponse(_ACCEPTED, content_type="application/json")


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
    try:
        return str(ip_address(text.strip()))
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
