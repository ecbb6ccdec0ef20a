"""What every payment gateway can do: the PaymentGateway protocol and the frozen values that cross it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Protocol

from payments.kinds import DisputeStage, DisputeState, OperationKind
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
class SavedToken:
    """A payment method that the gateway keeps for later charges: `token` is what such a charge names."""

    token: str
    customer_reference: str = ""  # the gateway's own customer, where a token belongs to one


@dataclass(frozen=True, slots=True)
class ChargeRequest:
    """Authorize `amount` on the token `payment_method`; `key` is the operation's idempotency key for ever.

    `customer_reference` is the gateway's customer of a saved token, "" before there is one.
    """

    key: str
    operation_id: str
    payment_id: str
    order_id: str
    amount: Money
    payment_method: str
    return_url: str = ""
    request_three_d_secure: bool = False
    sca_exemption: str = ""  # low_value | tra | recurring: do not authenticate, and tell the issuer why
    customer_email: str = ""
    several_captures: bool = False  # ask for an authorization that may be captured in parts
    save_payment_method: bool = False  # keep it for later: the answer carries a SavedToken
    customer_reference: str = ""
    customer_id: str = ""  # the storefront's own, for a gateway that wants a shopper reference
    is_merchant_initiated: bool = False  # the cardholder is not there: a charge on a saved token
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """Capture `amount` of the authorization `reference`; `final` releases the rest, else more may follow."""

    key: str
    operation_id: str
    reference: str
    amount: Money
    final: bool = True


@dataclass(frozen=True, slots=True)
class VoidRequest:
    """Release `amount`: the whole authorization `reference`, or, after captures, what is left of it.

    Without a reference (nobody knows whether the authorization was made) a gateway that can is told our
    `authorization_id` instead.
    """

    key: str
    operation_id: str
    reference: str
    amount: Money
    reason: str = ""
    is_rest: bool = False  # something was captured: only the rest is released
    authorization_id: str = ""


@dataclass(frozen=True, slots=True)
class RefundRequest:
    """Give back `amount` of what was captured under `reference`, by the capture `capture_reference`."""

    key: str
    operation_id: str
    reference: str
    amount: Money
    reason: str = ""
    capture_reference: str = ""  # what the capture's result gave as its `own_reference`


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """Ask what became of an operation: by the gateway's reference if we have it, else by our operation id."""

    kind: OperationKind
    operation_id: str
    reference: str = ""  # of the authorization (payment intent)
    own_reference: str = ""  # of the capture or the refund itself
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class EvidenceFile:
    name: str
    content_type: str  # application/pdf, image/jpeg or image/png
    content: bytes


@dataclass(frozen=True, slots=True)
class EvidenceRequest:
    """Answer a dispute. `texts` and `files` are keyed by our kinds of evidence (`EVIDENCE_KINDS`)."""

    key: str
    reference: str  # the dispute's at the gateway
    texts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, EvidenceFile] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChargeResult:
    """The answer to authorize, capture and void. `amount` is the operation's, as the gateway states it.

    `reference` is the authorization's in all three; `own_reference` the capture's or the void's, where it has one.
    """

    status: ChargeStatus
    reference: str
    amount: Money
    next_action: Mapping[str, Any] | None = None
    card: CardDetails | None = None
    decline: Decline | None = None
    expires_at: datetime | None = None
    own_reference: str = ""
    total_captured: Money | None = None  # under this authorization so far, where the gateway says it
    is_hold_open: bool | None = (
        None  # after a capture: whether more may follow; None: the gateway does not say
    )
    saved: SavedToken | None = None
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
class DisputeFact:
    """How a gateway says a dispute stands. `amount` is what the cardholder disputes, `fee` what it costs us now.

    `is_withdrawn` says whether the disputed amount is out of our balance at this moment; None: the event does not say.
    """

    reference: str  # the dispute's own
    payment_reference: str  # of the authorization (payment intent)
    stage: DisputeStage
    state: DisputeState
    amount: Money
    reason: str = (
        ""  # fraudulent, not_received, duplicate, not_as_described, canceled, credit_not_processed, other
    )
    network_code: str = ""
    fee: Money | None = None
    is_withdrawn: bool | None = None
    due_by: datetime | None = None
    payment_id: str = ""  # ours, when the gateway knows it
    occurred_at: datetime | None = None
    source: str = "webhook"  # answer | webhook | poll | operator
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FraudWarning:
    """A card's issuer reports a payment as fraud: often before a dispute, often without one. It moves no money."""

    reference: str  # the report's own
    payment_reference: str  # of the authorization (payment intent)
    reason: str = ""  # in the gateway's own word
    payment_id: str = ""  # ours, when the gateway knows it
    occurred_at: datetime | None = None
    source: str = "webhook"  # webhook | poll
    raw: Mapping[str, Any] = field(default_factory=dict)


Fact = GatewayFact | DisputeFact | FraudWarning


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the resilience stack and the saga may rely on."""

    idempotency_key_hours: int = 24  # 0: the gateway has none; ask before any retry
    answers_questions: bool = (
        True  # False: `fetch` knows nothing; the same key, or a webhook, gives the answer
    )
    partial_capture: bool = True
    several_captures: bool = False
    asynchronous_captures: bool = False  # a capture is only received; a webhook says how it ended
    asynchronous_refunds: bool = True
    refunds_per_capture: bool = False  # a refund is limited by its own capture, not by the payment
    final_capture_releases: bool = True  # False: the rest of the hold stands until it is voided
    completes_authentication: bool = (
        False  # the customer's return brings what `complete_authentication` hands in
    )
    void_without_reference: bool = False  # an authorization can be released by our own id
    dispute_evidence: bool = False
    saved_payment_methods: bool = False
    challenges: bool = True  # an authorization may answer REQUIRES_ACTION and wait for the customer
    sca_exemptions: frozenset[str] = frozenset()  # that an authorization may ask the issuer for
    lists_events: bool = False  # `list_events` gives what its webhooks told, for replaying missed ones
    webhook_kinds: frozenset[OperationKind] = frozenset(OperationKind)  # movements that webhooks tell of


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

    def fetch_dispute(self, reference: str) -> DisputeFact | None:
        """How a dispute stands; None when the gateway knows nothing of it."""

    def submit_evidence(self, request: EvidenceRequest) -> DisputeFact:
        """Answer a dispute, for good. Raises `InvalidRequestError` when it is decided or its deadline has passed."""

    def accept_dispute(self, reference: str, *, key: str) -> DisputeFact:
        """Give in: the amount is lost. Raises `InvalidRequestError` when it is decided."""

    def forget_payment_method(self, saved: SavedToken) -> None:
        """Delete a saved token at the gateway; one that is gone already is no error."""

    def read_event(self, payload: Mapping[str, Any]) -> Sequence[Fact]:
        """The facts in one verified webhook event; empty when it is of no concern to payments."""

    def list_events(
        self, *, since: datetime, until: datetime | None = None, types: Sequence[str] = ()
    ) -> Iterable[Mapping[str, Any]]:
        """The gateway's own record of events from `since` to before `until`, oldest first, for finding missed webhooks.

        All of them are in memory at once: who asks for a long time asks for a part of it each time.
        """

    def settlement_report(self, *, day: date) -> Iterator[bytes]:
        """The settlement report of one UTC day as raw bytes. Raises `ReportNotReadyError` before it is complete."""


class RedirectGateway(PaymentGateway, Protocol):
    """A gateway that says `completes_authentication`: it needs what the customer's return from 3-D Secure brought."""

    def complete_authentication(
        self, *, operation_id: str, amount: Money, redirect_result: str
    ) -> ChargeResult: ...
