"""Every way in which a call to Stripe can fail, in our own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import stripe

from payments.errors import (
    AmountTooLargeError,
    CardDeclinedError,
    GatewayTimeoutError,
    InvalidRequestError,
    PaymentError,
    RateLimitedError,
)
from payments.gateways.base import ChargeResult, ChargeStatus
from payments.gateways.connection import error_for_connection
from payments.gateways.doubt import doubted, leaves_doubt, reached
from payments.gateways.stripe import wire
from payments.gateways.stripe.cards import read_refused_card
from payments.gateways.stripe.declines import read_decline
from payments.money import Money
from payments.redaction import redact

Doc = dict[str, Any]

KEY_REUSED_CODES = frozenset({"idempotency_error", "idempotency_key_in_use"})
WRONG_STATE_CODES = frozenset({"payment_intent_unexpected_state", "charge_already_captured"})


class StripeDeclinedError(CardDeclinedError):
    """Stripe answered 402."""

    def __init__(self, error: Doc) -> None:
        self.error = error
        self.decline = read_decline(error)
        super().__init__(
            self.decline.message,
            decline_code=self.decline.code,
            gateway_code=self.decline.gateway_code,
            advice=self.decline.advice,
        )

    def as_result(self, asked: Money, *, reference: str = "") -> ChargeResult:
        """A decline is a result. The amount is the intent's; without one, what was asked."""
        intent = self.error.get("payment_intent") or {}
        amount = asked
        if intent and not reference:
            with doubted("Stripe"):
                amount = wire.from_wire(intent["amount"], intent["currency"])
        return ChargeResult(
            status=ChargeStatus.DECLINED,
            reference=reference or intent.get("id", ""),
            amount=amount,
            card=read_refused_card(self.error),
            decline=self.decline,
            raw=wire.trim(self.error),
        )


class WrongStateError(InvalidRequestError):
    """Stripe refused because of the intent's state: perhaps it is done already."""


@contextmanager
def translated(operation: str, operation_id: str = "") -> Iterator[None]:
    subject = f"{operation} {operation_id}".strip()
    with reached("Stripe", subject):
        try:
            yield
        except stripe.CardError as error:
            raise StripeDeclinedError(read_body(error)) from error
        except stripe.APIConnectionError as error:
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            raise error_for_connection(cause, "Stripe", subject) from error
        except stripe.StripeError as error:
            raise error_for_answer(error, subject) from error


def read_body(error: stripe.StripeError) -> Doc:
    body = error.json_body
    found = body.get("error") if isinstance(body, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def error_for_answer(error: stripe.StripeError, subject: str) -> PaymentError:
    body = read_body(error)
    code = str(body.get("code") or body.get("type") or "")
    if error.http_status == 401:
        message = f"Stripe does not know the API key of this account: {subject} was not done"
    else:
        text = redact(str(body.get("message") or "no reason given"))
        message = f"Stripe answered {error.http_status} to {subject}: {text}"
    return error_for_status(error.http_status, message, gateway_code=code)


def error_for_status(status: int | None, message: str, *, gateway_code: str = "") -> PaymentError:
    """A key that was used with other parameters did something, and not what we asked for now: that is a doubt too."""
    if status == 429 or gateway_code == "rate_limit":
        return RateLimitedError(message, gateway_code=gateway_code)
    if leaves_doubt(status) or gateway_code in KEY_REUSED_CODES:
        return GatewayTimeoutError(message, gateway_code=gateway_code)
    if gateway_code == "amount_too_large":
        return AmountTooLargeError(message, gateway_code=gateway_code)
    if gateway_code in WRONG_STATE_CODES:
        return WrongStateError(message, gateway_code=gateway_code)
    return InvalidRequestError(message, gateway_code=gateway_code)


def is_missing(error: stripe.InvalidRequestError) -> bool:
    """A bare 404 is not enough: behind a wrong address nothing would ever be found."""
    return error.code == "resource_missing"
