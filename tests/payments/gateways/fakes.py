"""A gateway that answers from a script, and a clock that stands still until it is moved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from payments.gateways.base import (
    Capabilities,
    CaptureRequest,
    ChargeRequest,
    ChargeResult,
    ChargeStatus,
    Decline,
    FetchRequest,
    GatewayFact,
    RefundRequest,
    RefundResult,
    VoidRequest,
)
from payments.money import Money

EUROS = Money(1999, "EUR")
AUTHORIZED = ChargeResult(ChargeStatus.AUTHORIZED, "pi_1", EUROS)
DECLINED = ChargeResult(ChargeStatus.DECLINED, "pi_1", EUROS, decline=Decline("card_declined"))
CHARGE = ChargeRequest("key-1", "op_1", "pay_1", "ord_1", EUROS, "pm_card_visa")
CAPTURE = CaptureRequest("key-2", "op_2", "pi_1", EUROS)


class FakeClock:
    def __init__(self, now: float = 1_760_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class ScriptedGateway:
    """Gives the outcomes one by one, the last one for ever; an exception among them is raised."""

    capabilities = Capabilities()

    def __init__(self, *outcomes: Any) -> None:
        self._outcomes = list(outcomes)
        self.requests: list[Any] = []

    def _next(self, request: Any) -> Any:
        self.requests.append(request)
        outcome = self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def authorize(self, request: ChargeRequest) -> ChargeResult:
        result: ChargeResult = self._next(request)
        return result

    def capture(self, request: CaptureRequest) -> ChargeResult:
        result: ChargeResult = self._next(request)
        return result

    def void(self, request: VoidRequest) -> ChargeResult:
        result: ChargeResult = self._next(request)
        return result

    def refund(self, request: RefundRequest) -> RefundResult:
        result: RefundResult = self._next(request)
        return result

    def fetch(self, request: FetchRequest) -> ChargeResult | RefundResult | None:
        result: ChargeResult | RefundResult | None = self._next(request)
        return result

    def read_event(self, payload: Mapping[str, Any]) -> Sequence[GatewayFact]:
        return []

    def list_events(
        self, *, since: datetime, until: datetime | None = None, types: Sequence[str] = ()
    ) -> Iterable[Mapping[str, Any]]:
        result: Iterable[Mapping[str, Any]] = self._next(types)
        return result

    def settlement_report(self, *, day: date) -> Iterator[bytes]:
        result: Iterator[bytes] = self._next(day)
        return result
