"""The contract suite on the Adyen adapter, over real HTTP against its stand-in."""

from __future__ import annotations

import base64
import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import requests

from payments.gateways.adyen import AdyenGateway
from payments.gateways.base import ChargeResult, ChargeStatus, PaymentGateway, RefundStatus
from payments.kinds import DisputeStage, OperationKind
from payments.money import Money
from payments.sandbox.adyen import start
from payments.sandbox.server import Running
from tests.payments.gateways.contract import (
    EUR,
    CaptureContract,
    EventContract,
    GatewayContract,
    RefundContract,
    Shop,
)
from tests.payments.gateways.contract_shop import HASTE, PATIENCE, one_silence

KEY = "AQE_contract"
ACCOUNT = "CountinghouseECOM"

CARDS = {
    "ok": "TESTVISA",
    "challenge": "TESTCHALLENGE",
    "needs_authentication": "TESTCHALLENGE",
    "challenge_if_asked": "TESTCHALLENGEIFASKED",
    "authentication_required": "TESTHOLDERNEEDED",
    "avs_fail": "TESTAVSFAIL",
    "cvc_fail": "TESTCVCFAIL",
    "wrong_amount": "TESTWRONGAMOUNT",
    "capture_fails": "TESTCAPTUREREFUSED",
    "capture_fails_later": "TESTCAPTUREFAILS",
    "refund_fails_later": "TESTREFUNDFAILS",
    "unknown_token": "TESTNOBODY",
    "decline:card_declined": "TESTREFUSED2",
    "decline:insufficient_funds": "TESTREFUSED12",
    "decline:expired_card": "TESTREFUSED6",
    "decline:incorrect_cvc": "TESTREFUSED24",
    "decline:lost_or_stolen": "TESTREFUSED5",
    "decline:suspected_fraud": "TESTREFUSED20",
    "decline:processing_error": "TESTREFUSED4",
}
OPERATIONS = {"void": "cancel", "fetch": "retrieve"}  # where the stand-in has another word
# What the bank tells, in the order of its telling.
OPENED = {
    DisputeStage.INQUIRY: ("REQUEST_FOR_INFORMATION",),
    DisputeStage.CHARGEBACK: ("NOTIFICATION_OF_CHARGEBACK", "CHARGEBACK"),
}
WON = ("CHARGEBACK_REVERSED", "ISSUER_RESPONSE_TIMEFRAME_EXPIRED")
LOST = ("CHARGEBACK_REVERSED", "SECOND_CHARGEBACK")


def make_token(card: str, **more: Any) -> str:
    """What the shop's page would send of a card that Adyen's component encrypted."""
    method = {"type": "scheme", "encryptedCardNumber": card, **more}
    return "data:" + base64.urlsafe_b64encode(json.dumps(method).encode()).decode()


class AdyenWorld:
    """The stand-in through its own controls; its webhooks are handed over instead of being delivered."""

    def __init__(self, running: Running, *, several_captures: bool = False) -> None:
        self.running = running
        self.url = running.url
        self.told: list[Mapping[str, Any]] = []
        self.post("/_settings", {"several_captures": several_captures})

    def card(self, behaviour: str) -> str:
        return make_token(CARDS[behaviour])

    def fail_next(self, operation: str, fault: str, *, operation_id: str, times: int = 1) -> None:
        planned = {"fault": fault, "operation": OPERATIONS.get(operation, operation), "times": times}
        self.post("/_faults", {**planned, "match": {"operation_id": operation_id}})

    def silence(self) -> AbstractContextManager[None]:
        return one_silence(self.running)

    def authenticate(self, reference: str, *, success: bool) -> str:
        returned = self.post("/_authenticate", {"reference": reference, "success": success})
        return str(returned.get("redirectResult", ""))

    def settle(self) -> None:
        self.flush()

    def flush(self, batch: int = 1) -> list[Mapping[str, Any]]:
        """What waited to be told since the last time, as webhooks of so many notifications each."""
        told: list[Mapping[str, Any]] = self.post("/_webhooks/flush", {"batch": batch})["webhooks"]
        self.told += told
        return told

    def events(self) -> Sequence[Mapping[str, Any]]:
        self.flush()
        return self.told

    def count_movements(self, operation_id: str) -> Counter[str]:
        query = {"metadata": {"operation_id": operation_id}}
        books = requests.get(f"{self.url}/_books", json=query, timeout=PATIENCE).json()
        totals: Counter[str] = Counter()
        for payment in books["payments"].values():
            totals.update({name: number for name, number in payment.items() if isinstance(number, int)})
        return totals

    def dispute(self, reference: str, *, stage: DisputeStage) -> str:
        first, *more = OPENED[stage]
        dispute = str(self.post("/_disputes", {"reference": reference, "event": first})["id"])
        self._move_on(dispute, more)
        return dispute

    def decide(self, dispute: str, *, won: bool) -> None:
        self._move_on(dispute, WON if won else LOST)

    def _move_on(self, dispute: str, events: Sequence[str]) -> None:
        for event in events:
            self.post("/_disputes", {"dispute": dispute, "event": event})

    def evidence(self, dispute: str) -> bytes:
        given = requests.get(f"{self.url}/_evidence", params={"dispute": dispute}, timeout=PATIENCE).json()
        return b"\n".join(base64.b64decode(content) for content in given["documents"])

    def tomorrow(self) -> None:
        self.post("/_clock", {"advance_seconds": 24 * 60 * 60})

    def post(self, path: str, body: dict[str, Any]) -> Any:
        response = requests.post(f"{self.url}{path}", json=body, timeout=PATIENCE)
        response.raise_for_status()
        return response.json()


def read_report(report: bytes, shop: Shop) -> list[tuple[str, str]]:
    """A booking leaves the bucket of what is captured with the opposite sign."""
    rows = csv.DictReader(report.decode().splitlines())
    mine = [row for row in rows if row["Merchant Order Reference"] == shop.order_id]
    return [
        (row["Payable (SC)"], row["Modification Merchant Reference"])
        if row["Record Type"] == "Refunded"
        else (row["Captured (PC)"].removeprefix("-"), "")
        for row in mine
        if row["Record Type"] in ("Settled", "Refunded")
    ]


class TestAdyen(GatewayContract):
    """An account as Adyen opens it: one capture, which releases the rest."""

    exceptional_currencies = ("CLP", "ISK")
    exemption_words = {"low_value": "lowValue", "tra": "transactionRiskAnalysis"}
    stage_of_a_loss = DisputeStage.PRE_ARBITRATION

    @pytest.fixture
    def world(self) -> Iterator[AdyenWorld]:
        with start() as running:
            yield AdyenWorld(running)

    @pytest.fixture
    def gateway(self, world: AdyenWorld) -> PaymentGateway:
        return AdyenGateway(KEY, ACCOUNT, api_base=world.url, timeout=PATIENCE)

    @pytest.fixture
    def hasty(self, world: AdyenWorld) -> PaymentGateway:
        return AdyenGateway(KEY, ACCOUNT, api_base=world.url, timeout=HASTE)

    def read_report(self, report: bytes, shop: Shop) -> list[tuple[str, str]]:
        return read_report(report, shop)

    # --- declines and challenges ----------------------------------------------------------------------------

    def test_a_processing_error_may_be_tried_again_later(self, shop: Shop) -> None:
        decline = shop.authorize("decline:processing_error").decline
        assert decline is not None
        assert (decline.code, decline.advice) == ("processing_error", "try_again_later")

    @pytest.mark.parametrize(
        "code", ["card_declined", "incorrect_cvc", "processing_error", "suspected_fraud"]
    )
    def test_a_webhook_tells_a_decline_as_the_answer_did(self, shop: Shop, code: str) -> None:
        """It has Adyen's words, and not the number that the answer has beside them."""
        answered = shop.authorize(f"decline:{code}")
        told = shop.learn(OperationKind.AUTHORIZE, shop.operation_id)
        assert isinstance(told, ChargeResult)
        assert told.status is ChargeStatus.DECLINED
        assert told.decline == answered.decline

    def test_what_the_customer_brings_back_completes_the_challenge(
        self, shop: Shop, world: AdyenWorld, gateway: AdyenGateway
    ) -> None:
        assert shop.authorize("challenge").reference == ""
        returned = world.post("/_authenticate", {"reference": shop.operation_id, "success": True})
        result = gateway.complete_authentication(
            operation_id=shop.operation_id,
            amount=Money(1999, EUR),
            redirect_result=returned["redirectResult"],
        )
        told = shop.learn(OperationKind.AUTHORIZE, shop.operation_id)
        assert isinstance(told, ChargeResult)
        assert (result.status, result.reference) == (ChargeStatus.AUTHORIZED, told.reference)

    def test_who_comes_back_after_the_void_is_charged_nothing(self, shop: Shop) -> None:
        asked = shop.authorize("challenge")
        shop.void(asked)
        shop.authenticate(asked, success=True)
        assert [fact.kind for fact in shop.told()] == [OperationKind.VOID]
        assert shop.count("charges") == 0

    # --- what is only received ------------------------------------------------------------------------------

    def test_the_webhook_names_what_the_answer_called_its_own(self, shop: Shop) -> None:
        held = shop.authorize()
        asked = shop.gateway.capture(shop.capture_request(held))
        (fact,) = [fact for fact in shop.told(held.reference) if fact.kind is OperationKind.CAPTURE]
        assert isinstance(fact.result, ChargeResult)
        assert fact.result.own_reference == asked.own_reference != ""
        assert fact.reference == held.reference

    def test_a_capture_may_fail_after_it_was_a_success(self, shop: Shop) -> None:
        held = shop.authorize("capture_fails_later")
        shop.capture(held)
        _, done, undone = [fact.result for fact in shop.told(held.reference)]
        assert isinstance(done, ChargeResult)
        assert isinstance(undone, ChargeResult)
        assert (done.status, undone.status) == (ChargeStatus.CAPTURED, ChargeStatus.FAILED)
        assert undone.own_reference == done.own_reference

    def test_a_refund_may_fail_after_it_was_a_success(self, shop: Shop) -> None:
        held = shop.authorize("refund_fails_later")
        shop.capture(held)
        shop.refund(held, 500)
        refunds = [fact.result for fact in shop.told(held.reference) if fact.kind is OperationKind.REFUND]
        assert [each.status for each in refunds] == [RefundStatus.SUCCEEDED, RefundStatus.FAILED]

    def test_under_another_key_it_is_another_capture(self, shop: Shop) -> None:
        held = shop.authorize()
        request = shop.capture_request(held)
        assert shop.gateway.capture(request) == shop.gateway.capture(request)
        again = shop.gateway.capture(replace(request, key=f"other-{request.key}"))
        last = shop.told(held.reference)[-1].result
        assert isinstance(last, ChargeResult)
        assert last.decline is not None
        assert (last.status, last.decline.code) == (ChargeStatus.FAILED, "amount_too_large")
        assert last.own_reference == again.own_reference
        assert shop.count("captures") == 1

    def test_a_second_void_fails_and_releases_nothing_more(self, shop: Shop) -> None:
        held = shop.authorize()
        shop.void(held)
        again = shop.void(held)
        assert again.decline is not None
        assert (again.status, again.decline.code) == (ChargeStatus.FAILED, "not_done")
        assert (shop.count("cancels"), shop.count("released")) == (1, 1999)

    @pytest.mark.parametrize("batch", [2, 3])
    def test_a_webhook_tells_all_facts_of_its_batch(self, shop: Shop, world: AdyenWorld, batch: int) -> None:
        held = shop.authorize()
        capture, refund = shop.capture_request(held), shop.refund_request(held, 500)
        shop.gateway.capture(capture)
        shop.gateway.refund(refund)
        assert len(world.flush(batch)) == (2 if batch == 2 else 1)
        told = [
            (fact.kind, fact.operation_id, fact.result.amount.minor) for fact in shop.told(held.reference)
        ]
        assert told == [
            (OperationKind.AUTHORIZE, shop.operation_id, 1999),
            (OperationKind.CAPTURE, capture.operation_id, 1999),
            (OperationKind.REFUND, refund.operation_id, 500),
        ]

    def test_an_authorization_ends_some_days_after_its_webhook_too(self, shop: Shop) -> None:
        shop.authorize()
        told = shop.learn(OperationKind.AUTHORIZE, shop.operation_id)
        assert isinstance(told, ChargeResult)
        assert told.expires_at is not None
        assert told.expires_at > datetime.now(UTC)


class TestAdyenWithConsent(CaptureContract, RefundContract, EventContract):
    """An account that Adyen lets capture in parts: the hold stays until a void ends it."""

    @pytest.fixture
    def world(self) -> Iterator[AdyenWorld]:
        with start() as running:
            yield AdyenWorld(running, several_captures=True)

    @pytest.fixture
    def gateway(self, world: AdyenWorld) -> PaymentGateway:
        return AdyenGateway(KEY, ACCOUNT, api_base=world.url, several_captures=True, timeout=PATIENCE)

    @pytest.fixture
    def shop(self, gateway: PaymentGateway, world: AdyenWorld) -> Shop:
        return Shop(gateway, world)

    def read_report(self, report: bytes, shop: Shop) -> list[tuple[str, str]]:
        return read_report(report, shop)

    def test_a_final_capture_leaves_the_rest_to_a_void(self, shop: Shop) -> None:
        held = shop.hold()
        shop.capture(held, 500)
        assert shop.count("released") == 0
        shop.void(held, 1499, is_rest=True)
        assert shop.count("released") == 1499
