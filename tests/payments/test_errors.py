"""The error taxonomy: one code each, a status, and an honest answer to "may I retry?"."""

from __future__ import annotations

import inspect
import json

import pytest

from payments import errors
from payments.errors import (
    CardDeclinedError,
    GatewayTimeoutError,
    IdempotencyInFlightError,
    InvalidRequestError,
    NetworkError,
    PaymentError,
    RateLimitedError,
    WebhookReplayError,
    WebhookSignatureError,
)

TREE = [thing for _, thing in inspect.getmembers(errors, inspect.isclass) if issubclass(thing, PaymentError)]
# Where nothing has happened yet, or the same question gets its answer later.
RETRIABLE = {
    "NetworkError",
    "GatewayUnavailableError",
    "RateLimitedError",
    "BusyError",
    "ReportNotReadyError",
    "IdempotencyInFlightError",
}


def test_only_what_surely_did_not_happen_may_be_retried() -> None:
    assert {error.__name__ for error in TREE if error.retriable} == RETRIABLE


def test_codes_are_unique_and_stable_in_form() -> None:
    codes = [error.code for error in TREE]
    assert len(set(codes)) == len(codes)
    assert [code for code in codes if code != code.lower() or not code.replace("_", "").isalpha()] == []


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)
def test_every_error_has_a_title_a_status_and_a_json_form(error: type[PaymentError]) -> None:
    assert error.title
    assert 400 <= error.status <= 599
    made = error("Not refunded.", order="ord_1")
    assert str(made) == "Not refunded."
    assert json.loads(json.dumps(made.to_dict())) == {
        "type": error.__name__,
        "code": error.code,
        "message": "Not refunded.",
        "retriable": error.retriable,
        "order": "ord_1",
    }


def test_without_a_message_the_title_speaks() -> None:
    assert str(RateLimitedError()) == RateLimitedError.title


@pytest.mark.parametrize(
    ("error", "parent"),
    [
        (errors.InsufficientFundsError, CardDeclinedError),
        (errors.AuthenticationRequiredError, CardDeclinedError),
        (errors.GatewayUnavailableError, NetworkError),
        (errors.AmountTooLargeError, InvalidRequestError),
        (WebhookReplayError, WebhookSignatureError),
    ],
)
def test_a_special_case_is_caught_as_its_general_one(
    error: type[PaymentError], parent: type[PaymentError]
) -> None:
    assert issubclass(error, parent)


def test_a_timeout_is_neither_retriable_nor_a_network_error() -> None:
    assert not issubclass(GatewayTimeoutError, NetworkError)
    assert not GatewayTimeoutError.retriable
    assert IdempotencyInFlightError.status == 409
