"""The contract suite on the Braintree adapter, over real HTTP against the sandbox's Braintree."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
import requests

from payments.gateways.base import ChargeStatus, PaymentGateway
from payments.gateways.braintree import BraintreeGateway
from payments.kinds import DisputeStage
from payments.sandbox.braintree import start
from payments.sandbox.server import Running
from tests.payments.gateways.contract import GatewayContract, Shop
from tests.payments.gateways.contract_shop import HASTE, PATIENCE, one_silence
from webhooks.verifiers import braintree as verifier

KEYS = "public|private"
CURRENCIES = ("JPY", "KWD")
CARDS = {
    "ok": "fake-valid-nonce",
    "avs_fail": "fake-avs-fail-nonce",
    "cvc_fail": "fake-cvv-fail-nonce",
    "wrong_amount": "fake-wrong-amount-nonce",
    "capture_fails": "fake-capture-fails-nonce",
    "refund_fails_later": "fake-refund-pending-nonce",
    "unknown_token": "fake-unheard-of",
    "needs_authentication": "fake-requires-authentication-nonce",
    "decline:card_declined": "fake-decline-2038-nonce",
    "decline:insufficient_funds": "fake-decline-2001-nonce",
    "decline:expired_card": "fake-decline-2004-nonce",
    "decline:incorrect_cvc": "fake-decline-2010-nonce",
    "decline:lost_or_stolen": "fake-decline-2012-nonce",
    "decline:suspected_fraud": "fake-decline-2014-nonce",
}
OPERATIONS = {"void": "cancel", "fetch": "retrieve"}  # where the sandbox has another word
STAGES = {DisputeStage.INQUIRY: "retrieval"}


class BraintreeWorld:
    """The sandbox's Braintree through its own controls; captures settle at once, so that they can be refunded."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.url = running.url
        self.offset = timedelta()
        self.told: list[Mapping[str, Any]] = []
        accounts = {f"shop_{currency}": currency for currency in CURRENCIES}
        self._post("/_settings", {"settles_at_once": True, "merchant_accounts": accounts})
        self._post("/_webhooks", {"url": None, "secret": KEYS})

    def card(self, behaviour: str) -> str:
        return CARDS[behaviour]

    def fail_next(self, operation: str, fault: str, *, operation_id: str, times: int = 1) -> None:
        planned = {"fault": fault, "operation": OPERATIONS.get(operation, operation), "times": times}
        self._post("/_faults", {**planned, "match": {"operation_id": operation_id}})

    def silence(self) -> AbstractContextManager[None]:
        return one_silence(self.running)

    def authenticate(self, reference: str, *, success: bool) -> None:
        raise NotImplementedError("the browser authenticates a nonce before it is charged")

    def settle(self) -> None:
        self._post("/_settle", {})

    def events(self) -> Sequence[Mapping[str, Any]]:
        return self.told

    def count_movements(self, operation_id: str) -> Counter[str]:
        query = {"operation_id": operation_id}
        return Counter(requests.get(f"{self.url}/_books", params=query, timeout=PATIENCE).json())

    def dispute(self, reference: str, *, stage: DisputeStage) -> str:
        body = {"transaction": reference, "kind": STAGES.get(stage, stage.value)}
        dispute = str(self._post("/_disputes", body)["id"])
        self._tell("dispute_opened", dispute)
        return dispute

    def decide(self, dispute: str, *, won: bool) -> None:
        status = "won" if won else "lost"
        self._post("/_disputes", {"dispute": dispute, "status": status})
        self._tell(f"dispute_{status}", dispute)

    def evidence(self, dispute: str) -> bytes:
        given = requests.get(f"{self.url}/_evidence", params={"dispute": dispute}, timeout=PATIENCE).json()
        return b"\n".join(text.encode("latin-1", "replace") for text in given["comments"] + given["files"])

    def tomorrow(self) -> None:
        self.offset += timedelta(days=1)
        self._post("/_clock", {"advance_seconds": 24 * 60 * 60})

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def _tell(self, kind: str, dispute: str) -> None:
        """A notification as the archive would keep it."""
        form = self._post("/_notify", {"kind": kind, "dispute": dispute})
        body = urlencode({name: form[name] for name in ("bt_signature", "bt_payload")}).encode()
        verifier.verify(headers={}, body=body, secrets=[KEYS], now=0)
        self.told.append(json.loads(verifier.read_envelope(body).content))

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        response = requests.post(f"{self.url}{path}", json=body, timeout=PATIENCE)
        response.raise_for_status()
        return response.json()


def connect(world: BraintreeWorld, *, timeout: float) -> PaymentGateway:
    return BraintreeGateway(
        "shop",
        "public",
        "private",
        api_base=world.url,
        timeout=timeout,
        merchant_accounts={currency: f"shop_{currency}" for currency in CURRENCIES},
        several_captures=True,
        clock=world.now,
    )


class TestBraintree(GatewayContract):
    exemption_words = {"low_value": "low_value", "tra": "transaction_risk_analysis"}

    @pytest.fixture
    def world(self) -> Any:
        with start() as sandbox:
            yield BraintreeWorld(sandbox)

    @pytest.fixture
    def gateway(self, world: BraintreeWorld) -> PaymentGateway:
        return connect(world, timeout=PATIENCE)

    @pytest.fixture
    def hasty(self, world: BraintreeWorld) -> PaymentGateway:
        return connect(world, timeout=HASTE)

    def read_report(self, report: bytes, shop: Shop) -> list[tuple[str, str]]:
        """The world is its own, so every row is about this shop."""
        rows = csv.DictReader(report.decode().splitlines())
        return [
            (f"-{row['amount']}", row["order_id"]) if row["type"] == "credit" else (row["amount"], "")
            for row in rows
        ]

    def test_an_authorization_tells_the_risk_score(self, shop: Shop) -> None:
        card = shop.authorize().card
        assert card is not None
        assert card.risk_score is not None

    def test_authentication_happens_before_the_charge_or_is_asked_for(self, shop: Shop) -> None:
        """Instead of a challenge: the storefront authenticates the nonce, and charges it again."""
        plain = shop.another().authorize(payment_method="fake-requires-authentication-nonce")
        asked = shop.another().authorize(request_three_d_secure=True)
        for refused, code in ((plain, "2099"), (asked, "three_d_secure")):
            assert refused.status is ChargeStatus.DECLINED
            assert refused.decline is not None
            assert (refused.decline.code, refused.decline.advice) == (
                "authentication_required",
                "authenticate",
            )
            assert refused.decline.gateway_code == code
        nonce = "fake-three-d-secure-visa-full-authentication-nonce"
        held = shop.authorize(payment_method=nonce, request_three_d_secure=True)
        assert held.status is ChargeStatus.AUTHORIZED
        assert held.card is not None
        assert held.card.three_d_secure == "authenticated"
