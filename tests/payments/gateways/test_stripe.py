"""The Stripe adapter where the sandbox cannot go: broken connections, odd answers, the wire format itself."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments.errors import (
    GatewayMismatchError,
    GatewayTimeoutError,
    InvalidRequestError,
    NetworkError,
    PaymentError,
    RateLimitedError,
)
from payments.gateways import stripe_wire as wire
from payments.gateways.base import (
    CaptureRequest,
    ChargeRequest,
    ChargeResult,
    ChargeStatus,
    FetchRequest,
    RefundRequest,
    RefundStatus,
)
from payments.gateways.stripe import REPORT_COLUMNS, StripeGateway, build_charge, build_metadata
from payments.kinds import OperationKind
from payments.money import Money

KEY = "sk_test_4eC39HqLyjWDarjtT1zdp7dc"
CARD_NUMBER = "4242424242424242"
REQUEST = ChargeRequest("key-1", "op_1", "pay_1", "ord_1", Money(1999, "EUR"), "pm_card_visa")
INTENT: dict[str, Any] = {
    "id": "pi_1",
    "object": "payment_intent",
    "status": "requires_capture",
    "amount": 1999,
    "amount_capturable": 1999,
    "amount_received": 0,
    "currency": "eur",
    "client_secret": "pi_1_secret_x",
    "metadata": {"operation_id": "op_1", "payment_id": "pay_1"},
    "latest_charge": None,
}
Script = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(script: Script) -> Iterator[str]:
    """A server whose every request is answered by the script."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            script(self)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def answer(status: int, body: Any, content_type: str = "application/json") -> Script:
    def script(handler: BaseHTTPRequestHandler) -> None:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", content_type)
        handler.send_header("Content-Length", str(len(payload)))
        handler.end_headers()
        handler.wfile.write(payload)

    return script


def error(status: int, **body: Any) -> Script:
    return answer(status, {"error": {"type": "invalid_request_error", "message": "no", **body}})


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def break_off(handler: BaseHTTPRequestHandler) -> None:
    """Half an answer."""
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"id": "pi_1"')


def gateway(url: str) -> StripeGateway:
    return StripeGateway(KEY, api_base=url, timeout=1.0)


# --- connections --------------------------------------------------------------------------------------------


def test_nobody_listening_means_surely_not_sent() -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(NetworkError, match="was not sent"):
            gateway(f"http://127.0.0.1:{unused.getsockname()[1]}").authorize(REQUEST)


def test_an_unknown_host_means_surely_not_sent() -> None:
    with pytest.raises(NetworkError):
        gateway("http://gateway.invalid").authorize(REQUEST)


def test_a_connection_that_is_never_accepted_means_surely_not_sent() -> None:
    with closing(socket.socket()) as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:  # they fill the queue: the next one gets no handshake
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        with pytest.raises(NetworkError):
            gateway(f"http://127.0.0.1:{full.getsockname()[1]}").authorize(REQUEST)
        for client in waiting:
            client.close()


@pytest.mark.parametrize("script", [hang_up, break_off], ids=["hang_up", "break_off"])
def test_a_connection_lost_after_sending_leaves_the_outcome_unknown(script: Script) -> None:
    with serving(script) as url, pytest.raises(GatewayTimeoutError, match="unknown"):
        gateway(url).authorize(REQUEST)


def test_silence_leaves_the_outcome_unknown() -> None:
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(5)
        with pytest.raises(GatewayTimeoutError):
            gateway(f"http://127.0.0.1:{silent.getsockname()[1]}").authorize(REQUEST)


def test_a_wrong_address_is_our_mistake() -> None:
    with pytest.raises(InvalidRequestError, match="address"):
        gateway("htp:/nowhere").authorize(REQUEST)


# --- answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (error(400, code="parameter_missing"), InvalidRequestError),
        (error(401), InvalidRequestError),
        (error(403), InvalidRequestError),
        (error(404, code="resource_missing"), InvalidRequestError),
        (error(409, type="idempotency_error", code="idempotency_key_in_use"), GatewayTimeoutError),
        (error(400, type="idempotency_error"), GatewayTimeoutError),
        (error(429), RateLimitedError),
        (error(400, code="rate_limit"), RateLimitedError),
        (error(500, type="api_error"), GatewayTimeoutError),
        (answer(502, b"<html>bad gateway</html>", "text/html"), GatewayTimeoutError),
        (answer(413, b"<html>too large</html>", "text/html"), InvalidRequestError),
        (answer(200, b"<html>hello</html>", "text/html"), GatewayTimeoutError),
        (answer(200, b""), GatewayTimeoutError),
        (answer(200, []), GatewayTimeoutError),
        (answer(200, {"id": "pi_1"}), GatewayTimeoutError),
        (answer(200, {**INTENT, "currency": "zzz"}), GatewayTimeoutError),
        (answer(200, {**INTENT, "amount_capturable": "many"}), GatewayTimeoutError),
        (answer(200, {**INTENT, "amount_capturable": 1999.5}), GatewayTimeoutError),
    ],
)
def test_every_odd_answer_has_its_place_in_the_taxonomy(script: Script, expected: type[PaymentError]) -> None:
    with serving(script) as url, pytest.raises(PaymentError) as caught:
        gateway(url).authorize(REQUEST)
    assert isinstance(caught.value, expected)
    assert caught.value.retriable is (expected is RateLimitedError)


def test_a_wrong_key_is_named_but_never_shown() -> None:
    with (
        serving(error(401, message=f"Invalid API Key provided: {KEY}")) as url,
        pytest.raises(InvalidRequestError, match="API key") as caught,
    ):
        gateway(url).authorize(REQUEST)
    assert KEY not in json.dumps(caught.value.to_dict())


def test_a_card_number_in_an_error_is_masked() -> None:
    with (
        serving(error(400, message=f"No such card {CARD_NUMBER}")) as url,
        pytest.raises(InvalidRequestError) as caught,
    ):
        gateway(url).authorize(REQUEST)
    assert CARD_NUMBER not in caught.value.message
    assert "4242" in caught.value.message


def test_a_404_without_stripes_own_code_is_not_an_absence() -> None:
    """Behind a wrong address every operation would seem never to have happened."""
    with serving(error(404)) as url, pytest.raises(InvalidRequestError):
        gateway(url).fetch(FetchRequest(OperationKind.AUTHORIZE, "op_1", "pi_1"))
    with serving(error(404, code="resource_missing")) as url:
        assert gateway(url).fetch(FetchRequest(OperationKind.AUTHORIZE, "op_1", "pi_1")) is None


def test_a_search_that_lags_is_helped_by_the_list_of_the_time() -> None:
    def script(handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        if path.endswith("/search"):
            body: Any = {"object": "search_result", "data": [], "has_more": False, "url": path}
        elif path.endswith("/payment_intents"):
            body = {"object": "list", "data": [INTENT], "has_more": False, "url": path}
        else:
            body = INTENT
        answer(200, body)(handler)

    with serving(script) as url:
        found = gateway(url).fetch(FetchRequest(OperationKind.AUTHORIZE, "op_1", since=datetime.now(UTC)))
        other = gateway(url).fetch(FetchRequest(OperationKind.AUTHORIZE, "op_2", since=datetime.now(UTC)))
    assert isinstance(found, ChargeResult)
    assert found.reference == "pi_1"
    assert other is None


def test_a_second_capture_of_one_hold_is_refused_before_it_is_sent() -> None:
    with pytest.raises(InvalidRequestError, match="nothing was sent"):
        gateway("http://127.0.0.1:1").capture(CaptureRequest("k", "op", "pi_1", Money(1, "EUR"), final=False))


def test_a_refund_that_is_declined_raises() -> None:
    with (
        serving(error(402, type="card_error", code="card_declined")) as url,
        pytest.raises(PaymentError) as caught,
    ):
        gateway(url).refund(RefundRequest("k", "op", "pi_1", Money(1, "EUR")))
    assert caught.value.code == "card_declined"
    assert not caught.value.retriable


# --- reports ------------------------------------------------------------------------------------------------


def report_server(run: dict[str, Any]) -> Script:
    def script(handler: BaseHTTPRequestHandler) -> None:
        if "report_types" in handler.path:
            answer(200, {"id": "t", "object": "reporting.report_type", "data_available_end": 4e9})(handler)
        else:
            answer(200, {"id": "frr_1", "object": "reporting.report_run", **run})(handler)

    return script


def test_the_key_is_not_sent_to_a_file_elsewhere() -> None:
    run = {"status": "succeeded", "result": {"url": "http://elsewhere.invalid/v1/files/f/contents"}}
    with serving(report_server(run)) as url, pytest.raises(InvalidRequestError, match="not fetched"):
        gateway(url).settlement_report(day=date(2026, 1, 5))


def test_a_failed_report_run_says_why() -> None:
    with (
        serving(report_server({"status": "failed", "error": "no data"})) as url,
        pytest.raises(InvalidRequestError, match="no data"),
    ):
        gateway(url).settlement_report(day=date(2026, 1, 5))


def test_a_report_is_read_in_chunks_and_one_cut_short_is_an_error() -> None:
    content = b"balance_transaction_id,gross\n" + b"txn_1,19.99\n" * 20_000

    def script(handler: BaseHTTPRequestHandler) -> None:
        host = f"http://{handler.headers['Host']}"
        run = {"status": "succeeded", "result": {"url": f"{host}/v1/files/f/contents"}}
        if "/files/" not in handler.path:
            report_server(run)(handler)
            return
        assert handler.headers["Authorization"] == f"Bearer {KEY}"
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:missing] if missing else content)

    missing = 0
    with serving(script) as url:
        chunks = list(gateway(url).settlement_report(day=date(2026, 1, 5)))
        assert b"".join(chunks) == content
        assert len(chunks) > 1
        missing = -1
        with pytest.raises(GatewayTimeoutError):
            list(gateway(url).settlement_report(day=date(2026, 1, 5)))


def test_the_report_names_our_ids() -> None:
    assert {f"payment_metadata[{name}]" for name in ("order_id", "payment_id", "operation_id")} <= set(
        REPORT_COLUMNS
    )


# --- requests -----------------------------------------------------------------------------------------------


def test_the_same_request_is_always_the_same_on_the_wire() -> None:
    assert json.dumps(build_charge(REQUEST)) == json.dumps(build_charge(REQUEST))
    assert build_charge(REQUEST)["metadata"] == {
        "operation_id": "op_1",
        "payment_id": "pay_1",
        "order_id": "ord_1",
    }


def test_the_callers_metadata_never_crowds_out_our_ids() -> None:
    extra = {f"k{number}": "v" * 900 for number in range(80)} | {"x" * 41: "v", "operation_id": "theirs"}
    metadata = build_metadata(extra, operation_id="op_1")
    assert metadata["operation_id"] == "op_1"
    assert len(metadata) < 50
    assert all(len(key) <= 40 and len(value) <= 500 for key, value in metadata.items())


def test_an_account_without_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="api_key"):
        StripeGateway.from_account({"api_base": "http://127.0.0.1"})


def test_one_call_takes_no_longer_than_its_timeout() -> None:
    connect, read = StripeGateway.from_account({"api_key": KEY, "timeout": "25"})._timeout
    assert connect + read == 25


# --- money on the wire --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "number"),
    [
        (Money(1999, "EUR"), 1999),
        (Money(500, "JPY"), 500),
        (Money(1230, "KWD"), 1230),
        (Money(500, "UGX"), 50000),
        (Money(500, "ISK"), 50000),
        (Money(500, "HUF"), 500),
        (Money(500, "MGA"), 5),
    ],
)
def test_amounts_are_written_with_the_digits_that_stripe_counts(amount: Money, number: int) -> None:
    assert wire.to_wire(amount) == number
    assert wire.from_wire(number, amount.currency.lower()) == amount


@given(
    st.integers(min_value=0, max_value=10**12), st.sampled_from(["EUR", "JPY", "KWD", "UGX", "ISK", "HUF"])
)
def test_no_amount_is_lost_on_the_way_and_back(minor: int, currency: str) -> None:
    amount = Money(minor, currency)
    assert wire.from_wire(wire.to_wire(amount), currency.lower()) == amount


def test_a_fraction_that_the_wire_cannot_say_is_refused() -> None:
    with pytest.raises(InvalidRequestError):
        wire.to_wire(Money(501, "MGA"))
    with pytest.raises(GatewayMismatchError):
        wire.from_wire(50050, "ugx")


# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "postal", "expected"),
    [
        ("pass", "pass", "pass"),
        ("pass", "fail", "fail"),
        ("unavailable", "pass", "pass"),
        ("unchecked", "unavailable", "unavailable"),
        (None, "unchecked", "unchecked"),
        (None, None, ""),
    ],
)
def test_address_checks_are_combined(line: str | None, postal: str | None, expected: str) -> None:
    assert wire.combine_checks(line, postal) == expected


def test_an_unknown_decline_code_is_kept_beside_a_plain_one() -> None:
    decline = wire.read_decline({"decline_code": "brand_new", "message": "No."})
    assert (decline.code, decline.gateway_code, decline.advice) == (
        "card_declined",
        "brand_new",
        "try_another_method",
    )


def test_every_decline_has_a_code_and_an_advice() -> None:
    assert all(code and advice for code, advice in wire.DECLINES.values())


def test_a_hold_without_a_stated_end_lasts_seven_days() -> None:
    charge = {"created": 1_760_000_000, "payment_method_details": {"card": {}}}
    assert wire.read_expiry(charge) == datetime.fromtimestamp(1_760_000_000, UTC) + timedelta(days=7)
    charge["payment_method_details"] = {"card": {"capture_before": 1_760_000_500}}
    assert wire.read_expiry(charge) == datetime.fromtimestamp(1_760_000_500, UTC)


def test_what_is_kept_of_an_answer_has_no_secret_and_no_card_number() -> None:
    charge = {
        "id": "ch_1",
        "failure_message": f"card {CARD_NUMBER} said no",
        "billing_details": {"name": "Ann"},
    }
    kept = json.dumps(wire.trim({**INTENT, "latest_charge": charge}))
    assert "secret" not in kept
    assert "Ann" not in kept
    assert CARD_NUMBER not in kept
    assert "op_1" in kept


def test_what_is_kept_of_an_answer_says_how_the_checks_went() -> None:
    card = {"brand": "visa", "last4": "4242", "checks": {"cvc_check": "fail", "address_line1_check": "pass"}}
    charge = {"id": "ch_1", "payment_method_details": {"card": card}, "outcome": {"risk_score": 12}}
    kept = wire.trim({**INTENT, "latest_charge": charge})["latest_charge"]
    assert kept["payment_method_details"]["card"] == card
    assert kept["outcome"] == {"risk_score": 12}


def test_a_processing_intent_is_pending() -> None:
    result = wire.read_authorization({**INTENT, "status": "processing"})
    assert result is not None
    assert result.status is ChargeStatus.PENDING


# --- events -------------------------------------------------------------------------------------------------


def event(kind: str, subject: dict[str, Any]) -> dict[str, Any]:
    return {"id": "evt_1", "type": kind, "created": 1_760_000_000, "data": {"object": subject}}


@pytest.mark.parametrize(
    "kind", ["payment_intent.created", "customer.created", "charge.dispute.created", "x"]
)
def test_other_events_hold_no_facts(kind: str) -> None:
    assert gateway("http://127.0.0.1:1").read_event(event(kind, INTENT)) == []


def test_a_cut_event_is_an_error_and_not_a_silence() -> None:
    with pytest.raises(InvalidRequestError, match="evt_1"):
        gateway("http://127.0.0.1:1").read_event(event("payment_intent.succeeded", {"id": "pi_1"}))


def test_a_charge_captured_elsewhere_is_a_fact_without_an_operation() -> None:
    charge = {"id": "ch_1", "payment_intent": "pi_1", "amount_captured": 700, "currency": "eur"}
    (fact,) = wire.read_facts(event("charge.captured", {**charge, "metadata": INTENT["metadata"]}))
    assert (fact.kind, fact.operation_id, fact.payment_id) == (OperationKind.CAPTURE, "", "pay_1")
    assert fact.result.amount == Money(700, "EUR")
    assert fact.reference == "pi_1"


def test_a_bounced_refund_is_a_failed_one_with_its_reason() -> None:
    refund = {"id": "re_1", "payment_intent": "pi_1", "amount": 5, "currency": "eur", "status": "failed"}
    refund |= {"failure_reason": "lost_or_stolen_card", "metadata": {"operation_id": "op_9"}}
    (fact,) = wire.read_facts(event("refund.failed", refund))
    assert fact.operation_id == "op_9"
    assert fact.result.status is RefundStatus.FAILED
    assert fact.result.failure is not None
    assert fact.result.failure.gateway_code == "lost_or_stolen_card"


def test_refunds_listed_in_a_charge_are_facts() -> None:
    refund = {"id": "re_1", "payment_intent": "pi_1", "amount": 5, "currency": "eur", "status": "succeeded"}
    facts = wire.read_facts(event("charge.refunded", {"id": "ch_1", "refunds": {"data": [refund]}}))
    assert [fact.result.reference for fact in facts] == ["re_1"]
    assert wire.read_facts(event("charge.refunded", {"id": "ch_1"})) == []
