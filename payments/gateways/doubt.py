"""The doubt that an odd answer leaves: money may have moved, so nobody may say that it did not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from xml.parsers.expat import ExpatError

import requests

from payments.errors import GatewayTimeoutError, InvalidRequestError
from payments.gateways.base import ChargeResult, RefundResult
from payments.gateways.connection import error_for_connection
from payments.redaction import redact

Result = TypeVar("Result", ChargeResult, RefundResult)

# What an answer that is not as it should be raises in our readers, and in the SDKs' parsers and classes.
UNREADABLE = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, ExpatError)


@contextmanager
def doubted(gateway: str, subject: str = "") -> Iterator[None]:
    """An answer that cannot be read leaves the outcome unknown: it is not a refusal."""
    try:
        yield
    except UNREADABLE as error:
        answer = f"{gateway}'s answer to {subject}" if subject else f"{gateway}'s answer"
        raise GatewayTimeoutError(
            f"{answer} cannot be read ({type(error).__name__}): the outcome is unknown"
        ) from error


@contextmanager
def reached(gateway: str, subject: str) -> Iterator[None]:
    """The failures that no SDK names: on the way there, and in the reading of what came back."""
    with doubted(gateway, subject):
        try:
            yield
        except requests.RequestException as error:
            raise error_for_connection(error, gateway, subject) from error


def leaves_doubt(status: int | None) -> bool:
    """Whether anything may have happened: no status, one of HTTP's odd ones, a key in use (409), or a 5xx."""
    return status is None or status < 400 or status in (408, 409) or status >= 500


def read_or_doubt(
    gateway: str, read: Callable[[dict[str, Any]], Result | None], doc: dict[str, Any]
) -> Result:
    """Raises `GatewayTimeoutError` when an answer of success does not say that it was done."""
    with doubted(gateway):
        result = read(doc)
    if result is None:
        raise GatewayTimeoutError(
            f"{gateway}'s answer leaves {doc['id']} in {doc['status']}: the outcome is unknown"
        )
    return result


@contextmanager
def readable(event: str) -> Iterator[None]:
    """Raises `InvalidRequestError` for a webhook's event that lacks what its kind promises."""
    try:
        yield
    except UNREADABLE as error:
        cause = f"{type(error).__name__}: {redact(str(error))}"
        raise InvalidRequestError(f"{event} cannot be read ({cause})") from error
