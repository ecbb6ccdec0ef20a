"""The request id: taken over when it is well-formed, else made here; on every log line and every answer."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import lru_cache

import structlog
from django.http import HttpRequest, HttpResponse
from django.urls import ResolverMatch, resolve
from structlog.contextvars import bind_contextvars, clear_contextvars

from payments.ids import new_id
from payments.redaction import contains_card_data

logger = structlog.stdlib.get_logger(__name__)

REQUEST_ID_HEADER = "X-Request-ID"
_WELL_FORMED = re.compile(r"[A-Za-z0-9_-]{8,64}")


class RequestIdMiddleware:
    """Outermost, so that whatever happens inside is logged under the id and answered with it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        clear_contextvars()  # a thread that served another request, or was started by one, remembers nothing
        # Not request.headers, which reads them all for the one that is wanted.
        request_id = choose_request_id(request.META.get("HTTP_X_REQUEST_ID", ""))
        request.request_id = request_id  # type: ignore[attr-defined]
        bind_contextvars(request_id=request_id)
        started = time.perf_counter()
        try:
            response = self.get_response(request)
            response.headers[REQUEST_ID_HEADER] = request_id
            log_request(request, status=response.status_code, seconds=time.perf_counter() - started)
            return response
        finally:
            clear_contextvars()


class WebhookLaneMiddleware:
    """Takes gateway deliveries past sessions, forms and pages, which they have none of, straight to their view."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path_info.startswith("/webhooks/"):
            return self.get_response(request)
        match = request.resolver_match = resolve_in_lane(request.path_info)
        response: HttpResponse = match.func(request, *match.args, **match.kwargs)
        return response


@lru_cache(maxsize=128)
def resolve_in_lane(path: str) -> ResolverMatch:
    """The view of a path; only the lane's own addresses are looked through. Raises `Resolver404` for any other.

    A gateway always asks for the same path, so the last ones are remembered; those that lead nowhere are not.
    """
    return resolve(path.removeprefix("/webhooks"), "config.lane")


def choose_request_id(offered: str) -> str:
    """The caller's id when it has 8 to 64 of `A-Za-z0-9_-` and hides no card number, else a new `req_...`."""
    if _WELL_FORMED.fullmatch(offered) and contains_card_data(offered) is None:
        return offered
    return new_id("req")


def log_request(request: HttpRequest, *, status: int, seconds: float) -> None:
    """One line per request, with the route never the raw path: that may carry what must not be logged."""
    match = request.resolver_match
    logger.info(
        "request_finished",
        method=request.method,
        route=match.route if match else None,
        status=status,
        duration_ms=round(seconds * 1000, 1),
    )
