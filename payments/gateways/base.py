"""What every payment gateway can do: the PaymentGateway protocol and the frozen values that cross it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Protocol

from payments.kinds import OperationKind
from payments.money import Money


class ChargeStatus(StrEnum):
    """What the gateway says of one operation."""

    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    VOIDED = "voided"
    REQUIRES_ACTION = "requires_action"
    PENDING = "pending"
    DECLINED = "declined"
    FAILED = "failed"


class RefundStatus(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class CardDetails:
    """What may be kept of a card: never the number."""

    brand: str = ""
    last4: str = ""
    country: str = ""
    funding: str = ""
    exp_month: int | None = None
    exp_year: int | None = None
    fingerprint: str = ""
    avs: str = ""  # pass | fail | unavailable | unchecked
    cvc: str = ""  # pass | fail | unavailable | unchecked
    three_d_secure: str = ""  # authenticated | attempted | failed | "" when not asked for
    risk_score: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if getattr(self, name) not in ("", None)}


@dataclass(frozen=True, slots=True)
class Decline:
    """A definite no: our standardised code, the gateway's own beside it, and what the customer may try."""

    code: str
    gateway_code: str = ""
    advice: str = "try_another_method"
    message: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "decline_code": self.code,
            "gateway_code": self.gateway_code,
            "advice": self.advice,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class ChargeRequest:
    """Authorize `amount` on the token `payment_method`; `key` is the operation's idempotency key for ever."""

    key: str
    operation_id: str
    payment_id: str
    order_id: str
    amount: Money
    payment_method: str
    return_url: str = ""
    request_three_d_secure: bool = False
    customer_email: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """Capture `amount` of the authorization `reference`; `final` releases the rest."""

    key: str
    operation_id: str
    reference: str
    amount: Money
    final: bool = True


@dataclass(frozen=True, slots=True)
class VoidRequest:
    """Release the authorization `reference`; `amount` is what was authorized."""

    key: str
    operation_id: str
    reference: str
    amount: Money
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RefundRequest:
    """Give back `amount` of what was captured under `reference`."""

    key: str
    operation_id: str
    reference: str
    amount: Money
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """Ask what became of an operation: by the gateway's reference if we have it, else by our operation id."""

    kind: OperationKind
    operation_id: str
    reference: str = ""  # of the authorization (payment intent)
    refund_reference: str = ""
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class ChargeResult:
    """The answer to authorize, capture and void. `amount` is the operation's, as the gateway states it."""

    status: ChargeStatus
    reference: str
    amount: Money
    next_action: Mapping[str, Any] | None = None
    card: CardDetails | None = None
    decline: Decline | None = None
    expires_at: datetime | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RefundResult:
    """The answer to refund: `reference` is the refund's own."""

    status: RefundStatus
    reference: str
    amount: Money
    failure: Decline | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GatewayFact:
    """One thing that a gateway says happened, whichever way it reached us: answer, webhook, poll, or operator.

    `kind` and the result say what; `operation_id` (ours, from the gateway's metadata) or the references say to whom.
    """

    kind: OperationKind
    result: ChargeResult | RefundResult
    operation_id: str = ""
    payment_id: str = ""
    reference: str = ""  # of the authorization (payment intent)
    occurred_at: datetime | None = None
    source: str = "webhook"  # answer | webhook | poll | operator


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the resilience stack and the saga may rely on."""

    idempotency_key_hours: int = 24  # 0: the gateway has none; ask before any retry
    partial_capture: bool = True
    asynchronous_refunds: bool = True


class PaymentGateway(Protocol):
    """A gateway account, ready to use. Amounts are Money; only tokens, never card numbers.

    Each call raises `NetworkError` / `RateLimitedError` (surely not done, retriable), `GatewayTimeoutError` (nobody
    knows), or `InvalidRequestError` (surely not done, ours to fix). A decline is a result, not an exception.
    """

    capabilities: Capabilities

    def authorize(self, request: ChargeRequest) -> ChargeResult: ...
    def capture(self, request: CaptureRequest) -> ChargeResult: ...
    def void(self, request: VoidRequest) -> ChargeResult: ...
    def refund(self, request: RefundRequest) -> RefundResult: ...

    def fetch(self, request: FetchRequest) -> ChargeResult | RefundResult | None:
        """What became of an operation; None when the gateway knows nothing of it."""

    def read_event(self, payload: Mapping[str, Any]) -> Sequence[GatewayFact]:
        """The facts in one verified webhook event; empty when it is of no concern to payments."""

    def list_events(self, *, since: datetime, types: Sequence[str] = ()) -> Iterable[Mapping[str, Any]]:
        """The gateway's own record of events, oldest first, for replaying missed webhooks."""

    def settlement_report(self, *, day: date) -> Iterator[bytes]:
        """The settlement report of one UTC day as raw bytes. Raises `ReportNotReadyError` before it is complete."""
