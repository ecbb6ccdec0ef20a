"""Every failure as application/problem+json (RFC 9457), by one table from exception to status and code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import structlog
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from rest_framework import exceptions
from rest_framework.response import Response

from payments.api.parsers import BodyTooLargeError, CardDataError
from payments.errors import PaymentError

logger = structlog.stdlib.get_logger(__name__)

CONTENT_TYPE = "application/problem+json"
TYPE_PREFIX = "/api/docs/errors#"
RETRY_AFTER_SECONDS = 1
MAX_ERRORS = 50
# Members of a PaymentError's details that a storefront may see.
PUBLIC_DETAILS = ("decline_code", "advice", "gateway_code", "order", "sku", "country", "state", "left")

# code: (status, title). The codes of the PaymentError tree are added by `all_codes`.
API_CODES: dict[str, tuple[int, str]] = {
    "invalid_request": (400, "The request is invalid"),
    "invalid_json": (400, "The body is not acceptable JSON"),
    "invalid_cursor": (400, "The cursor is not one of ours"),
    "unauthorized": (401, "A valid API key is required"),
    "insufficient_scope": (403, "The API key may not do this"),
    "not_found": (404, "There is no such object"),
    "method_not_allowed": (405, "The method is not allowed here"),
    "not_acceptable": (406, "Only JSON can be answered"),
    "order_canceled": (409, "The order was canceled"),
    "order_expired": (409, "The order has expired"),
    "body_too_large": (413, "The body is too large"),
    "unsupported_media_type": (415, "Only uncompressed UTF-8 JSON is understood"),
    "card_data_refused": (422, "Card data is not accepted"),
    "rate_limited": (429, "Too many requests"),
    "internal_error": (500, "Something went wrong here"),
    "service_unavailable": (503, "The service is not available now"),
}
_DRF_CODES: tuple[tuple[type[exceptions.APIException], str], ...] = (
    (BodyTooLargeError, "body_too_large"),
    (CardDataError, "card_data_refused"),
    (exceptions.ParseError, "invalid_json"),
    (exceptions.ValidationError, "invalid_request"),
    (exceptions.AuthenticationFailed, "unauthorized"),
    (exceptions.NotAuthenticated, "unauthorized"),
    (exceptions.PermissionDenied, "insufficient_scope"),
    (exceptions.NotFound, "not_found"),
    (exceptions.MethodNotAllowed, "method_not_allowed"),
    (exceptions.NotAcceptable, "not_acceptable"),
    (exceptions.UnsupportedMediaType, "unsupported_media_type"),
    (exceptions.Throttled, "rate_limited"),
)


class InvalidCursorError(exceptions.APIException):
    """The page cursor was made elsewhere, for somebody else, or altered."""

    status_code = 400
    default_detail = "The cursor is not one of ours. Start again without it."
    default_code = "invalid_cursor"


class ParameterError(exceptions.ValidationError):
    """A query parameter is not valid, whatever the method."""


def handle_exception(error: Exception, context: Mapping[str, Any]) -> Response:
    """settings.REST_FRAMEWORK names it. It answers everything, so that no failure leaves as HTML."""
    problem = describe_error(error, method=context["request"].method or "")
    return Response(
        problem, status=problem["status"], content_type=CONTENT_TYPE, headers=_headers(error, problem)
    )


def describe_error(error: Exception, *, method: str = "POST") -> dict[str, Any]:
    """The problem of an exception. What nobody foresaw is logged; the caller learns the request id."""
    if isinstance(error, PaymentError):
        return _describe_payment_error(error)
    if isinstance(error, InvalidCursorError):
        return make_problem("invalid_cursor", str(error.detail))
    if isinstance(error, Http404):
        return make_problem("not_found", "There is no such object.")
    if isinstance(error, DjangoPermissionDenied):
        return make_problem("insufficient_scope", "The API key may not do this.")
    if isinstance(error, OperationalError | InterfaceError):
        logger.error("api_database_unavailable", exc_info=error)
        return make_problem(
            "service_unavailable", "The database is not available. Send the same request again."
        )
    if isinstance(error, exceptions.APIException):
        return _describe_api_exception(error, method)
    logger.error("api_unhandled_exception", exc_info=error)
    return make_problem("internal_error", "The request failed. Quote the request id when you ask about it.")


def make_problem(code: str, detail: str, **members: Any) -> dict[str, Any]:
    """The body of a problem. `code` must be in the table."""
    status, title = all_codes()[code]
    return {
        "type": f"{TYPE_PREFIX}{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": str(structlog.contextvars.get_contextvars().get("request_id", "")),
        "errors": [],
        **members,
    }


def all_codes() -> dict[str, tuple[int, str]]:
    """Every code that the API answers, with its status and title."""
    return {error.code: (error.status, error.title) for error in _walk_errors(PaymentError)} | API_CODES


def _walk_errors(root: type[PaymentError]) -> Iterator[type[PaymentError]]:
    yield root
    for child in root.__subclasses__():
        yield from _walk_errors(child)


def _describe_payment_error(error: PaymentError) -> dict[str, Any]:
    public = {
        name: error.details[name] for name in PUBLIC_DETAILS if error.details.get(name) not in (None, "")
    }
    if error.status >= 500:
        logger.error("api_payment_error", exc_info=error)
    pointer = error.details.get("pointer")
    errors = (
        [{"pointer": pointer, "code": error.code, "detail": error.message}] if pointer is not None else []
    )
    return make_problem(error.code, error.message, errors=errors, **public)


def _describe_api_exception(error: exceptions.APIException, method: str) -> dict[str, Any]:
    code = next((code for kind, code in _DRF_CODES if isinstance(error, kind)), "internal_error")
    if isinstance(error, exceptions.ValidationError):
        in_query = method == "GET" or isinstance(error, ParameterError)
        errors = list(list_errors(error.detail, locator="parameter" if in_query else "pointer"))[:MAX_ERRORS]
        return make_problem(code, "Some members are not valid; nothing was done.", errors=errors)
    errors = []
    if isinstance(error, exceptions.ParseError):  # the place is in the detail; the whole document is at fault
        errors = [{"pointer": "", "code": code, "detail": str(error.detail)}]
    if isinstance(error, CardDataError):
        errors = [{error.locator: error.pointer, "code": code, "detail": "This looks like card data."}]
    return make_problem(code, str(error.detail), errors=errors)


def list_errors(detail: Any, *, locator: str, path: str = "") -> Iterator[dict[str, str]]:
    """DRF's nested error detail as flat items with JSON pointers (or names of query parameters)."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            yield from list_errors(inner, locator=locator, path=_extend(path, name, locator))
    elif isinstance(detail, list | tuple):
        for index, inner in enumerate(detail):
            is_leaf = isinstance(inner, str)
            yield from list_errors(
                inner, locator=locator, path=path if is_leaf else _extend(path, index, locator)
            )
    else:
        yield {locator: path, "code": getattr(detail, "code", "invalid"), "detail": str(detail)}


def _extend(path: str, name: Any, locator: str) -> str:
    if name in ("non_field_errors", "__all__"):
        return path
    if locator == "parameter":
        return path or str(name)
    return f"{path}/{str(name).replace('~', '~0').replace('/', '~1')}"


def _headers(error: Exception, problem: Mapping[str, Any]) -> dict[str, str]:
    headers = {}
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if (wait := _retry_after(error, problem["status"])) is not None:
        headers["Retry-After"] = str(wait)
    return headers


def _retry_after(error: Exception, status: int) -> int | None:
    """Whole seconds, or None when waiting would not help."""
    if isinstance(error, PaymentError):
        wait = error.details.get("retry_after", RETRY_AFTER_SECONDS if error.retriable else None)
    else:
        wait = getattr(error, "wait", None) or (RETRY_AFTER_SECONDS if status in (429, 503) else None)
    return None if wait is None else max(1, -int(-wait // 1))


def show_error_codes(request: HttpRequest) -> HttpResponse:
    """The page that the `type` of every problem points to."""
    rows = format_html_join(
        "",
        '<tr id="{0}"><td><code>{0}</code></td><td>{1}</td><td>{2}</td></tr>',
        ((code, status, title) for code, (status, title) in sorted(all_codes().items())),
    )
    return HttpResponse(
        format_html(
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Error codes</title>'
            '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
            "</head><body><h1>Error codes</h1><p>Every error is <code>application/problem+json</code>; "
            "its <code>code</code> is stable.</p><table><thead><tr><th>Code</th><th>Status</th>"
            "<th>Meaning</th></tr></thead><tbody>{}</tbody></table></body></html>",
            rows,
        )
    )
