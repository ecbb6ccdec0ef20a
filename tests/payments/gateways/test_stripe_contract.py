"""The contract suite on the Stripe adapter, over real HTTP against the sandbox."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import requests

from payments.gateways.base import PaymentGateway
from payments.gateways.stripe import StripeGateway
from payments.sandbox import Sandbox, start
from tests.payments.gateways.contract import GatewayContract, Shop

TIMEOUT = 1.0

CARDS = {
    "ok": "pm_card_visa",
    "challenge": "pm_card_threeDSecure2Required",
    "challenge_if_asked": "pm_card_threeDSecureOptional",
    "avs_fail": "pm_card_avsFail",
    "cvc_fail": "pm_card_cvcCheckFail",
    "wrong_amount": "tok_wrong_amount",
    "capture_fails": "tok_capture_fails",
    "refund_fails_later": "tok_refund_fails_later",
    "unknown_token": "pm_card_unheardOf",
    "decline:generic_decline": "pm_card_chargeDeclined",
    "decline:insufficient_funds": "pm_card_chargeDeclinedInsufficientFunds",
    "decline:expired_card": "pm_card_chargeDeclinedExpiredCard",
    "decline:incorrect_cvc": "pm_card_chargeDeclinedIncorrectCvc",
    "decline:processing_error": "pm_card_chargeDeclinedProcessingError",
    "decline:lost_card": "pm_card_chargeDeclinedLostCard",
    "decline:fraudulent": "pm_card_chargeDeclinedFraudulent",
}


class SandboxWorld:
    """The sandbox through its own controls."""

    def __init__(self, url: str) -> None:
        self.url = url

    def card(self, behaviour: str) -> str:
        return CARDS[behaviour]

    def fail_next(self, operation: str, fault: str, *, operation_id: str, times: int = 1) -> None:
        match = {"operation_id": operation_id}
        self._post("/_faults", {"fault": fault, "operation": operation, "times": times, "match": match})

    def authenticate(self, reference: str, *, success: bool) -> None:
        self._post(f"/_authenticate/{reference}", {"success": success})

    def count_movements(self, operation_id: str) -> Counter[str]:
        query = {"metadata[operation_id]": operation_id}
        books = requests.get(f"{self.url}/_books", params=query, timeout=5).json()
        totals: Counter[str] = Counter()
        for intent in books["payment_intents"].values():
            totals.update({name: number for name, number in intent.items() if isinstance(number, int)})
        return totals

    def tomorrow(self) -> None:
        self._post("/_clock", {"advance_seconds": 24 * 60 * 60})

    def _post(self, path: str, body: dict[str, Any]) -> None:
        requests.post(f"{self.url}{path}", json=body, timeout=5).raise_for_status()


class TestStripe(GatewayContract):
    @pytest.fixture
    def world(self, request: pytest.FixtureRequest, sandbox: Sandbox) -> Any:
        """The report's test moves the clock, so it has a world of its own."""
        if "reported" not in request.node.name:
            yield SandboxWorld(sandbox.url)
            return
        with start() as own:
            yield SandboxWorld(own.url)

    @pytest.fixture
    def gateway(self, world: SandboxWorld) -> PaymentGateway:
        return StripeGateway("sk_test_contract", api_base=world.url, timeout=TIMEOUT)

    def is_row_of(self, row: dict[str, str], shop: Shop) -> bool:
        return row["payment_metadata[order_id]"] == shop.order_id

    def gross(self, row: dict[str, str]) -> str:
        return row["gross"]

    def refund_operation(self, row: dict[str, str]) -> str:
        return row["refund_metadata[operation_id]"]
