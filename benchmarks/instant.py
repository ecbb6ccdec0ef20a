"""A gateway inside the process that answers at once and keeps no books: what is left of a call's time is ours."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from django.conf import settings

from payments.gateways.base import (
    Capabilities,
    CaptureRequest,
    CardDetails,
    ChargeRequest,
    ChargeResult,
    ChargeStatus,
    FetchRequest,
    RefundRequest,
    RefundResult,
    RefundStatus,
    VoidRequest,
)


def install() -> None:
    """Let the default account use it, inside the whole stack; before the first `get_gateway`."""
    settings.PAYMENT_GATEWAYS["stripe"] = f"{__name__}.InstantGateway"
    os.environ.setdefault("STRIPE_API_KEY", "sk_test_bench")


class InstantGateway:
    """Says yes to everything."""

    capabilities = Capabilities(several_captures=True)

    @classmethod
    def from_account(cls, credentials: Mapping[str, str]) -> InstantGateway:
        return cls()

    def authorize(self, request: ChargeRequest) -> ChargeResult:
        card = CardDetails(
            brand="visa", last4="4242", country="DE", fingerprint=request.operation_id, avs="pass", cvc="pass"
        )
        return ChargeResult(
            ChargeStatus.AUTHORIZED,
            f"pi_{request.operation_id}",
            request.amount,
            card=card,
            expires_at=datetime.now(UTC) + timedelta(days=7),
        )

    def capture(self, request: CaptureRequest) -> ChargeResult:
        return ChargeResult(ChargeStatus.CAPTURED, request.reference, request.amount)

    def void(self, request: VoidRequest) -> ChargeResult:
        return ChargeResult(ChargeStatus.VOIDED, request.reference, request.amount)

    def refund(self, request: RefundRequest) -> RefundResult:
        return RefundResult(RefundStatus.SUCCEEDED, f"re_{request.operation_id}", request.amount)

    def fetch(self, request: FetchRequest) -> None:
        return None
