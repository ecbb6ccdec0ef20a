"""Asks whoever settings.PAYMENT_SCREENER names whether an order is fraud."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Protocol, cast

from django.conf import settings
from django.utils.module_loading import import_string  # noqa: TID251 - this is the resolver

from payments.decisions import Decision, Stage
from payments.models import Order, Payment

__all__ = ["Decision", "Screener", "Screening", "Stage", "get_screener"]


@dataclass(frozen=True, slots=True)
class Screening:
    """One decision with its reasons; `data` is the screener's own and comes back to `record`."""

    stage: Stage
    decision: Decision
    score: int = 0
    reasons: Sequence[str] = ()
    requests_challenge: bool = False  # 3-D Secure, besides what the decision asks for
    sca_exemption: str = ""  # low_value | tra | recurring; of an order that is approved at once alone
    data: Any = field(default=None, compare=False)


class Screener(Protocol):
    """Who decides. Exceptions are handled by the saga: the configured policy is to hold for review."""

    def screen(self, order: Order, payment: Payment, *, stage: Stage) -> Screening:
        """Decide. BEFORE runs with no transaction open and may use the network; AFTER runs inside one and may not."""

    def record(self, order: Order, payment: Payment, screening: Screening) -> None:
        """Keep the verdicts, inside the transaction in which the saga moves on."""

    def open_review(self, order: Order, payment: Payment, *, expires_at: datetime) -> None:
        """Put the order into the queue, inside the transaction in which the saga begins to wait. Idempotent."""

    def close_review(self, order: Order, *, reason: str) -> None:
        """The saga went on without an analyst (deadline, cancellation, gateway): take it out of the queue."""


@cache
def _load(path: str) -> Screener:
    return cast(Screener, import_string(path)())


def get_screener() -> Screener:
    return _load(settings.PAYMENT_SCREENER)
