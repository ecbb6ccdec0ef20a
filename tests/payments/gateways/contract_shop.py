"""Who the contract suite acts through: a shop that makes the requests, and the gateway's world as a test needs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, cast

import pytest

from payments.errors import GatewayTimeoutError, InvalidRequestError
from payments.gateways.base import (
    CaptureRequest,
    ChargeRequest,
    ChargeResult,
    ChargeStatus,
    DisputeFact,
    Fact,
    FetchRequest,
    GatewayFact,
    PaymentGateway,
    RedirectGateway,
    RefundRequest,
    RefundResult,
    RefundStatus,
    SavedToken,
    VoidRequest,
)
from payments.ids import new_id
from payments.kinds import DisputeStage, OperationKind
from payments.money import Money
from payments.sandbox.server import Running

EUR = "EUR"
PATIENCE = 60.0  # seconds: what a call that is answered may take, however busy the machine is
HASTE = 1.0  # half of it to read: what is waited for an answer that never comes
Result = ChargeResult | RefundResult
REFUSED = (ChargeStatus.DECLINED, ChargeStatus.FAILED, RefundStatus.FAILED)


class World(Protocol):
    """The other side of the wire, as a test needs it."""

    def card(self, behaviour: str) -> str:
        """The token of a card: ok, avs_fail, cvc_fail, wrong_amount, capture_fails, refund_fails_later, unknown_token,
        decline:<our decline code>; with challenges: challenge, challenge_if_asked, authentication_required.
        """

    def fail_next(self, operation: str, fault: str, *, operation_id: str, times: int = 1) -> None:
        """The next authorize, capture, void, refund or fetch of this authorization's payment fails so:

        timeout_before, timeout_after, reset_before, reset_after, 500, 500_after, 429.
        """

    def silence(self) -> AbstractContextManager[None]:
        """A block with one call that is never answered: it ends when the gateway has done what it does with it."""

    def authenticate(self, reference: str, *, success: bool) -> str | None:
        """The customer passes or fails the challenge of this authorization; our operation names one that has no
        reference before. What he brings back, where the gateway wants it.
        """

    def settle(self) -> None:
        """Everything that the gateway has put off happens now."""

    def events(self) -> Sequence[Mapping[str, Any]]:
        """The webhook payloads that it has made since this world began, oldest first."""

    def count_movements(self, operation_id: str) -> Counter[str]:
        """From the gateway's own books, under this authorization, how often and how much in its minor units:

        charges, captures, captured, cancels, released, refunds, refunded.
        """

    def dispute(self, reference: str, *, stage: DisputeStage) -> str:
        """The cardholder complains of this captured payment; the dispute's reference."""

    def decide(self, dispute: str, *, won: bool) -> None:
        """The cardholder's bank decides."""

    def evidence(self, dispute: str) -> bytes:
        """All that the gateway was given to answer a dispute with, texts and files, one after the other."""

    def tomorrow(self) -> None:
        """Move the gateway's clock on by a day."""


@dataclass(frozen=True)
class Act:
    """One movement that can be sent, and sent again: with the same key."""

    kind: OperationKind
    operation_id: str
    reference: str  # of the authorization; "" when this is the authorization
    send: Callable[[], Result]


# What the gateway's books count, and how the operation ends when all goes well.
COUNTED = {
    OperationKind.AUTHORIZE: "charges",
    OperationKind.CAPTURE: "captures",
    OperationKind.VOID: "cancels",
    OperationKind.REFUND: "refunds",
}
DONE = {
    OperationKind.AUTHORIZE: ChargeStatus.AUTHORIZED,
    OperationKind.CAPTURE: ChargeStatus.CAPTURED,
    OperationKind.VOID: ChargeStatus.VOIDED,
    OperationKind.REFUND: RefundStatus.SUCCEEDED,
}


@contextmanager
def one_silence(running: Running) -> Iterator[None]:
    """The `silence` of a world that is one of our stand-ins."""
    number = running.server.silences + 1
    yield
    assert running.server.await_silence(number, seconds=PATIENCE), "no call was left without an answer"


def is_about(fact: GatewayFact, operation_id: str, own_reference: str) -> bool:
    """By our id; or, where a webhook carries none of ours or another's, by the reference that the answer gave."""
    result = fact.result
    own = result.reference if isinstance(result, RefundResult) else result.own_reference
    return operation_id == fact.operation_id or (own_reference != "" and own == own_reference)


class Shop:
    """Makes the requests of one payment. What is only received at first is followed to its end.

    `hasty` is the gateway as one that gives up soon has it, for calls that are never answered.
    """

    def __init__(self, gateway: PaymentGateway, world: World, hasty: PaymentGateway | None = None) -> None:
        self.gateway = gateway
        self.world = world
        self.hasty = hasty or gateway
        self.operation_id = new_id("op")
        self.payment_id = new_id("pay")
        self.order_id = new_id("ord")

    def needs(self, *capabilities: str) -> None:
        """The rest of the case is for gateways that declare all of these."""
        for name in capabilities:
            if not getattr(self.gateway.capabilities, name):
                pytest.skip(f"it declares no {name}")

    def another(self) -> Shop:
        """Another payment in the same world."""
        return Shop(self.gateway, self.world, self.hasty)

    # --- requests -------------------------------------------------------------------------------------------

    def charge(self, behaviour: str = "ok", amount: Money | None = None, **extra: Any) -> ChargeRequest:
        given: dict[str, Any] = {"payment_method": self.world.card(behaviour)} | extra
        return ChargeRequest(
            key=f"key-{self.operation_id}",
            operation_id=self.operation_id,
            payment_id=self.payment_id,
            order_id=self.order_id,
            amount=amount or Money(1999, EUR),
            return_url="https://shop.example/return",
            **given,
        )

    def charge_saved(self, saved: SavedToken, minor: int = 500) -> ChargeRequest:
        """A charge on a saved token that the customer is not there for."""
        return self.charge(
            amount=Money(minor, EUR),
            payment_method=saved.token,
            customer_reference=saved.customer_reference,
            customer_id="customer-42",
            is_merchant_initiated=True,
        )

    def capture_request(
        self, held: ChargeResult, minor: int | None = None, *, operation_id: str = "", final: bool = True
    ) -> CaptureRequest:
        operation_id = operation_id or new_id("op")
        amount = Money(minor or held.amount.minor, held.amount.currency)
        return CaptureRequest(f"key-{operation_id}", operation_id, held.reference, amount, final)

    def void_request(
        self, held: ChargeResult, minor: int | None = None, *, operation_id: str = "", is_rest: bool = False
    ) -> VoidRequest:
        operation_id = operation_id or new_id("op")
        amount = Money(minor or held.amount.minor, held.amount.currency)
        return VoidRequest(
            f"key-{operation_id}",
            operation_id,
            held.reference,
            amount,
            is_rest=is_rest,
            authorization_id=self.operation_id,
        )

    def refund_request(
        self, held: ChargeResult, minor: int, *, operation_id: str = "", of: ChargeResult | None = None
    ) -> RefundRequest:
        operation_id = operation_id or new_id("op")
        return RefundRequest(
            f"key-{operation_id}",
            operation_id,
            held.reference,
            Money(minor, held.amount.currency),
            "requested_by_customer",
            capture_reference=of.own_reference if of else "",
        )

    # --- movements, followed to their end -------------------------------------------------------------------

    def authorize(self, behaviour: str = "ok", amount: Money | None = None, **extra: Any) -> ChargeResult:
        return self.gateway.authorize(self.charge(behaviour, amount, **extra))

    def hold(self, minor: int = 1999) -> ChargeResult:
        """An authorization that may be captured in parts."""
        return self.authorize(amount=Money(minor, EUR), several_captures=True)

    def authenticate(self, asked: ChargeResult, *, success: bool) -> None:
        """Only where the customer's return completes it may a challenge be of no authorization yet."""
        assert asked.reference or self.gateway.capabilities.completes_authentication
        self.world.authenticate(asked.reference or self.operation_id, success=success)

    def complete(self, asked: ChargeResult) -> Result | None:
        """The customer passes and comes back: what his return is answered with, or what is learned of it."""
        brought = self.world.authenticate(asked.reference or self.operation_id, success=True)
        if not self.gateway.capabilities.completes_authentication:
            return self.learn(OperationKind.AUTHORIZE, self.operation_id, asked.reference)
        gateway = cast("RedirectGateway", self.gateway)
        return gateway.complete_authentication(
            operation_id=self.operation_id, amount=Money(1999, EUR), redirect_result=brought or ""
        )

    def capture(
        self, held: ChargeResult, minor: int | None = None, *, operation_id: str = "", final: bool = True
    ) -> ChargeResult:
        request = self.capture_request(held, minor, operation_id=operation_id, final=final)
        return self.follow_charge(OperationKind.CAPTURE, request, self.gateway.capture(request))

    def void(self, held: ChargeResult, minor: int | None = None, **extra: Any) -> ChargeResult:
        request = self.void_request(held, minor, **extra)
        return self.follow_charge(OperationKind.VOID, request, self.gateway.void(request))

    def refund(
        self, held: ChargeResult, minor: int, *, operation_id: str = "", of: ChargeResult | None = None
    ) -> RefundResult:
        request = self.refund_request(held, minor, operation_id=operation_id, of=of)
        made = self.gateway.refund(request)
        ended = self.follow(
            OperationKind.REFUND, request.operation_id, request.reference, made, own_reference=made.reference
        )
        assert isinstance(ended, RefundResult)
        return ended

    def follow_charge(
        self, kind: OperationKind, request: CaptureRequest | VoidRequest, made: ChargeResult
    ) -> ChargeResult:
        ended = self.follow(
            kind, request.operation_id, made.reference, made, own_reference=made.own_reference
        )
        assert isinstance(ended, ChargeResult)
        return ended

    def follow(
        self, kind: OperationKind, operation_id: str, reference: str, made: Result, *, own_reference: str = ""
    ) -> Result:
        """The end of what was only received; an answer that is final already is the end itself."""
        if made.status not in (ChargeStatus.PENDING, RefundStatus.PENDING):
            return made
        self.world.settle()
        ended = self.learn(kind, operation_id, reference, own_reference=own_reference)
        assert ended is not None
        return ended

    # --- questions ------------------------------------------------------------------------------------------

    def learn(
        self, kind: OperationKind, operation_id: str, reference: str = "", *, own_reference: str = ""
    ) -> Result | None:
        """What became of an operation: by asking, or from the webhooks of a gateway that answers no questions."""
        if self.gateway.capabilities.answers_questions:
            return self.fetch(kind, operation_id, reference, own_reference=own_reference)
        told = [fact for fact in self.told(reference) if fact.kind is kind]
        mine = [fact for fact in told if is_about(fact, operation_id, own_reference)]
        return mine[-1].result if mine else None

    def fetch(
        self,
        kind: OperationKind = OperationKind.AUTHORIZE,
        operation_id: str = "",
        reference: str = "",
        **extra: Any,
    ) -> Result | None:
        request = FetchRequest(kind, operation_id or self.operation_id, reference, **extra)
        return self.gateway.fetch(request)

    def told(self, reference: str = "") -> list[GatewayFact]:
        """The facts in the webhooks so far about this payment, in their order."""
        names = {reference, self.payment_id, self.operation_id} - {""}
        return [
            fact
            for fact in self.facts()
            if isinstance(fact, GatewayFact) and names & {fact.reference, fact.payment_id, fact.operation_id}
        ]

    def told_of_dispute(self, dispute: str) -> list[DisputeFact]:
        disputes = [fact for fact in self.facts() if isinstance(fact, DisputeFact)]
        return [fact for fact in disputes if fact.reference == dispute]

    def facts(self) -> list[Fact]:
        return [fact for payload in self.world.events() for fact in self.gateway.read_event(payload)]

    def learn_dispute(self, dispute: str) -> DisputeFact:
        """How a dispute stands: by asking, or from the last webhook."""
        if not self.gateway.capabilities.answers_questions:
            return self.told_of_dispute(dispute)[-1]
        found = self.gateway.fetch_dispute(dispute)
        assert found is not None
        return found

    # --- refusals, losses and repetitions -------------------------------------------------------------------

    def assert_refused(
        self, send: Callable[[], Result], error: type[Exception] = InvalidRequestError
    ) -> None:
        """It is refused at once; only where answers are mere receipts may the refusal come at the end."""
        capabilities = self.gateway.capabilities
        try:
            result = send()
        except error:
            return
        assert capabilities.asynchronous_captures or capabilities.asynchronous_refunds, "it was not refused"
        assert result.status in REFUSED

    def lose(self, fault: str, send: Callable[[], Result]) -> None:
        """Send what meets this fault and is not answered, so that nobody knows what became of it."""
        hangs = fault.startswith("timeout")
        patient = self.gateway
        self.gateway = self.hasty if hangs else patient
        try:
            with self.world.silence() if hangs else nullcontext(), pytest.raises(GatewayTimeoutError):
                send()
        finally:
            self.gateway = patient

    def prepare(self, kind: OperationKind) -> Act:
        """A movement of this payment, with all that must come before it done."""
        if kind is OperationKind.AUTHORIZE:
            request = self.charge()
            return Act(kind, self.operation_id, "", lambda: self.gateway.authorize(request))
        held, mine = self.authorize(), new_id("op")
        if kind is OperationKind.CAPTURE:
            return Act(kind, mine, held.reference, lambda: self.capture(held, operation_id=mine))
        if kind is OperationKind.VOID:
            return Act(kind, mine, held.reference, lambda: self.void(held, operation_id=mine))
        taken = self.capture(held)
        return Act(kind, mine, held.reference, lambda: self.refund(held, 500, operation_id=mine, of=taken))

    def count(self, name: str) -> int:
        return self.world.count_movements(self.operation_id)[name]
