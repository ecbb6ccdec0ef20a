"""What a simulated event is about: a payment of ours, and which of its movements."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from django.db.models import QuerySet

from payments.errors import ConflictError, InvalidRequestError
from payments.kinds import OperationKind
from payments.models import Dispute, Operation, OperationState, Payment
from payments.money import Money

OUTSIDE = "outside"  # instead of an operation's id: it was done at the gateway's own pages
_NEVER_SENT = (OperationState.CREATED,)
_HOLDS_NOTHING = (OperationState.CREATED, OperationState.DECLINED, OperationState.FAILED)


@dataclass(frozen=True, slots=True)
class SimulatedDelivery:
    """One POST to `path`: the body and the headers that the gateway would send."""

    path: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Movement:
    """A capture, a void or a refund as the gateway tells of it; `operation` is None for one made at its own pages."""

    operation: Operation | None
    money: Money
    name: str  # of it alone: what a reference is made of where the gateway has given none

    @property
    def operation_id(self) -> str:
        return self.operation.pk if self.operation else ""

    @property
    def reference(self) -> str:
        """The gateway's own, or ""."""
        return self.operation.gateway_reference if self.operation else ""


@dataclass(frozen=True, slots=True)
class Subject:
    """A payment at one moment of the gateway's clock. What cannot be said of it is a `ConflictError`."""

    payment: Payment
    now: datetime
    operation_id: str = ""
    minor: int | None = None
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def name(self) -> str:
        """What a reference of the payment is made of where the gateway has given none."""
        return self.payment.pk.rpartition("_")[2]

    def find_authorization(self) -> Operation:
        found = self._sent(OperationKind.AUTHORIZE).last()
        if found is None:
            raise self.refuse("was never sent to the gateway")
        return found

    def capture(self) -> Movement:
        self._check_held()
        left = self.payment.capturable or self._unheard()
        return self._move(OperationKind.CAPTURE, left, "has nothing left to capture")

    def void(self) -> Movement:
        self.find_authorization()
        left = self.payment.capturable or self._unheard()
        return self._move(OperationKind.VOID, left, "has nothing left to release")

    def refund(self) -> Movement:
        return self._move(OperationKind.REFUND, self.payment.refundable, "has nothing left to refund")

    def find_captures(self) -> list[Operation]:
        """Those that succeeded, oldest first."""
        return list(self._sent(OperationKind.CAPTURE).filter(state=OperationState.SUCCEEDED))

    def dispute(self) -> tuple[str, Money]:
        """The newest dispute's reference, "" where there is none yet, and the amount."""
        known = Dispute.objects.filter(payment=self.payment).order_by("pk").last()
        amount = known.amount if known else self.payment.captured - self.payment.refunded
        money = self.money(amount, "has no captured amount that could be disputed")
        return (known.gateway_reference if known else ""), money

    def money(self, default: int, problem: str) -> Money:
        """The amount that was wished for, or `default` minor units; `problem` when there are none."""
        if self.minor is not None and self.minor <= 0:
            raise InvalidRequestError(f"the amount {self.minor} is not positive; nothing was sent")
        if default <= 0:
            raise self.refuse(problem)
        return Money(self.minor or default, self.payment.currency)

    def _move(self, kind: OperationKind, left: int, problem: str) -> Movement:
        operation = self._find(kind)
        money = self.money(operation.amount if operation else left, problem)
        return Movement(operation, money, operation.pk.rpartition("_")[2] if operation else self.token)

    def _find(self, kind: OperationKind) -> Operation | None:
        """The one named, else the newest."""
        if self.operation_id == OUTSIDE:
            return None
        sent = self._sent(kind)
        if not self.operation_id:
            return sent.last()
        found = sent.filter(pk=self.operation_id).first()
        if found is None:
            raise InvalidRequestError(
                f"{self.operation_id} is no {kind} of {self.payment} that was sent; nothing was sent"
            )
        return found

    def _sent(self, kind: OperationKind) -> QuerySet[Operation]:
        return self.payment.operations.filter(kind=kind).exclude(state__in=_NEVER_SENT).order_by("pk")

    def _check_held(self) -> None:
        if self.find_authorization().state in _HOLDS_NOTHING:
            raise self.refuse("was never authorized")

    def _unheard(self) -> int:
        """Minor units that the gateway may hold although nobody has told us yet."""
        state = self.find_authorization().state
        is_open = state not in _HOLDS_NOTHING and state != OperationState.SUCCEEDED
        return self.payment.amount if is_open else 0

    def refuse(self, problem: str) -> ConflictError:
        return ConflictError(f"{self.payment} {problem}; nothing was sent")


@dataclass(frozen=True, slots=True)
class SimulatedEvent:
    """An event that a gateway sends: what it says, how it is made, and which one comes before it."""

    says: str
    make: Callable[[Subject], dict[str, Any]]
    before: str = ""


class Simulator(Protocol):
    """One gateway's events; a name may end in `:` and a word where one type says several things."""

    EVENTS: Mapping[str, SimulatedEvent]
    HAS_WINDOW: bool  # the signature has a time, so a delivery may be too late
    SENDS_BATCHES: bool

    def write(self, names: Sequence[str], subject: Subject) -> dict[str, Any]:
        """The delivery's content, not signed yet."""

    def seal(
        self, content: Mapping[str, Any], *, secret: str, signed_at: int
    ) -> tuple[bytes, dict[str, str]]:
        """The body and the headers, signed."""

    def forge_secret(self, secret: str) -> str:
        """One of the same form that is nobody's."""
