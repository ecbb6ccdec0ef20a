"""The walk-through is true: its blocks are one file that, named by one line, is a gateway like any other."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from payments.gateways import get_gateway
from payments.gateways.base import CaptureRequest, ChargeRequest, ChargeStatus, PaymentGateway
from payments.kinds import DisputeStage, OperationKind
from payments.models import GatewayAccount
from payments.money import Money
from reconciliation.reports import check_report
from tests.docs.test_documentation import ROOT, read_blocks
from tests.payments.gateways.contract import GatewayContract, Shop
from webhooks.accounts import forget_receivers
from webhooks.inbound import Verdict, receive

CARDS = {
    "ok": "card_ok",
    "avs_fail": "card_avs_fail",
    "cvc_fail": "card_cvc_fail",
    "wrong_amount": "card_wrong",
    "capture_fails": "card_empty",
    "unknown_token": "paper",
    "decline:card_declined": "card_no_reason",
    "decline:insufficient_funds": "card_no_money",
    "decline:expired_card": "card_no_time",
    "decline:incorrect_cvc": "card_no_code",
    "decline:lost_or_stolen": "card_no_owner",
    "decline:suspected_fraud": "card_no_trust",
}
VERBS = {"authorize": "hold", "capture": "take", "void": "release", "refund": "give", "fetch": "look"}
COUNTS = {
    "hold": ("charges", "authorized"),
    "take": ("captures", "captured"),
    "release": ("cancels", "released"),
    "give": ("refunds", "refunded"),
}


@pytest.fixture(scope="module")
def till(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The module that the page's blocks make up, importable by its name."""
    folder: Path = tmp_path_factory.mktemp("till")
    blocks = read_blocks(ROOT / "docs" / "adding-a-gateway.md", "python")
    (folder / "till.py").write_text("\n\n".join(blocks))
    sys.path.insert(0, str(folder))
    yield importlib.import_module("till")
    sys.path.remove(str(folder))
    del sys.modules["till"]


class TillWorld:
    """Stands in the wire between the adapter and its till, and breaks it when told to."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.till = module.Till()
        self.faults: list[tuple[str, str, str]] = []
        self._ask, self._look = self.till.ask, self.till.look
        self.till.ask, self.till.look = self.ask, self.look

    def ask(self, verb: str, key: str, **fields: Any) -> dict[str, Any]:
        fault = self.pick_fault(verb, fields["sale"], fields["operation"])
        self.fail(fault, ("timeout_before", "reset_before", "500", "429"))
        doc: dict[str, Any] = self._ask(verb, key, **fields)
        self.fail(fault, ("timeout_after", "reset_after", "500_after"))
        return doc | {"amount": "20.00"} if doc["card"] == "card_wrong" else doc

    def look(self, **wanted: str) -> list[dict[str, Any]]:
        self.fail(self.pick_fault("look", wanted.get("sale", ""), wanted.get("operation", "")), ("500",))
        found: list[dict[str, Any]] = self._look(**wanted)
        return found

    def pick_fault(self, verb: str, sale: str, operation: str) -> str:
        holds = [doc["operation"] for doc in self.till.book if doc["sale"] == sale and doc["verb"] == "hold"]
        hold = holds[0] if holds else operation
        for planned in self.faults:
            if planned[:2] == (verb, hold):
                self.faults.remove(planned)
                return planned[2]
        return ""

    def fail(self, fault: str, wanted: tuple[str, ...]) -> None:
        if fault not in wanted:
            return
        if fault.startswith("timeout"):
            raise TimeoutError
        if fault.startswith("reset"):
            raise ConnectionResetError
        raise self.module.Refusal("busy" if fault == "429" else "broken")

    def card(self, behaviour: str) -> str:
        return CARDS[behaviour]

    def fail_next(self, operation: str, fault: str, *, operation_id: str, times: int = 1) -> None:
        self.faults += [(VERBS[operation], operation_id, fault)] * times

    def silence(self) -> AbstractContextManager[None]:
        return nullcontext()

    def authenticate(self, reference: str, *, success: bool) -> None:
        raise NotImplementedError

    def settle(self) -> None:
        """A till puts nothing off."""

    def events(self) -> Sequence[Mapping[str, Any]]:
        return [json.loads(json.dumps(doc)) for doc in self.till.book]

    def count_movements(self, operation_id: str) -> Counter[str]:
        sales = {doc["sale"] for doc in self.till.book if doc["operation"] == operation_id}
        totals: Counter[str] = Counter()
        for doc in self.till.book:
            if doc["sale"] in sales and doc["status"] == "done":
                count, amount = COUNTS[doc["verb"]]
                totals[count] += 1
                totals[amount] += Money.from_major(doc["amount"], doc["currency"]).minor
        return totals

    def dispute(self, reference: str, *, stage: DisputeStage) -> str:
        raise NotImplementedError

    def decide(self, dispute: str, *, won: bool) -> None:
        raise NotImplementedError

    def evidence(self, dispute: str) -> bytes:
        raise NotImplementedError

    def tomorrow(self) -> None:
        self.till.offset += timedelta(days=1)


class TestTill(GatewayContract):
    @pytest.fixture
    def world(self, till: Any) -> TillWorld:
        return TillWorld(till)

    @pytest.fixture
    def gateway(self, till: Any, world: TillWorld) -> PaymentGateway:
        adapter: PaymentGateway = till.TillGateway(world.till)
        return adapter

    def read_report(self, report: bytes, shop: Shop) -> list[tuple[str, str]]:
        rows = [row for row in shop.gateway.report_parser([report]) if row.our_payment_id == shop.payment_id]
        refunds = [row.our_operation_id if row.amount < 0 else "" for row in rows]
        return [
            (str(Money(row.amount, row.currency).amount), of) for row, of in zip(rows, refunds, strict=True)
        ]


# --- one line -----------------------------------------------------------------------------------------------


@pytest.fixture
def account(till: Any, settings: Any, db: None) -> GatewayAccount:
    """An account at the gateway that one line of the settings names."""
    settings.PAYMENT_GATEWAYS = {**settings.PAYMENT_GATEWAYS, "till": "till.TillGateway"}
    account = GatewayAccount(gateway="till", name="front", api_key="drawer-1")
    account.full_clean()  # the gateway is a choice of the admin's form
    account.save()
    account.secrets.create(value="secret-1")
    forget_receivers()
    return account


def charge(account: GatewayAccount) -> dict[str, Any]:
    """The movement of a charge that went through the whole stack, breaker and retry and all."""
    gateway = get_gateway(account)
    request = ChargeRequest("key-1", "op_1", "pay_1", "ord_1", Money(1999, "EUR"), "card_ok")
    held = gateway.authorize(request)
    taken = gateway.capture(CaptureRequest("key-2", "op_2", held.reference, held.amount))
    assert taken.status is ChargeStatus.CAPTURED
    return dict(taken.raw)


def deliver(till: Any, account: GatewayAccount, doc: dict[str, Any], *, secret: str, age: int = 0) -> Verdict:
    body = json.dumps(doc).encode()
    headers = {"x-till-signature": till.sign(body, secret, str(int(time.time()) - age))}
    return receive("till", account.name, headers=headers, body=body).verdict


def test_an_account_of_it_charges_and_its_webhooks_are_received(till: Any, account: GatewayAccount) -> None:
    doc = charge(account)
    assert deliver(till, account, doc, secret="secret-1") is Verdict.STORED
    assert deliver(till, account, doc, secret="secret-1") is Verdict.DUPLICATE
    assert deliver(till, account, doc | {"amount": "1.00"}, secret="secret-1") is Verdict.CONFLICT
    (fact,) = get_gateway(account).read_event(doc)
    assert (fact.kind, fact.operation_id) == (OperationKind.CAPTURE, "op_2")


@pytest.mark.parametrize(
    ("secret", "age", "verdict"),
    [("guess", 0, Verdict.INVALID_SIGNATURE), ("secret-1", 3600, Verdict.OUTSIDE_WINDOW)],
)
def test_forged_and_stale_webhooks_are_refused(
    till: Any, account: GatewayAccount, secret: str, age: int, verdict: Verdict
) -> None:
    assert deliver(till, account, charge(account), secret=secret, age=age) is verdict


def test_its_reports_are_read(till: Any, account: GatewayAccount) -> None:
    charge(account)
    till.TillGateway.tills["drawer-1"].offset = timedelta(days=1)
    report = get_gateway(account).settlement_report(day=datetime.now(UTC).date())
    assert check_report(account, report) >= 1
