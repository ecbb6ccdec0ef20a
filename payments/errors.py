"""The one taxonomy of payment errors: what happened, whether a retry may help, and which HTTP status says it."""

from __future__ import annotations

from typing import Any, ClassVar


class PaymentError(Exception):
    """Base of everything that can go wrong with a payment.

    `retriable` answers the only question that a caller has: may the very same request be sent again?
    `code` is stable and public; `status` is the HTTP status of the storefront API.
    """

    code: ClassVar[str] = "payment_error"
    title: ClassVar[str] = "The payment could not be processed"
    status: ClassVar[int] = 500
    retriable: ClassVar[bool] = False

    def __init__(self, message: str = "", **details: Any) -> None:
        super().__init__(message or self.title)
        self.message = message or self.title
        self.details = details

    def to_dict(self) -> dict[str, Any]:
        """A JSON-safe record of the error, as stored on operations and sagas."""
        return {
            "type": type(self).__name__,
            "code": self.code,
            "message": self.message,
            "retriable": self.retriable,
            **self.details,
        }


# --- the wire -----------------------------------------------------------------------------------------------


class NetworkError(PaymentError):
    """The gateway was not reached: surely nothing happened there."""

    code = "network_error"
    title = "The gateway could not be reached"
    status = 503
    retriable = True


class RateLimitedError(PaymentError):
    """Refused before it was executed, by the gateway or by our own limit."""

    code = "rate_limited"
    title = "Too many requests"
    status = 429
    retriable = True


class GatewayUnavailableError(NetworkError):
    """The circuit breaker is open: the gateway is not asked at all."""

    code = "gateway_unavailable"
    title = "The gateway is switched off or failing"


class GatewayTimeoutError(PaymentError):
    """The request left, no usable answer came: it may or may not have happened. Never retried blindly."""

    code = "gateway_timeout"
    title = "The gateway did not answer in time"
    status = 504


# --- the gateway said no ------------------------------------------------------------------------------------


class CardDeclinedError(PaymentError):
    """A definite no from the issuer; details carry `decline_code` (standardised), `gateway_code` and `advice`."""

    code = "card_declined"
    title = "The card was declined"
    status = 402


class InsufficientFundsError(CardDeclinedError):
    code = "insufficient_funds"
    title = "The card has insufficient funds"


class AuthenticationRequiredError(CardDeclinedError):
    code = "authentication_required"
    title = "The customer must authenticate with the card issuer"


class InvalidRequestError(PaymentError):
    """The request itself is wrong; sending it again gives the same answer."""

    code = "invalid_request"
    title = "The request is invalid"
    status = 400


class GatewayMismatchError(PaymentError):
    """The gateway answered with another amount or currency than we asked for: a person must look."""

    code = "gateway_mismatch"
    title = "The gateway's answer does not match the request"
    status = 502


class ReportNotReadyError(PaymentError):
    """The gateway has not finished its data for the day asked for."""

    code = "report_not_ready"
    title = "The gateway's report is not ready"
    status = 409
    retriable = True


# --- our own no ---------------------------------------------------------------------------------------------


class FraudBlockedError(PaymentError):
    """Screening refused the order; the customer is not told why."""

    code = "fraud_blocked"
    title = "The order was refused"
    status = 403


class OutOfStockError(PaymentError):
    code = "out_of_stock"
    title = "Not enough stock"
    status = 409


class ShipmentRefusedError(PaymentError):
    """The carrier will not take the shipment: the order is undone."""

    code = "shipment_refused"
    title = "The shipment was refused"
    status = 409


class ConflictError(PaymentError):
    """The object is not in a state that allows this; nothing was changed."""

    code = "conflict"
    title = "The object's state does not allow this"
    status = 409


class BusyError(ConflictError):
    """Another worker has the object at this moment: the same request may be sent again."""

    code = "busy"
    title = "The object is being worked on"
    retriable = True


class AmountTooLargeError(InvalidRequestError):
    """More than is left to capture or refund."""

    code = "amount_too_large"
    title = "The amount is more than what is left"


# --- idempotency --------------------------------------------------------------------------------------------


class IdempotencyKeyMissingError(InvalidRequestError):
    code = "idempotency_key_missing"
    title = "Idempotency-Key is required"


class IdempotencyConflictError(PaymentError):
    """The same key came with another payload."""

    code = "idempotency_key_reused"
    title = "The Idempotency-Key was used with another payload"
    status = 422


class IdempotencyInFlightError(PaymentError):
    """The first request with this key has not finished; details carry `retry_after` in seconds."""

    code = "idempotency_in_flight"
    title = "A request with this Idempotency-Key is in progress"
    status = 409
    retriable = True


class IdempotencyExpiredError(PaymentError):
    """The key is a tombstone: its answer is gone, and it never charges again."""

    code = "idempotency_key_expired"
    title = "The Idempotency-Key has expired"
    status = 409


# --- sagas --------------------------------------------------------------------------------------------------


class SagaCompensationError(PaymentError):
    """A compensation failed for good: money is at risk and a person must finish it."""

    code = "compensation_failed"
    title = "The compensation failed"


class StaleLeaseError(PaymentError):
    """Another worker took the run over: stop, write nothing."""

    code = "stale_lease"
    title = "Another worker owns this run"
    status = 409


class UnknownDefinitionError(PaymentError):
    """A run began with a saga definition that this deployment no longer has."""

    code = "unknown_definition"
    title = "The saga definition is not deployed"


# --- webhooks -----------------------------------------------------------------------------------------------


class WebhookSignatureError(PaymentError):
    code = "webhook_signature"
    title = "The webhook signature is invalid"
    status = 400


class WebhookReplayError(WebhookSignatureError):
    """The timestamp is outside the window: an old delivery, or a clock that is wrong."""

    code = "webhook_replay"
    title = "The webhook timestamp is outside the window"
