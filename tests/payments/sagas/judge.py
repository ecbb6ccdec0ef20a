"""A gateway that keeps its own books, notes every breach of its rules, and may answer little or forget its keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from payments.errors import InvalidRequestError
from payments.gateways.base import (
    CaptureRequest,
    ChargeResult,
    ChargeStatus,
    DisputeFact,
    Fact,
    FetchRequest,
    GatewayFact,
    RefundRequest,
    RefundResult,
    RefundStatus,
    VoidRequest,
)
from payments.kinds import DisputeStage, DisputeState, OperationKind
from payments.models import GatewayAccount, Operation, Payment
from payments.money import Money
from tests.fakes import FakeGateway, fact

OPEN_DISPUTES = (DisputeState.NEEDS_RESPONSE, DisputeState.UNDER_REVIEW)


class ProcessDiedError(BaseException):
    """The process is gone between its commit and its next one: nobody catches it, nothing more is written."""


@dataclass
class Judge(FakeGateway):
    """The engine takes an exception for a lost answer, so a breach of the rules is a crime that is written down."""

    account: GatewayAccount = field(default_factory=GatewayAccount)
    crimes: list[str] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    told: set[int] = field(default_factory=set)  # the facts that were delivered
    charge_of: dict[str, str] = field(default_factory=dict)  # by refund
    expired: set[str] = field(default_factory=set)
    dying: str = ""  # the caller of the next movement dies "before" or "after" it

    # --- movements ------------------------------------------------------------------------------------------

    def _do(self, kind: str, request: Any, act: Callable[[], Any]) -> Any:
        self.calls.append((kind, request.key))
        moment, self.dying = self.dying, ""
        if moment == "before":
            raise ProcessDiedError(kind)

        def once() -> Any:
            if request.key in self.by_key:
                return self.by_key[request.key]
            return self._act(kind, request, act)

        scripted = self.faults.get(kind)
        try:
            return scripted.pop(0)(once) if scripted else once()
        finally:
            if moment == "after":
                raise ProcessDiedError(kind)

    def _act(self, kind: str, request: Any, act: Callable[[], Any]) -> Any:
        if request.operation_id in self.operations and kind != "void":
            self.crimes.append(f"{kind} {request.operation_id} was done twice")
        try:
            result = act()
        except AssertionError as crime:
            self.crimes.append(f"{kind} {request.operation_id}: {crime}")
            raise
        if self.capabilities.idempotency_key_hours:
            self.by_key[request.key] = result
        self.operations[request.operation_id] = result
        self.note(OperationKind(kind), result, request.operation_id)
        return result

    def capture(self, request: CaptureRequest) -> ChargeResult:
        if request.amount.minor > self.authorized.get(request.reference, 0):
            self.crimes.append(f"captured too much of {request.reference}")
        if request.reference in self.expired and request.operation_id not in self.operations:
            raise InvalidRequestError("the authorization has expired")
        return super().capture(request)

    def void(self, request: VoidRequest) -> ChargeResult:
        self.needs_action.discard(request.reference)
        if request.reference in self.expired:
            return ChargeResult(ChargeStatus.VOIDED, request.reference, request.amount)
        return super().void(request)

    def refund(self, request: RefundRequest) -> RefundResult:
        is_new = request.operation_id not in self.operations
        if is_new and request.amount.minor > self.left(request.reference):
            raise InvalidRequestError("more than is left of the charge")
        self.charge_of[f"re_{request.operation_id}"] = request.reference
        return super().refund(request)

    # --- questions ------------------------------------------------------------------------------------------

    def fetch(self, request: FetchRequest) -> ChargeResult | RefundResult | None:
        scripted = self.faults.get("fetch")
        if scripted:
            return scripted.pop(0)(lambda: None)  # type: ignore[no-any-return]
        if not self.capabilities.answers_questions:
            return None
        found = super().fetch(request)
        is_charge = isinstance(found, ChargeResult) and request.kind == OperationKind.AUTHORIZE
        if is_charge and found is not None and found.reference in self.voided:
            return ChargeResult(ChargeStatus.VOIDED, found.reference, found.amount)
        return found

    # --- what it tells --------------------------------------------------------------------------------------

    def note(self, kind: OperationKind, result: ChargeResult | RefundResult, operation_id: str) -> None:
        payment = Operation.objects.select_related("payment").get(pk=operation_id).payment
        told = fact(kind, result, payment, operation_id)
        reference = result.reference if isinstance(result, ChargeResult) else told.reference
        self.facts.append(GatewayFact(kind, result, operation_id, payment.id, reference))

    def tell(self, kind: OperationKind, result: ChargeResult | RefundResult, charge: str) -> None:
        """Of what nobody at the shop has asked for."""
        self.facts.append(GatewayFact(kind, result, payment_id=find_payment(charge).id, reference=charge))

    # --- its other doors ------------------------------------------------------------------------------------

    def refund_in_the_dashboard(self, charge: str, amount: int) -> None:
        refund = f"re_dashboard_{len(self.refunds)}"
        self.refunds[refund], self.charge_of[refund] = amount, charge
        result = RefundResult(RefundStatus.SUCCEEDED, refund, money_of(charge, amount))
        self.tell(OperationKind.REFUND, result, charge)

    def expire(self, charge: str) -> None:
        """The hold has ended by itself; of what was captured in part only the rest is gone."""
        rest = self.authorized[charge] - self.captured.get(charge, 0)
        (self.closed if charge in self.captured else self.voided).add(charge)
        self.expired.add(charge)
        result = ChargeResult(ChargeStatus.VOIDED, charge, money_of(charge, rest))
        self.tell(OperationKind.VOID, result, charge)

    def dispute(self, charge: str, amount: int) -> None:
        told = DisputeFact(
            reference=f"dp_{len(self.disputes)}",
            payment_reference=charge,
            stage=DisputeStage.CHARGEBACK,
            state=DisputeState.NEEDS_RESPONSE,
            amount=money_of(charge, amount),
            fee=money_of(charge, 1500),
            is_withdrawn=True,
            payment_id=find_payment(charge).id,
            occurred_at=datetime.now(UTC),
        )
        self.disputes[told.reference] = told
        self.facts.append(told)

    def decide_dispute(self, reference: str, *, won: bool) -> None:
        told = replace(
            self.disputes[reference],
            state=DisputeState.WON if won else DisputeState.LOST,
            is_withdrawn=not won,
            occurred_at=datetime.now(UTC),
        )
        self.disputes[reference] = told
        self.facts.append(told)

    def forget_keys(self) -> None:
        """They are a day old: what is sent again is done again."""
        self.by_key.clear()

    # --- its books ------------------------------------------------------------------------------------------

    def holds(self) -> list[str]:
        """Authorizations that hold something on a card."""
        return sorted(set(self.authorized) - self.closed - self.voided)

    def left(self, charge: str) -> int:
        return self.captured.get(charge, 0) - self.refunded(charge) - self.disputed(charge)

    def refunded(self, charge: str) -> int:
        return sum(minor for refund, minor in self.refunds.items() if self.charge_of[refund] == charge)

    def disputed(self, charge: str, *states: DisputeState) -> int:
        """What the bank has taken and not given back."""
        wanted = states or (*OPEN_DISPUTES, DisputeState.LOST)
        found = [each for each in self.disputes.values() if each.payment_reference == charge]
        return sum(each.amount.minor for each in found if each.state in wanted)

    def untold(self) -> list[Fact]:
        """What the shop cannot know yet: its own answered operations are no news."""
        return [
            each
            for number, each in enumerate(self.facts)
            if number not in self.told and (isinstance(each, DisputeFact) or not each.operation_id)
        ]


def find_payment(charge: str) -> Payment:
    return Operation.objects.select_related("payment").get(pk=charge.removeprefix("pi_")).payment


def money_of(charge: str, minor: int) -> Money:
    return Money(minor, find_payment(charge).currency)
