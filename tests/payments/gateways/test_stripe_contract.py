"""The contract suite on the Stripe adapter, over real HTTP against the sandbox."""

from __future__ import annotations

import csv
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest
import requests

from payments.gateways.base import PaymentGateway
from payments.gateways.stripe import StripeGateway
from payments.kinds import DisputeStage
from payments.sandbox import Sandbox, start
from payments.sandbox.server import Running
from tests.payments.gateways.contract import GatewayContract, Shop
from tests.payments.gateways.contract_shop import HASTE, PATIENCE, one_silence

KEY = "sk_test_contract"

CARDS = {
    "ok": "pm_card_visa",
    "challenge": "pm_card_threeDSecure2Required",
    "challenge_if_asked": "pm_card_threeDSecureOptional",
    "authentication_required": "pm_card_authenticationRequired",
    "avs_fail": "pm_card_avsFail",
    "cvc_fail": "pm_card_cvcCheckFail",
    "wrong_amount": "tok_wrong_amount",
    "capture_fails": "tok_capture_fails",
    "refund_fails_later": "tok_refund_fails_later",
    "unknown_token": "pm_card_unheardOf",
    "decline:card_declined": "pm_card_chargeDeclined",
    "decline:insufficient_funds": "pm_card_chargeDeclinedInsufficientFunds",
    "decline:expired_card": "pm_card_chargeDeclinedExpiredCard",
    "decline:incorrect_cvc": "pm_card_chargeDeclinedIncorrectCvc",
    "decline:lost_or_stolen": "pm_card_chargeDeclinedLostCard",
    "decline:suspected_fraud": "pm_card_chargeDeclinedFraudulent",
}
OPERATIONS = {"void": "cancel", "fetch": "retrieve"}  # where the sandbox has another word


class SandboxWorld:
    """The sandbox through its own controls."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.url = running.url
        self.began = int(time.time())

    def card(self, behaviour: str) -> str:
        return CARDS[behaviour]

    def fail_next(self, operation: str, fault: str, *, operation_id: str, times: int = 1) -> None:
        planned = {"fault": fault, "operation": OPERATIONS.get(operation, operation), "times": times}
        self._post("/_faults", {**planned, "match": {"operation_id": operation_id}})

    def silence(self) -> AbstractContextManager[None]:
        return one_silence(self.running)

    def authenticate(self, reference: str, *, success: bool) -> None:
        self._post(f"/_authenticate/{reference}", {"success": success})

    def settle(self) -> None:
        self._post("/_settle", {})

    def events(self) -> Sequence[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        query: dict[str, Any] = {"created[gte]": self.began, "limit": 100}
        while True:
            response = requests.get(f"{self.url}/v1/events", params=query, auth=(KEY, ""), timeout=PATIENCE)
            answer = response.json()
            found += answer["data"]
            if not answer["has_more"]:
                return found[::-1]
            query["starting_after"] = found[-1]["id"]

    def count_movements(self, operation_id: str) -> Counter[str]:
        query = {"metadata[operation_id]": operation_id}
        books = requests.get(f"{self.url}/_books", params=query, timeout=PATIENCE).json()
        totals: Counter[str] = Counter()
        for intent in books["payment_intents"].values():
            totals.update({name: number for name, number in intent.items() if isinstance(number, int)})
        return totals

    def dispute(self, reference: str, *, stage: DisputeStage) -> str:
        body = {"payment_intent": reference, "inquiry": stage is DisputeStage.INQUIRY}
        return str(self._post("/_disputes", body)["id"])

    def decide(self, dispute: str, *, won: bool) -> None:
        self._post("/_disputes", {"dispute": dispute, "status": "won" if won else "lost"})

    def evidence(self, dispute: str) -> bytes:
        return requests.get(f"{self.url}/_disputes/{dispute}/evidence", timeout=PATIENCE).content

    def tomorrow(self) -> None:
        self._post("/_clock", {"advance_seconds": 24 * 60 * 60})

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        answer = requests.post(f"{self.url}{path}", json=body, timeout=PATIENCE)
        answer.raise_for_status()
        return answer.json()


class TestStripe(GatewayContract):
    exceptional_currencies = ("ISK", "UGX")

    @pytest.fixture
    def world(self, request: pytest.FixtureRequest, sandbox: Sandbox) -> Any:
        """The report's test moves the clock, so it has a world of its own."""
        if "reported" not in request.node.name:
            yield SandboxWorld(sandbox)
            return
        with start() as own:
            yield SandboxWorld(own)

    @pytest.fixture
    def gateway(self, world: SandboxWorld) -> PaymentGateway:
        return StripeGateway(KEY, api_base=world.url, timeout=PATIENCE)

    @pytest.fixture
    def hasty(self, world: SandboxWorld) -> PaymentGateway:
        return StripeGateway(KEY, api_base=world.url, timeout=HASTE)

    def read_report(self, report: bytes, shop: Shop) -> list[tuple[str, str]]:
        rows = csv.DictReader(report.decode().splitlines())
        mine = [row for row in rows if row["payment_metadata[order_id]"] == shop.order_id]
        return [(row["gross"], row["refund_metadata[operation_id]"]) for row in mine]

    def test_an_authorization_tells_stripes_risk_score(self, shop: Shop) -> None:
        card = shop.authorize().card
        assert card is not None
        assert card.risk_score is not None

    def test_a_processing_error_may_be_tried_again_later(self, shop: Shop) -> None:
        request = shop.charge(payment_method="pm_card_chargeDeclinedProcessingError")
        decline = shop.gateway.authorize(request).decline
        assert decline is not None
        assert (decline.code, decline.advice) == ("processing_error", "try_again_later")
