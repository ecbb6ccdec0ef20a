"""The sandbox's Braintree against the official SDK: shapes, states, faults, notifications, and its process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import braintree
import pytest
import requests
from braintree import TransactionSearch
from braintree.exceptions.authentication_error import AuthenticationError
from braintree.exceptions.not_found_error import NotFoundError
from braintree.exceptions.server_error import ServerError
from braintree.exceptions.too_many_requests_error import TooManyRequestsError

from payments.sandbox.braintree import BraintreeSandbox, start
from payments.sandbox.braintree.xml import parse, render

ROOT = Path(__file__).parents[3]


@pytest.fixture
def sandbox() -> Iterator[BraintreeSandbox]:
    with start() as running:
        yield running


def connect(url: str, *, private_key: str = "private", timeout: float = 60) -> Any:
    port = url.rpartition(":")[2]
    environment = braintree.Environment("local", "127.0.0.1", port, "", False, None, "127.0.0.1", port)
    return braintree.BraintreeGateway(
        braintree.Configuration(
            environment=environment,
            merchant_id="m",
            public_key="public",
            private_key=private_key,
            timeout=timeout,
        )
    )


@pytest.fixture
def client(sandbox: BraintreeSandbox) -> Any:
    return connect(sandbox.url)


def sell(client: Any, nonce: str = "fake-valid-nonce", amount: str = "19.99", **extra: Any) -> Any:
    return client.transaction.sale({"amount": amount, "payment_method_nonce": nonce, **extra})


def control(sandbox: BraintreeSandbox, path: str, **body: Any) -> Any:
    response = requests.post(f"{sandbox.url}{path}", json=body, timeout=60)
    response.raise_for_status()
    return response.json()


# --- shapes -------------------------------------------------------------------------------------------------


def test_the_sdk_reads_a_transaction_with_its_types(client: Any) -> None:
    sale = sell(client, order_id="o1").transaction
    found = client.transaction.find(sale.id)
    assert (found.status, str(found.amount), found.order_id) == ("authorized", "19.99", "o1")
    assert isinstance(found.created_at, datetime)
    assert (found.refund_ids, found.disputes) == ([], [])
    assert found.credit_card_details.last_4 == "1881"
    assert found.three_d_secure_info is None
    assert found.risk_data.decision == "Approve"
    assert not found.is_disbursed


@pytest.mark.parametrize("text", ["a < b & c", "é", "  padded  ", "]]>"])
def test_text_survives_the_way_into_a_document_and_back(text: str) -> None:
    assert parse(
        render("root", {"some_name": text, "items": ["1"], "flag": True, "number": 3, "nil": None})
    ) == {"root": {"some_name": text, "items": ["1"], "flag": True, "number": 3, "nil": ""}}


def test_a_request_that_is_no_xml_is_refused(sandbox: BraintreeSandbox) -> None:
    url = f"{sandbox.url}/merchants/m/transactions"
    for body in ("<a", "<!DOCTYPE a []><a/>"):
        answer = requests.post(url, data=body, auth=("public", "private"), timeout=60)
        assert answer.status_code == 400


def test_wrong_keys_and_unknown_addresses_are_refused(sandbox: BraintreeSandbox, client: Any) -> None:
    with pytest.raises(AuthenticationError):
        connect(sandbox.url, private_key="wrong").transaction.find("x")
    for missing in (client.transaction.find, client.dispute.find, client.payment_method.delete):
        with pytest.raises(NotFoundError):
            missing("unheardof")


# --- states -------------------------------------------------------------------------------------------------


def test_only_what_is_held_or_waits_can_be_voided(sandbox: BraintreeSandbox, client: Any) -> None:
    sale = sell(client).transaction
    assert client.transaction.submit_for_settlement(sale.id).transaction.status == "submitted_for_settlement"
    control(sandbox, "/_settle", transaction=sale.id)
    refusal = client.transaction.void(sale.id)
    assert [error.code for error in refusal.errors.deep_errors] == [
        braintree.ErrorCodes.Transaction.CannotBeVoided
    ]
    assert client.transaction.find(sale.id).disbursement_details.is_valid


def test_a_refused_refund_names_its_cause(sandbox: BraintreeSandbox, client: Any) -> None:
    codes = braintree.ErrorCodes.Transaction
    sale = sell(client).transaction
    client.transaction.submit_for_settlement(sale.id)

    def refund(amount: str) -> list[str]:
        answer = client.transaction.refund(sale.id, {"amount": amount})
        return [] if answer.is_success else [error.code for error in answer.errors.deep_errors]

    assert refund("1.00") == [codes.CannotRefundUnlessSettled]
    control(sandbox, "/_settle", status="settling")
    assert refund("1.00") == [codes.CannotRefundSettlingTransaction]
    control(sandbox, "/_settle")
    assert refund("20.00") == [codes.RefundAmountIsTooLarge]
    assert refund("19.99") == []
    assert refund("1.00") == [codes.HasAlreadyBeenRefunded]


def test_more_than_the_hold_is_not_submitted_and_nothing_is_written(client: Any) -> None:
    sale = sell(client).transaction
    for answer in (
        client.transaction.submit_for_settlement(sale.id, "20.00"),
        client.transaction.submit_for_partial_settlement(sale.id, "20.00"),
    ):
        codes = [error.code for error in answer.errors.deep_errors]
        assert codes == [braintree.ErrorCodes.Transaction.SettlementAmountIsTooLarge]
    assert client.transaction.find(sale.id).status == "authorized"


def test_a_decline_is_written_down(client: Any) -> None:
    answer = sell(client, "fake-decline-2001-nonce", order_id="o1")
    assert not answer.is_success
    assert answer.transaction.processor_response_code == "2001"
    [found] = client.transaction.search(TransactionSearch.order_id == "o1").items
    assert found.status == "processor_declined"


def test_a_hold_expires_after_a_week(sandbox: BraintreeSandbox, client: Any) -> None:
    sale = sell(client).transaction
    assert control(sandbox, "/_clock", advance_seconds=6 * 86_400)["expired"] == 0
    assert control(sandbox, "/_clock", advance_seconds=86_400)["expired"] == 1
    assert client.transaction.find(sale.id).status == "authorization_expired"


# --- search -------------------------------------------------------------------------------------------------


def test_transactions_are_found_page_by_page(client: Any) -> None:
    made = {sell(client, order_id="many").transaction.id for _ in range(53)}
    sell(client, order_id="other")
    found = client.transaction.search(TransactionSearch.order_id == "many")
    assert found.maximum_size == 53
    assert {transaction.id for transaction in found.items} == made


def test_transactions_are_found_by_times_and_states(sandbox: BraintreeSandbox, client: Any) -> None:
    sale, other = sell(client).transaction, sell(client).transaction
    client.transaction.submit_for_settlement(sale.id)
    control(sandbox, "/_settle")
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    settled = client.transaction.search(TransactionSearch.settled_at.between(now - hour, now + hour))
    assert list(settled.ids) == [sale.id]
    earlier = client.transaction.search(TransactionSearch.settled_at.between(now - 2 * hour, now - hour))
    assert list(earlier.ids) == []
    held = client.transaction.search(TransactionSearch.status.in_list(["authorized"]))
    assert list(held.ids) == [other.id]


# --- faults -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["timeout_after", "timeout_before", "reset_after", "reset_before"])
def test_an_answer_can_be_lost_before_or_after_the_act(
    sandbox: BraintreeSandbox, client: Any, fault: str
) -> None:
    control(sandbox, "/_faults", fault=fault, operation="authorize", match={"order_id": "o1"})
    hasty = connect(sandbox.url, timeout=0.5)
    assert sell(client, order_id="o2").is_success
    hangs = fault.startswith("timeout")
    with pytest.raises(requests.RequestException):
        sell(hasty if hangs else client, order_id="o1")
    assert not hangs or sandbox.server.await_silence(1, seconds=60)
    found = client.transaction.search(TransactionSearch.order_id == "o1")
    assert found.maximum_size == (1 if fault.endswith("after") else 0)


@pytest.mark.parametrize(
    ("fault", "error", "made"),
    [("500", ServerError, 0), ("500_after", ServerError, 1), ("429", TooManyRequestsError, 0)],
)
def test_an_answer_can_be_an_error(
    sandbox: BraintreeSandbox, client: Any, fault: str, error: type[Exception], made: int
) -> None:
    control(sandbox, "/_faults", fault=fault, operation="authorize", times=1)
    with pytest.raises(error):
        sell(client, order_id="o1")
    assert client.transaction.search(TransactionSearch.order_id == "o1").maximum_size == made


def test_an_answer_can_state_a_wrong_amount_while_the_books_are_right(
    sandbox: BraintreeSandbox, client: Any
) -> None:
    control(sandbox, "/_faults", fault="wrong_amount", operation="authorize")
    sale = sell(client).transaction
    assert str(sale.amount) == "20.00"
    assert str(client.transaction.find(sale.id).amount) == "19.99"


def test_controls_must_be_known(sandbox: BraintreeSandbox) -> None:
    for path, body in (
        ("/_settings", {"weather": 1}),
        ("/_clock", {}),
        ("/_faults", {"fault": "meteor"}),
        ("/_webhooks", {"url": "ftp://x"}),
    ):
        assert requests.post(f"{sandbox.url}{path}", json=body, timeout=60).status_code == 400
    assert requests.get(f"{sandbox.url}/_nothing", timeout=60).status_code == 404


# --- notifications ------------------------------------------------------------------------------------------


def test_a_notification_is_what_the_sdk_expects(sandbox: BraintreeSandbox) -> None:
    control(sandbox, "/_webhooks", url=None, secret="public|private")
    client = connect(sandbox.url)
    sale = sell(client).transaction
    client.transaction.submit_for_settlement(sale.id)
    control(sandbox, "/_settle")
    form = control(sandbox, "/_notify", kind="transaction_settled", transaction=sale.id)
    told = client.webhook_notification.parse(form["bt_signature"], form["bt_payload"])
    assert (told.kind, told.transaction.id, told.transaction.status) == (
        "transaction_settled",
        sale.id,
        "settled",
    )
    dispute = control(sandbox, "/_disputes", transaction=sale.id)
    form = control(sandbox, "/_notify", kind="dispute_opened", dispute=dispute["id"])
    told = client.webhook_notification.parse(form["bt_signature"], form["bt_payload"])
    assert (told.dispute.id, told.dispute.status, str(told.dispute.amount_disputed)) == (
        dispute["id"],
        "open",
        "19.99",
    )
    assert [one.id for one in client.transaction.find(sale.id).disputes] == [dispute["id"]]


def test_a_notification_is_posted_to_the_endpoint(sandbox: BraintreeSandbox) -> None:
    taken: list[dict[str, list[str]]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/hook"
        control(sandbox, "/_webhooks", url=url, secret="public|private")
        sent = control(sandbox, "/_notify", kind="check")
        thread.join()
    assert sent["status"] == 200
    assert taken[0]["bt_signature"] == [sent["bt_signature"]]
    lost = control(sandbox, "/_notify", kind="check")
    assert lost["status"] is None
    assert lost["error"]


# --- the process --------------------------------------------------------------------------------------------


def test_a_killed_process_forgets_nothing(tmp_path: Path) -> None:
    with spawn(tmp_path) as (first, url):
        sale = sell(connect(url)).transaction
        first.kill()
    with spawn(tmp_path) as (second, url):
        assert connect(url).transaction.find(sale.id).status == "authorized"
        second.send_signal(signal.SIGTERM)
        assert second.wait(60) == 0


@contextmanager
def spawn(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "payments.sandbox.braintree", "--port", "0"]
    command += ["--data", str(folder / "data"), "--ready-file", str(ready)]
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            wait_until(lambda: ready.exists() or process.poll() is not None)
            yield process, json.loads(ready.read_text())["url"]
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_processes_never_share_their_books(tmp_path: Path) -> None:
    with start(tmp_path):
        command = [sys.executable, "-m", "payments.sandbox.braintree", "--port", "0", "--data", str(tmp_path)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "cannot start" in ended.stdout
