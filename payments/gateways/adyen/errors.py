"""Every way in which a call to Adyen can fail, in our own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import Adyen

from payments.errors import GatewayTimeoutError, InvalidRequestError, PaymentError, RateLimitedError
from payments.gateways.doubt import leaves_doubt, reached
from payments.redaction import redact

IN_DOUBT_CODES = frozenset({"703", "704"})  # the key is being worked on, or was used for something else
GONE_CODES = frozenset({"800", "803"})  # the stored card is not there (any more)


@contextmanager
def translated(subject: str) -> Iterator[None]:
    with reached("Adyen", subject):
        try:
            yield
        except Adyen.AdyenError as error:
            raise error_for_answer(error, subject) from error


def error_for_answer(error: Any, subject: str) -> PaymentError:
    status = error.status_code if isinstance(error.status_code, int) else None
    code = str(error.error_code or "")
    message = describe(error, status, subject)
    headers = error.headers if isinstance(error.headers, Mapping) else {}
    if headers.get("transient-error") == "true" and status != 429:
        return GatewayTimeoutError(message, gateway_code=code)
    return error_for_status(status, message, gateway_code=code)


def describe(error: Any, status: int | None, subject: str) -> str:
    if status == 401:
        return f"Adyen does not know the API key of this account: {subject} was not done"
    if status == 403:
        code = error.error_code or "no code"
        return f"Adyen does not let this API key do it: {subject} was not done ({code})"
    body = error.message if isinstance(error.message, Mapping) else {}
    text = redact(str(body.get("message") or "no reason given"))
    return f"Adyen answered {status} to {subject}: {text}"


def error_for_status(status: int | None, message: str, *, gateway_code: str = "") -> PaymentError:
    """A key that is being worked on, or was used for something else, did something: that is a doubt too."""
    if status == 429:
        return RateLimitedError(message, gateway_code=gateway_code)
    if leaves_doubt(status) or gateway_code in IN_DOUBT_CODES:
        return GatewayTimeoutError(message, gateway_code=gateway_code)
    return InvalidRequestError(message, gateway_code=gateway_code)


def is_gone(refusal: InvalidRequestError) -> bool:
    return refusal.details.get("gateway_code") in GONE_CODES
