"""Stand-ins that tests script: a gateway with books of its own, and a screener that says what it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from payments.gateways.base import (
    Capabilities,
    CaptureRequest,
    CardDetails,
    ChargeRequest,
    ChargeResult,
    ChargeStatus,
    Decline,
    DisputeFact,
    EvidenceRequest,
    Fact,
    FetchRequest,
    GatewayFact,
    RefundRequest,
    RefundResult,
    RefundStatus,
    SavedToken,
    VoidRequest,
)
from payments.kinds import DisputeState, OperationKind
from payments.models import Order, Payment
from payments.money import Money
from payments.screening import Decision, Screening, Stage


@dataclass
class FakeGateway:
    """Keeps books by reference; `faults[kind]` is a list of callables, each used up by one call.

    A fault takes the function that acts and returns what the caller gets; it may act or not, and raise.
    """

    capabilities: Capabilities = field(
        default_factory=lambda: Capabilities(several_captures=True, dispute_evidence=True)
    )
    authorized: dict[str, int] = field(default_factory=dict)
    captured: dict[str, int] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)  # by a final capture, or the release of the rest
    voided: set[str] = field(default_factory=set)
    refunds: dict[str, int] = field(default_factory=dict)
    by_key: dict[str, Any] = field(default_factory=dict)
    operations: dict[str, Any] = field(default_factory=dict)
    faults: dict[str, list[Callable[[Callable[[], Any]], Any]]] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    needs_action: set[str] = field(default_factory=set)
    disputes: dict[str, DisputeFact] = field(default_factory=dict)
    evidence: list[EvidenceRequest] = field(default_factory=list)

    def _do(self, kind: str, request: Any, act: Callable[[], Any]) -> Any:
        self.calls.append((kind, request.key))

        def once() -> Any:
            if request.key not in self.by_key:
                self.by_key[request.key] = act()
                self.operations[request.operation_id] = self.by_key[request.key]
            return self.by_key[request.key]

        scripted = self.faults.get(kind)
        return scripted.pop(0)(once) if scripted else once()

    def authorize(self, request: ChargeRequest) -> ChargeResult:
        return self._do("authorize", request, lambda: self._authorize(request))  # type: ignore[no-any-return]

    def _authorize(self, request: ChargeRequest) -> ChargeResult:
        reference = f"pi_{request.operation_id}"
        if "Declined" in request.payment_method:
            return ChargeResult(
                ChargeStatus.DECLINED,
                reference,
                request.amount,
                decline=Decline("card_declined", "do_not_honor"),
            )
        if request.payment_method == "pm_3ds":
            self.needs_action.add(reference)
            action = {"type": "redirect_to_url", "redirect_to_url": {"url": "https://3ds.example"}}
            return ChargeResult(ChargeStatus.REQUIRES_ACTION, reference, request.amount, next_action=action)
        self.authorized[reference] = request.amount.minor
        return self._authorization(reference, request.amount)

    def _authorization(self, reference: str, amount: Money) -> ChargeResult:
        return ChargeResult(
            ChargeStatus.AUTHORIZED,
            reference,
            amount,
            card=CardDetails(
                brand="visa", last4="4242", country="DE", fingerprint="fp_1", avs="pass", cvc="pass"
            ),
            expires_at=datetime.now(UTC) + timedelta(days=7),
        )

    def capture(self, request: CaptureRequest) -> ChargeResult:
        def act() -> ChargeResult:
            assert request.reference in self.authorized
            assert request.reference not in self.voided
            assert request.reference not in self.closed, "captured after the end"
            total = self.captured.get(request.reference, 0) + request.amount.minor
            assert total <= self.authorized[request.reference], "captured more than authorized"
            self.captured[request.reference] = total
            if request.final or total == self.authorized[request.reference]:
                self.closed.add(request.reference)
            return ChargeResult(ChargeStatus.CAPTURED, request.reference, request.amount)

        return self._do("capture", request, act)  # type: ignore[no-any-return]

    def void(self, request: VoidRequest) -> ChargeResult:
        def act() -> ChargeResult:
            assert request.reference not in self.closed, "voided after the capture"
            assert request.is_rest == (request.reference in self.captured)
            (self.closed if request.is_rest else self.voided).add(request.reference)
            return ChargeResult(ChargeStatus.VOIDED, request.reference, request.amount)

        return self._do("void", request, act)  # type: ignore[no-any-return]

    def refund(self, request: RefundRequest) -> RefundResult:
        def act() -> RefundResult:
            reference = f"re_{request.operation_id}"
            self.refunds[reference] = request.amount.minor
            return RefundResult(RefundStatus.SUCCEEDED, reference, request.amount)

        return self._do("refund", request, act)  # type: ignore[no-any-return]

    def fetch(self, request: FetchRequest) -> ChargeResult | RefundResult | None:
        self.calls.append(("fetch", request.operation_id))
        found = self.operations.get(request.operation_id)
        if isinstance(found, ChargeResult) and found.status == ChargeStatus.REQUIRES_ACTION:
            if found.reference in self.voided:
                return ChargeResult(ChargeStatus.VOIDED, found.reference, found.amount)
            if found.reference not in self.needs_action:
                return self._authorization(found.reference, found.amount)
        return found

    def authenticate(self, reference: str, amount: int) -> None:
        """The customer passes 3-D Secure."""
        self.needs_action.discard(reference)
        self.authorized[reference] = amount

    def fetch_dispute(self, reference: str) -> DisputeFact | None:
        return self.disputes.get(reference)

    def submit_evidence(self, request: EvidenceRequest) -> DisputeFact:
        self.evidence.append(request)
        return self._decide_dispute(request.reference, DisputeState.UNDER_REVIEW)

    def accept_dispute(self, reference: str, *, key: str) -> DisputeFact:
        return self._decide_dispute(reference, DisputeState.ACCEPTED)

    def _decide_dispute(self, reference: str, state: DisputeState) -> DisputeFact:
        self.calls.append(("dispute", reference))
        self.disputes[reference] = replace(
            self.disputes[reference], state=state, occurred_at=datetime.now(UTC), source="answer"
        )
        return self.disputes[reference]

    def forget_payment_method(self, saved: SavedToken) -> None:
        self.calls.append(("forget", saved.token))

    def read_event(self, payload: Mapping[str, Any]) -> Sequence[Fact]:
        return ()

    def list_events(
        self, *, since: datetime, until: datetime | None = None, types: Sequence[str] = ()
    ) -> Iterable[Mapping[str, Any]]:
        return ()

    def settlement_report(self, *, day: date) -> Iterator[bytes]:
        yield b""

    # --- the judge ------------------------------------------------------------------------------------------

    def money_kept(self) -> int:
        return sum(self.captured.values()) - sum(self.refunds.values())

    def orphans(self) -> set[str]:
        """Authorizations that are neither captured nor voided."""
        return set(self.authorized) - set(self.captured) - self.voided


class ScriptedScreener:
    """Approves, unless `decisions` says otherwise for a stage; with what is said of 3-D Secure."""

    def __init__(self) -> None:
        self.sca_exemption = ""
        self.requests_challenge = False
        self.decisions: dict[Stage, Decision | Exception] = {}
        self.recorded: list[Screening] = []
        self.opened: list[str] = []
        self.closed: list[tuple[str, str]] = []

    def screen(self, order: Order, payment: Payment, *, stage: Stage) -> Screening:
        decision = self.decisions.get(stage, Decision.APPROVE)
        if isinstance(decision, Exception):
            raise decision
        return Screening(
            stage,
            decision,
            requests_challenge=self.requests_challenge,
            sca_exemption=self.sca_exemption,
        )

    def record(self, order: Order, payment: Payment, screening: Screening) -> None:
        self.recorded.append(screening)

    def open_review(self, order: Order, payment: Payment, *, expires_at: datetime) -> None:
        self.opened.append(order.id)

    def close_review(self, order: Order, *, reason: str) -> None:
        self.closed.append((order.id, reason))


def fact(
    kind: OperationKind, result: ChargeResult | RefundResult, payment: Payment, operation_id: str = ""
) -> GatewayFact:
    """A webhook's fact about a payment."""
    return GatewayFact(
        kind=kind,
        result=result,
        operation_id=operation_id,
        payment_id=payment.id,
        reference=payment.gateway_reference,
    )
