"""Adyen's stand-in itself: its protocol through the official SDK, its faults, its page and its webhooks."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import Adyen
import pytest
import requests
from Adyen.util import is_valid_hmac_notification

from payments.sandbox.adyen import AdyenSandbox, start
from payments.sandbox.adyen.notifications import DEFAULT_KEY
from tests.payments.sandbox.shop import wait_until

ROOT = Path(__file__).parents[3]
ACCOUNT = "CountinghouseECOM"
PAYMENT: dict[str, Any] = {
    "merchantAccount": ACCOUNT,
    "amount": {"currency": "EUR", "value": 1000},
    "reference": "order-1",
    "paymentMethod": {"type": "scheme", "encryptedCardNumber": "TESTVISA"},
    "returnUrl": "https://shop.example/return?order=1",
    "metadata": {"operation_id": "op_1"},
}


@pytest.fixture
def sandbox() -> Iterator[AdyenSandbox]:
    with start() as running:
        yield running


class Client:
    """The SDK and the controls of one stand-in."""

    def __init__(self, url: str) -> None:
        self.url = url
        sdk = Adyen.Adyen(xapikey="AQE_test", platform="test")
        sdk.checkout.payments_api.baseUrl = f"{url}/checkout/v72"
        sdk.checkout.modifications_api.baseUrl = f"{url}/checkout/v72"
        sdk.disputes.disputes_api.baseUrl = f"{url}/ca/services/DisputeService/v30"
        self.payments, self.changes = sdk.checkout.payments_api, sdk.checkout.modifications_api
        self.disputes = sdk.disputes.disputes_api

    def pay(self, card: str = "TESTVISA", *, key: str | None = None, **more: Any) -> dict[str, Any]:
        body = {**PAYMENT, "paymentMethod": {"type": "scheme", "encryptedCardNumber": card}, **more}
        message: dict[str, Any] = self.payments.payments(body, idempotency_key=key).message
        return message

    def change(self, what: str, payment: str, value: int = 1000, **more: Any) -> dict[str, Any]:
        body = {"merchantAccount": ACCOUNT, "amount": {"currency": "EUR", "value": value}, **more}
        call = {
            "capture": self.changes.capture_authorised_payment,
            "refund": self.changes.refund_captured_payment,
        }
        message: dict[str, Any] = call[what](body, payment).message
        return message

    def control(self, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        response = requests.request(method, f"{self.url}{path}", json=body or {}, timeout=60)
        response.raise_for_status()
        return response.json()

    def flush(self, batch: int = 1) -> list[dict[str, Any]]:
        webhooks: list[dict[str, Any]] = self.control("/_webhooks/flush", {"batch": batch})["webhooks"]
        return webhooks

    def events(self) -> list[tuple[str, str]]:
        items = [
            entry["NotificationRequestItem"] for body in self.flush() for entry in body["notificationItems"]
        ]
        return [(item["eventCode"], item["success"]) for item in items]


@pytest.fixture
def client(sandbox: AdyenSandbox) -> Client:
    return Client(sandbox.url)


# --- the protocol -------------------------------------------------------------------------------------------


def test_a_payment_its_capture_and_its_refund(client: Client) -> None:
    paid = client.pay()
    assert (paid["resultCode"], paid["amount"]) == ("Authorised", {"currency": "EUR", "value": 1000})
    taken = client.change("capture", paid["pspReference"], reference="cap-1")
    assert (taken["status"], taken["paymentPspReference"]) == ("received", paid["pspReference"])
    client.change("refund", paid["pspReference"], 400)
    assert client.events() == [("AUTHORISATION", "true"), ("CAPTURE", "true"), ("REFUND", "true")]
    assert client.events() == []


def test_a_refusal_is_a_200_with_its_reason(client: Client) -> None:
    answer = client.pay("TESTREFUSED12")
    assert (answer["resultCode"], answer["refusalReasonCode"]) == ("Refused", "12")
    assert answer["refusalReason"] == "Not enough balance"
    assert client.events() == [("AUTHORISATION", "false")]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"reference": ""}, "130"),
        ({"amount": {"value": 1.5, "currency": "EUR"}}, "137"),
        ({"amount": {"value": 100, "currency": "eur"}}, "138"),
        ({"amount": None}, "137"),
        ({"paymentMethod": {"type": "scheme", "number": "4111"}}, "101"),
        ({"paymentMethod": {"type": "scheme", "encryptedCardNumber": "NOBODY"}}, "803"),
        ({"paymentMethod": {"type": "scheme", "storedPaymentMethodId": "TESTVISA"}}, "702"),
        ({"merchantAccount": ""}, "901"),
    ],
)
def test_what_adyen_would_not_take_is_refused(client: Client, change: dict[str, Any], code: str) -> None:
    with pytest.raises(Adyen.AdyenError) as caught:
        client.payments.payments({**PAYMENT, **change})
    assert caught.value.error_code == code


def test_the_key_of_the_api_is_asked_for(client: Client, sandbox: AdyenSandbox) -> None:
    for path in ("/checkout/v72/payments", f"/reports/download/MerchantAccount/{ACCOUNT}/x.csv"):
        assert requests.post(f"{sandbox.url}{path}", json=PAYMENT, timeout=60).status_code == 401
    headers = {"x-api-key": "AQE_x"}
    assert requests.get(f"{sandbox.url}/checkout/v72/nothing", headers=headers, timeout=60).status_code == 404


def test_a_first_capture_releases_the_rest_unless_several_are_allowed(client: Client) -> None:
    once, often = client.pay(), client.pay()
    client.change("capture", once["pspReference"], 300)
    client.change("capture", once["pspReference"], 300)
    client.control("/_settings", {"several_captures": True})
    client.change("capture", often["pspReference"], 300)
    client.change("capture", often["pspReference"], 300)
    assert [success for code, success in client.events() if code == "CAPTURE"] == [
        "true", "false", "true", "true",
    ]  # fmt: skip
    books = client.control("/_books", method="GET")["payments"]
    assert (books[once["pspReference"]]["captured"], books[once["pspReference"]]["released"]) == (300, 700)
    assert (books[often["pspReference"]]["captured"], books[often["pspReference"]]["released"]) == (600, 0)


def test_a_hold_expires(client: Client) -> None:
    paid = client.pay()
    client.control("/_expire", {"reference": "order-1"})
    client.change("capture", paid["pspReference"])
    assert client.events()[1:] == [("EXPIRE", "true"), ("CAPTURE", "false")]


@pytest.mark.parametrize(
    ("token", "events"),
    [
        ("TESTCAPTUREREFUSED", [("CAPTURE", "false"), ("REFUND", "false")]),
        ("TESTCAPTUREFAILS", [("CAPTURE", "true"), ("CAPTURE_FAILED", "true"), ("REFUND", "false")]),
        ("TESTREFUNDREFUSED", [("CAPTURE", "true"), ("REFUND", "false")]),
        ("TESTREFUNDFAILS", [("CAPTURE", "true"), ("REFUND", "true"), ("REFUND_FAILED", "true")]),
        ("TESTREFUNDREVERSED", [("CAPTURE", "true"), ("REFUND", "true"), ("REFUNDED_REVERSED", "true")]),
    ],
)
def test_cards_that_misbehave_later(client: Client, token: str, events: list[tuple[str, str]]) -> None:
    paid = client.pay(token)
    client.change("capture", paid["pspReference"])
    client.change("refund", paid["pspReference"])
    assert client.events()[1:] == events


def test_a_dispute_is_answered_once_and_with_all_documents(client: Client) -> None:
    client.pay()
    raised = client.control("/_disputes", {"reference": "order-1", "event": "CHARGEBACK"})
    named = {"merchantAccountCode": ACCOUNT, "disputePspReference": raised["id"]}
    offered = client.disputes.retrieve_applicable_defense_reasons(named).message
    assert [reason["defenseReasonCode"] for reason in offered["defenseReasons"]]
    defense = {**named, "defenseReasonCode": "MerchandiseReceived"}
    assert not client.disputes.defend_dispute(defense).message["disputeServiceResult"]["success"]
    document = {
        "defenseDocumentTypeCode": "DefenseMaterial", "contentType": "application/pdf", "content": "JVBERg==",
    }  # fmt: skip
    client.disputes.supply_defense_document({**named, "defenseDocuments": [document]})
    assert client.disputes.defend_dispute(defense).message["disputeServiceResult"]["success"]
    assert not client.disputes.accept_dispute(named).message["disputeServiceResult"]["success"]
    assert client.events()[1:] == [("CHARGEBACK", "true"), ("INFORMATION_SUPPLIED", "true")]


# --- the same key, and faults -------------------------------------------------------------------------------


def test_the_same_key_gives_the_same_answer(client: Client) -> None:
    first = client.pay(key="k1")
    assert client.pay(key="k1") == first
    with pytest.raises(Adyen.AdyenError) as caught:
        client.pay(key="k1", reference="order-2")
    assert caught.value.error_code == "704"
    assert len(client.control("/_books", method="GET")["payments"]) == 1


def test_a_refused_request_leaves_its_key_free(client: Client) -> None:
    with pytest.raises(Adyen.AdyenError):
        client.pay(key="k1", amount=None)
    assert client.pay(key="k1")["resultCode"] == "Authorised"


def test_one_key_at_a_time(client: Client) -> None:
    client.control("/_faults", {"fault": "slow", "operation": "authorize", "seconds": 0.5})

    def attempt(number: int) -> str:
        try:
            return str(client.pay(key="k1")["pspReference"])
        except Adyen.AdyenError as error:
            return str(error.error_code)

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(attempt, range(4)))
    assert len(client.control("/_books", method="GET")["payments"]) == 1
    assert len({outcome for outcome in outcomes if outcome != "704"}) == 1


@pytest.mark.parametrize(
    ("fault", "is_done"),
    [("500", False), ("429", False), ("reset_before", False), ("500_after", True), ("reset_after", True)],
)
def test_a_fault_meets_what_it_is_meant_for(client: Client, fault: str, is_done: bool) -> None:
    client.control("/_faults", {"fault": fault, "operation": "authorize", "match": {"operation_id": "op_1"}})
    client.pay(metadata={"operation_id": "op_2"}, reference="other")
    with pytest.raises((Adyen.AdyenError, requests.ConnectionError)):
        client.pay(key="k1")
    references = [doc["reference"] for doc in client.control("/_books", method="GET")["payments"].values()]
    assert ("order-1" in references) is is_done
    assert client.pay(key="k1")["resultCode"] == "Authorised"


def test_a_fault_can_state_a_wrong_amount(client: Client) -> None:
    client.control("/_faults", {"fault": "wrong_amount", "operation": "authorize"})
    assert client.pay()["amount"]["value"] == 1001


# --- the customer's page ------------------------------------------------------------------------------------


def test_the_customer_is_sent_to_the_bank_and_back(client: Client) -> None:
    answer = client.pay("TESTCHALLENGE")
    assert answer["resultCode"] == "RedirectShopper"
    assert "pspReference" not in answer
    page = requests.get(answer["action"]["url"], timeout=60)
    assert "10.00 EUR" in page.text
    assert "ending in 1111" in page.text
    form = {"outcome": "success"}
    back = requests.post(answer["action"]["url"], data=form, allow_redirects=False, timeout=60)
    address, _, result = back.headers["Location"].partition("&redirectResult=")
    assert (back.status_code, address) == (303, "https://shop.example/return?order=1")
    completed = client.payments.payments_details({"details": {"redirectResult": result}}).message
    assert completed["resultCode"] == "Authorised"
    assert completed["additionalData"]["threeDAuthenticated"] == "true"
    assert client.events() == [("AUTHORISATION", "true")]
    assert "Nothing to do" in requests.get(answer["action"]["url"], timeout=60).text


def test_a_failed_challenge_is_refused(client: Client) -> None:
    url = client.pay("TESTCHALLENGE")["action"]["url"]
    requests.post(url, data={"outcome": "failure"}, allow_redirects=False, timeout=60)
    assert client.events() == [("AUTHORISATION", "false")]
    assert requests.get(f"{client.url}/3ds/nobody", timeout=60).status_code == 404


# --- webhooks -----------------------------------------------------------------------------------------------


class Inbox:
    """An endpoint that keeps what it is sent, and answers as it is told."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.statuses: list[int] = []
        inbox = self

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = inbox.statuses.pop(0) if inbox.statuses else 200
                if status == 200:
                    inbox.bodies.append(json.loads(body))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    box = Inbox()
    yield box
    box.close()


def test_webhooks_are_signed_delivered_and_repeated_until_they_are_taken(
    client: Client, inbox: Inbox
) -> None:
    inbox.statuses = [503]
    client.control("/_webhooks", {"url": inbox.url})
    client.pay()
    wait_until(lambda: len(inbox.bodies) == 1)
    assert is_valid_hmac_notification(inbox.bodies[0], DEFAULT_KEY) is True
    (delivery,) = client.control("/_deliveries", method="GET")["deliveries"]
    assert delivery == {"event": "AUTHORISATION", "status": "delivered", "attempts": 2}


def test_webhooks_wait_while_they_are_paused_and_come_in_batches(client: Client, inbox: Inbox) -> None:
    client.control("/_webhooks/pause")
    client.control("/_webhooks", {"url": inbox.url, "secret": "AB" * 32})
    paid = client.pay()
    client.change("capture", paid["pspReference"])
    client.change("refund", paid["pspReference"])
    sent = client.control("/_webhooks/deliver_due", {"batch": 2, "order": "newest_first"})
    assert sent == {"attempted": 2}
    codes = [
        [entry["NotificationRequestItem"]["eventCode"] for entry in body["notificationItems"]]
        for body in inbox.bodies
    ]
    assert codes == [["REFUND"], ["AUTHORISATION", "CAPTURE"]]
    assert is_valid_hmac_notification(inbox.bodies[0], "AB" * 32) is True
    client.control("/_webhooks/resume")
    client.pay(reference="order-2")
    wait_until(lambda: len(inbox.bodies) == 3)


def test_a_report_is_there_when_its_day_is_over_and_is_announced(client: Client) -> None:
    day = time.strftime("%Y_%m_%d", time.gmtime())
    name = f"payments_accounting_report_{day}.csv"
    url = client.control("/_reports", {"account": ACCOUNT, "name": name})["url"]
    headers = {"x-api-key": "AQE_report"}
    assert requests.get(url, headers=headers, timeout=60).status_code == 404
    paid = client.pay()
    client.change("capture", paid["pspReference"])
    client.control("/_clock", {"advance_seconds": 86_400})
    lines = requests.get(url, headers=headers, timeout=60).text.splitlines()
    assert lines[0].startswith("Company Account,Merchant Account,Psp Reference,")
    assert [line.split(",")[8] for line in lines[1:]] == [
        "Received",
        "Authorised",
        "SentForSettle",
        "Settled",
    ]
    (report, *_) = client.flush()
    item = report["notificationItems"][0]["NotificationRequestItem"]
    assert (item["eventCode"], item["pspReference"], item["reason"]) == ("REPORT_AVAILABLE", name, url)


# --- the process --------------------------------------------------------------------------------------------


def test_the_books_outlive_the_process(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    command = [
        sys.executable,
        "-m",
        "payments.sandbox.adyen",
        "--port",
        "0",
        "--data",
        str(tmp_path / "books"),
    ]
    for expected in (1, 2):
        ready.unlink(missing_ok=True)
        process = subprocess.Popen([*command, "--ready-file", str(ready)], cwd=ROOT)
        try:
            wait_until(ready.exists)
            client = Client(json.loads(ready.read_text())["url"])
            client.pay(reference=f"order-{expected}")
            assert len(client.control("/_books", method="GET")["payments"]) == expected
        finally:
            process.terminate()
            assert process.wait(120) == 0


def test_data_can_be_thrown_away(client: Client) -> None:
    client.pay()
    client.control("/_data", method="DELETE")
    assert client.control("/_books", method="GET") == {"payments": {}}
    assert client.flush() == []


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/_nothing", {}, 404),
        ("/_clock", {}, 400),
        ("/_faults", {"fault": "fire"}, 400),
        ("/_webhooks", {"url": "ftp://x"}, 400),
        ("/_authenticate", {"reference": "nobody"}, 404),
        ("/_disputes", {"reference": "order-1", "event": "NONSENSE"}, 400),
    ],
)
def test_controls_refuse_what_they_do_not_know(
    client: Client, path: str, body: dict[str, Any], status: int
) -> None:
    client.pay()
    assert requests.post(f"{client.url}{path}", json=body, timeout=60).status_code == status
