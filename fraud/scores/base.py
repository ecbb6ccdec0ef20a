"""What a score is and who gives one: from 0, surely genuine, to 1, surely fraud, or no value and the reason why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol


class ScoreStatus(StrEnum):
    OK = "ok"
    OFF = "off"  # nobody is named to ask
    TIMEOUT = "timeout"
    ERROR = "error"
    SKIPPED = "skipped"  # it kept failing, and is left alone for some seconds


@dataclass(frozen=True, slots=True)
class RiskScore:
    """One answer. `value` is None unless the status is ok: no answer is never a low score."""

    status: ScoreStatus
    value: float | None = None  # 0 to 1
    provider: str = ""
    version: str = ""
    reasons: tuple[str, ...] = ()
    latency_ms: int = 0
    error: str = ""

    def describe(self) -> str:
        """For people: `0.82 from acme v3 in 41 ms: many cards`, or `no answer from acme in 300 ms: timeout`."""
        who = f"from {self.provider} {self.version}".strip()
        if self.value is None:
            why = self.error or self.status.value
            return f"no score {who} in {self.latency_ms} ms: {why}"
        told = f": {', '.join(self.reasons)}" if self.reasons else ""
        return f"{self.value:.4f} {who} in {self.latency_ms} ms{told}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe, for `FraudContext.scores`."""
        told = {
            "status": self.status.value,
            "value": self.value,
            "provider": self.provider,
            "version": self.version,
            "reasons": list(self.reasons),
            "latency_ms": self.latency_ms,
            "error": self.error,
        }
        return {name: value for name, value in told.items() if value not in ("", None, [])}


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """What is told of an order: facts without a name, and keyed hashes by which it is known again."""

    order_id: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)  # customer, email, ip, device, card -> keyed hash


class RiskScorer(Protocol):
    """Somebody who scores. Never raises: what goes wrong is a status."""

    def score(self, request: ScoreRequest) -> RiskScore: ...


class NoScorer:
    """Nobody is named in the settings."""

    def score(self, request: ScoreRequest) -> RiskScore:
        return RiskScore(ScoreStatus.OFF)


class ScoreError(Exception):
    """No score; the message says why, without anything of the order."""


class ScoreTimeoutError(ScoreError):
    """No score in time."""


def check_value(value: object) -> float:
    """A number from 0 to 1. Raises `ScoreError` for anything else: true, text, NaN, 1.01."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ScoreError("the score is no number")
    if not 0 <= value <= 1:
        raise ScoreError("the score is not between 0 and 1")
    return float(value)


def failed(error: Exception, *, provider: str, version: str = "", latency_ms: int = 0) -> RiskScore:
    """The score of who did not give one."""
    status = ScoreStatus.TIMEOUT if isinstance(error, ScoreTimeoutError) else ScoreStatus.ERROR
    words = str(error)[:200] if isinstance(error, ScoreError) else type(error).__name__
    return RiskScore(status, None, provider, version, latency_ms=latency_ms, error=words)
