"""Every way in which a call to Braintree can fail, in our own words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from braintree.exceptions.authentication_error import AuthenticationError
from braintree.exceptions.authorization_error import AuthorizationError
from braintree.exceptions.braintree_error import BraintreeError
from braintree.exceptions.not_found_error import NotFoundError
from braintree.exceptions.too_many_requests_error import TooManyRequestsError
from braintree.exceptions.upgrade_required_error import UpgradeRequiredError

from payments.errors import (
    AmountTooLargeError,
    ConflictError,
    GatewayTimeoutError,
    InvalidRequestError,
    PaymentError,
    RateLimitedError,
)
from payments.gateways.doubt import reached
from payments.redaction import redact

# Validation errors, as the SDK's ErrorCodes name them.
AMOUNT_CODES = frozenset({"91512", "91521", "91522"})  # refunded already; more than is left, or than was held
STATE_CODES = frozenset({"91504", "91506", "91507", "91574", "915103"})
REFUND_DECLINED_CODES = frozenset({"915200", "915201"})


class WrongStateError(InvalidRequestError):
    """Braintree refused because of the transaction's state: perhaps it is done already, or not yet possible."""


class RefundDeclinedError(InvalidRequestError):
    """The issuer does not take the money back."""

    def __init__(self, message: str, *, gateway_code: str) -> None:
        super().__init__(message, gateway_code=gateway_code)
        self.gateway_code = gateway_code


class NotSettledError(ConflictError):
    """A part of a capture cannot be refunded before it has settled: surely not done, to be sent again later.

    Details carry `retry_after` in seconds.
    """

    code = "not_settled"
    title = "The capture has not settled yet"
    retriable = True


# --- answers that refuse ------------------------------------------------------------------------------------


def check(answer: Any, subject: str) -> None:
    """Raises for everything but a success."""
    if answer is None or not answer.is_success:
        raise_refusal(answer, subject)
        raise say_nothing(subject)


def raise_refusal(answer: Any, subject: str) -> None:
    """Raises for an answer without a transaction; a decline has one, and is a result."""
    if answer is None:
        raise say_nothing(subject)
    if codes := error_codes(answer):
        message = f"Braintree refused {subject}: {redact(str(answer.message))}"
        raise find_refusal(codes)(message, gateway_code=codes[0])


def find_refusal(codes: list[str]) -> Callable[..., PaymentError]:
    found = set(codes)
    if found & AMOUNT_CODES:
        return AmountTooLargeError
    if found & REFUND_DECLINED_CODES:
        return RefundDeclinedError
    return WrongStateError if found & STATE_CODES else InvalidRequestError


def error_codes(answer: Any) -> list[str]:
    return [] if answer is None or answer.is_success else [str(e.code) for e in answer.errors.deep_errors]


def say_nothing(subject: str) -> GatewayTimeoutError:
    return GatewayTimeoutError(f"Braintree's answer to {subject} says nothing: the outcome is unknown")


# --- answers that are none ----------------------------------------------------------------------------------


@contextmanager
def translated(operation: str, operation_id: str = "") -> Iterator[None]:
    subject = f"{operation} {operation_id}".strip()
    with reached("Braintree", subject):
        try:
            yield
        except BraintreeError as error:
            raise error_for_answer(error, subject) from error


def error_for_answer(error: BraintreeError, subject: str) -> PaymentError:
    """A 5xx or a timeout of theirs means that anything may have happened; every other status, that nothing did."""
    name = type(error).__name__
    if isinstance(error, AuthenticationError):
        return InvalidRequestError(
            f"Braintree does not know the keys of this account: {subject} was not done"
        )
    if isinstance(error, TooManyRequestsError):
        return RateLimitedError(f"Braintree has too many requests: {subject} was not done")
    if isinstance(error, AuthorizationError | NotFoundError | UpgradeRequiredError) or is_refused(error):
        return InvalidRequestError(f"Braintree refused {subject} ({name}): it was not done")
    return GatewayTimeoutError(f"Braintree failed at {subject} ({name}): the outcome is unknown")


def is_refused(error: BraintreeError) -> bool:
    """A status that the SDK has no name for is told in its message alone."""
    return re.fullmatch(r"Unexpected HTTP_RESPONSE 4\d\d", str(error)) is not None
