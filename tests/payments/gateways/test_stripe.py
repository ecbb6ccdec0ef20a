"""The Stripe adapter where the sandbox cannot go: broken connections, odd answers, the wire format itself."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
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
from payments.gateways.base import (
    CaptureRequest,
    ChargeRequest,
    ChargeResult,
    ChargeStatus,
    DisputeFact,
    EvidenceFile,
    EvidenceRequest,
    FetchRequest,
    RefundRequest,
    RefundStatus,
    SavedToken,
    VoidRequest,
)
from payments.gateways.stripe import StripeGateway, cards, declines, results, wire
from payments.gateways.stripe.events import read_facts
from payments.gateways.stripe.evidence import build_texts
from payments.gateways.stripe.reports import REPORT_COLUMNS
from payments.gateways.stripe.requests import MAX_CAPTURES, build_charge, build_metadata
from payments.ids import new_id
from payments.kinds import EVIDENCE_KINDS, DisputeStage, DisputeState, OperationKind
from payments.money import Money
from tests.payments.gateways.contract_shop import HASTE, PATIENCE

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


def gateway(url: str, *, timeout: float = PATIENCE) -> StripeGateway:
    return StripeGateway(KEY, api_base=url, timeout=timeout)


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
            gateway(f"http://127.0.0.1:{full.getsockname()[1]}", timeout=HASTE).authorize(REQUEST)
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
            gateway(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=HASTE).authorize(REQUEST)


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


def multicapture(status: str) -> dict[str, Any]:
    card = {"multicapture": {"status": status}} if status else {}
    return {"id": "ch_1", "payment_method_details": {"card": card}, "created": 1_760_000_000}


@pytest.mark.parametrize(
    ("intent", "match"),
    [
        (INTENT, "once only"),
        ({**INTENT, "latest_charge": multicapture("unavailable")}, "once only"),
        ({**INTENT, "latest_charge": multicapture("")}, "once only"),
        (
            {
                **INTENT,
                "latest_charge": multicapture("available"),
                "metadata": {f"captured_op_{number}": "1" for number in range(MAX_CAPTURES - 1)},
            },
            "final one",
        ),
    ],
)
def test_a_capture_in_parts_that_stripe_does_not_offer_is_refused_before_it_is_sent(
    intent: dict[str, Any], match: str
) -> None:
    sent = []

    def script(handler: BaseHTTPRequestHandler) -> None:
        sent.append(handler.command)
        answer(200, intent)(handler)

    with serving(script) as url, pytest.raises(InvalidRequestError, match=f"{match}.*nothing was sent"):
        gateway(url).capture(CaptureRequest("k", "op", "pi_1", Money(1, "EUR"), final=False))
    assert sent == ["GET"]


def test_a_release_without_a_reference_is_refused_before_it_is_sent() -> None:
    lost = VoidRequest("k", "op", "", Money(1, "EUR"), authorization_id="op_1")
    with pytest.raises(InvalidRequestError, match=r"op_1.*nothing was sent"):
        gateway("http://127.0.0.1:1").void(lost)


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
    assert cards.combine_checks(line, postal) == expected


def test_an_unknown_decline_code_is_kept_beside_a_plain_one() -> None:
    decline = declines.read_decline({"decline_code": "brand_new", "message": "No."})
    assert (decline.code, decline.gateway_code, decline.advice) == (
        "card_declined",
        "brand_new",
        "try_another_method",
    )


def test_every_decline_has_a_code_and_an_advice() -> None:
    assert all(code and advice for code, advice in declines.DECLINES.values())


def test_a_hold_without_a_stated_end_lasts_seven_days() -> None:
    charge = {"created": 1_760_000_000, "payment_method_details": {"card": {}}}
    assert results.read_expiry(charge) == datetime.fromtimestamp(1_760_000_000, UTC) + timedelta(days=7)
    charge["payment_method_details"] = {"card": {"capture_before": 1_760_000_500}}
    assert results.read_expiry(charge) == datetime.fromtimestamp(1_760_000_500, UTC)


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
    result = results.read_authorization({**INTENT, "status": "processing"})
    assert result is not None
    assert result.status is ChargeStatus.PENDING


# --- events -------------------------------------------------------------------------------------------------


def event(kind: str, subject: dict[str, Any]) -> dict[str, Any]:
    return {"id": "evt_1", "type": kind, "created": 1_760_000_000, "data": {"object": subject}}


@pytest.mark.parametrize("kind", ["payment_intent.created", "customer.created", "charge.updated", "x"])
def test_other_events_hold_no_facts(kind: str) -> None:
    assert gateway("http://127.0.0.1:1").read_event(event(kind, INTENT)) == []


def test_a_cut_event_is_an_error_and_not_a_silence() -> None:
    with pytest.raises(InvalidRequestError, match="evt_1"):
        gateway("http://127.0.0.1:1").read_event(event("payment_intent.succeeded", {"id": "pi_1"}))


def test_a_charge_captured_elsewhere_is_a_fact_without_an_operation() -> None:
    charge = {"id": "ch_1", "payment_intent": "pi_1", "amount_captured": 700, "currency": "eur"}
    (fact,) = read_facts(event("charge.captured", {**charge, "metadata": INTENT["metadata"]}))
    assert (fact.kind, fact.operation_id, fact.payment_id) == (OperationKind.CAPTURE, "", "pay_1")
    assert fact.result.amount == Money(700, "EUR")
    assert fact.reference == "pi_1"


def test_a_bounced_refund_is_a_failed_one_with_its_reason() -> None:
    refund = {"id": "re_1", "payment_intent": "pi_1", "amount": 5, "currency": "eur", "status": "failed"}
    refund |= {"failure_reason": "lost_or_stolen_card", "metadata": {"operation_id": "op_9"}}
    (fact,) = read_facts(event("refund.failed", refund))
    assert fact.operation_id == "op_9"
    assert fact.result.status is RefundStatus.FAILED
    assert fact.result.failure is not None
    assert fact.result.failure.gateway_code == "lost_or_stolen_card"


def test_refunds_listed_in_a_charge_are_facts() -> None:
    refund = {"id": "re_1", "payment_intent": "pi_1", "amount": 5, "currency": "eur", "status": "succeeded"}
    facts = read_facts(event("charge.refunded", {"id": "ch_1", "refunds": {"data": [refund]}}))
    assert [fact.result.reference for fact in facts] == ["re_1"]
    assert read_facts(event("charge.refunded", {"id": "ch_1"})) == []


# --- several captures ---------------------------------------------------------------------------------------


def captured(received: int, status: str = "requires_capture", **metadata: str) -> dict[str, Any]:
    left = 1999 - received if status == "requires_capture" else 0
    named = {**INTENT["metadata"], **{f"captured_{name}": value for name, value in metadata.items()}}
    return {
        **INTENT,
        "status": status,
        "amount_received": received,
        "amount_capturable": left,
        "metadata": named,
        "latest_charge": "ch_1",
    }


def amounts(facts: Any) -> list[tuple[str, str, int]]:
    return [(fact.kind.value, fact.operation_id, fact.result.amount.minor) for fact in facts]


def test_the_amount_of_a_capture_is_what_stripe_counts_and_not_our_number_echoed() -> None:
    intent = captured(1201, op_a="500", op_b="700")
    result = results.read_capture(intent, "op_b")
    assert result is not None
    assert (result.amount, result.total_captured) == (Money(701, "EUR"), Money(1201, "EUR"))


def test_a_part_that_somebody_else_captured_is_a_fact_of_its_own() -> None:
    facts = read_facts(event("payment_intent.amount_capturable_updated", captured(900, op_a="500")))
    assert amounts(facts) == [("capture", "op_a", 500), ("capture", "", 400)]


def test_a_hold_of_which_others_took_a_part_is_still_a_hold() -> None:
    facts = read_facts(event("payment_intent.amount_capturable_updated", captured(400)))
    assert amounts(facts) == [("authorize", "op_1", 1999), ("capture", "", 400)]


def test_a_rest_that_ran_out_is_released_and_one_that_a_final_capture_left_is_part_of_it() -> None:
    expired = read_facts(event("payment_intent.succeeded", captured(500, "succeeded", op_a="500")))
    assert amounts(expired) == [("capture", "op_a", 500), ("void", "", 1499)]
    final = read_facts(event("payment_intent.succeeded", captured(500, "succeeded", op_a="500 final")))
    assert amounts(final) == [("capture", "op_a", 500)]


def test_a_capture_named_the_older_way_is_still_read() -> None:
    intent = {**captured(1999, "succeeded"), "metadata": {"capture_operation_id": "op_old"}}
    assert amounts(read_facts(event("payment_intent.succeeded", intent))) == [("capture", "op_old", 1999)]


def test_the_sum_of_several_captures_is_no_capture() -> None:
    charge = {"id": "ch_1", "payment_intent": "pi_1", "amount_captured": 700, "currency": "eur"}
    assert read_facts(event("charge.captured", {**charge, **multicapture("available")})) == []


def test_metadata_keeps_room_for_every_capture() -> None:
    extra = {f"k{number}": "v" for number in range(80)}
    charge = build_charge(dataclasses.replace(REQUEST, several_captures=True, metadata=extra))
    assert len(charge["metadata"]) + MAX_CAPTURES + 1 <= 50
    assert len("captured_" + new_id("op")) <= 40


# --- disputes -----------------------------------------------------------------------------------------------

DISPUTE: dict[str, Any] = {
    "id": "du_1",
    "amount": 1999,
    "currency": "eur",
    "charge": "ch_1",
    "payment_intent": "pi_1",
    "reason": "product_not_received",
    "status": "needs_response",
    "evidence_details": {"due_by": 1_760_500_000, "submission_count": 0},
    "balance_transactions": [{"amount": -1999, "fee": 1500, "currency": "eur"}],
    "payment_method_details": {"card": {"network_reason_code": "13.1"}},
}


def read_one(kind: str = "created", **changes: Any) -> DisputeFact:
    (fact,) = read_facts(event(f"charge.dispute.{kind}", {**DISPUTE, **changes}))
    assert isinstance(fact, DisputeFact)
    return fact


def test_a_dispute_says_why_what_it_costs_and_until_when() -> None:
    fact = read_one()
    assert (fact.reason, fact.network_code) == ("not_received", "13.1")
    assert (fact.fee, fact.is_withdrawn) == (Money(1500, "EUR"), True)
    assert fact.due_by == datetime.fromtimestamp(1_760_500_000, UTC)
    assert fact.payment_reference == "pi_1"


@pytest.mark.parametrize(
    ("status", "stage", "state"),
    [
        ("warning_needs_response", DisputeStage.INQUIRY, DisputeState.NEEDS_RESPONSE),
        ("warning_under_review", DisputeStage.INQUIRY, DisputeState.UNDER_REVIEW),
        ("warning_closed", DisputeStage.INQUIRY, DisputeState.WON),
        ("under_review", DisputeStage.CHARGEBACK, DisputeState.UNDER_REVIEW),
        ("appeal_needs_response", DisputeStage.PRE_ARBITRATION, DisputeState.NEEDS_RESPONSE),
        ("prevented", DisputeStage.CHARGEBACK, DisputeState.WON),
    ],
)
def test_every_status_of_stripes_has_a_stage_and_a_state(
    status: str, stage: DisputeStage, state: DisputeState
) -> None:
    fact = read_one(status=status)
    assert (fact.stage, fact.state) == (stage, state)


@pytest.mark.parametrize(
    ("count", "due_by", "metadata", "state"),
    [
        (1, 1_759_000_000, {}, DisputeState.LOST),
        (0, 1_759_000_000, {}, DisputeState.EXPIRED),
        (0, 1_761_000_000, {}, DisputeState.LOST),
        (0, 1_761_000_000, {"accepted_by_us": "true"}, DisputeState.ACCEPTED),
        (1, 1_761_000_000, {"accepted_by_us": "true"}, DisputeState.LOST),
        (0, None, {}, DisputeState.LOST),
    ],
)
def test_a_lost_dispute_was_judged_given_up_or_forgotten(
    count: int, due_by: int | None, metadata: dict[str, str], state: DisputeState
) -> None:
    details = {"due_by": due_by, "submission_count": count}
    assert read_one("closed", status="lost", evidence_details=details, metadata=metadata).state is state


def test_money_that_came_back_is_not_withdrawn_and_an_event_without_balance_does_not_say() -> None:
    back = {"amount": 1999, "fee": 0, "currency": "eur"}
    won = read_one("closed", status="won", balance_transactions=[*DISPUTE["balance_transactions"], back])
    assert (won.fee, won.is_withdrawn) == (Money(1500, "EUR"), False)
    silent = read_one(balance_transactions=None)
    assert (silent.fee, silent.is_withdrawn) == (None, None)


def test_a_dispute_with_an_unknown_status_is_an_error_and_not_a_silence() -> None:
    with pytest.raises(InvalidRequestError, match="evt_1"):
        gateway("http://127.0.0.1:1").read_event(
            event("charge.dispute.updated", {**DISPUTE, "status": "new"})
        )


def evidence(texts: dict[str, str] | None = None, files: Sequence[str] = ()) -> EvidenceRequest:
    file = EvidenceFile("proof.pdf", "application/pdf", b"%PDF")
    return EvidenceRequest("k", "du_1", texts or {}, dict.fromkeys(files, file))


def test_a_text_that_stripe_has_no_field_for_is_named_among_the_rest() -> None:
    fields = build_texts(evidence({"receipt": "No. 12", "uncategorized": "Regular customer"}))
    assert fields == {"uncategorized_text": "Receipt: No. 12\n\nRegular customer"}


@pytest.mark.parametrize(
    "request_",
    [
        evidence({"product_description": "x" * 20_001}),
        evidence(dict.fromkeys(EVIDENCE_KINDS, "x" * 20000)),
        evidence({"horoscope": "good"}),
        evidence(files=["access_activity_log", "uncategorized"]),
    ],
    ids=["long", "long_together", "unknown", "two_for_one_field"],
)
def test_evidence_that_stripe_would_not_take_is_refused_before_it_is_sent(request_: EvidenceRequest) -> None:
    with pytest.raises(InvalidRequestError, match=r"du_1.*nothing was sent"):
        gateway("http://127.0.0.1:1").submit_evidence(request_)


def test_a_file_that_did_not_arrive_leaves_the_dispute_unanswered() -> None:
    asked = []

    def script(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        error(500)(handler)

    with serving(script) as url, pytest.raises(GatewayTimeoutError):
        gateway(url).submit_evidence(evidence(files=["receipt"]))
    assert asked == ["/v1/files"]


# --- saved tokens -------------------------------------------------------------------------------------------


def test_a_merchant_initiated_charge_asks_nobody() -> None:
    request = dataclasses.replace(
        REQUEST, is_merchant_initiated=True, request_three_d_secure=True, return_url="https://shop.example/"
    )
    params = build_charge(request, customer="cus_1")
    assert (params["off_session"], params["customer"]) == (True, "cus_1")
    assert "return_url" not in params
    assert "payment_method_options" not in params


def test_a_token_is_kept_only_by_an_intent_that_was_to_keep_it() -> None:
    kept = {**INTENT, "payment_method": "pm_1", "customer": "cus_1", "setup_future_usage": "off_session"}
    result = results.read_authorization(kept)
    assert result is not None
    assert result.saved == SavedToken("pm_1", "cus_1")
    for change in ({"setup_future_usage": None}, {"customer": None}, {"status": "requires_action"}):
        other = results.read_authorization({**kept, **change})
        assert other is not None
        assert other.saved is None


def test_a_token_that_is_still_attached_is_not_forgotten_by_a_refusal() -> None:
    def script(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "GET":
            answer(200, {"id": "pm_1", "object": "payment_method", "customer": "cus_1"})(handler)
        else:
            error(400)(handler)

    with serving(script) as url, pytest.raises(InvalidRequestError):
        gateway(url).forget_payment_method(SavedToken("pm_1", "cus_1"))
    with serving(error(404, code="resource_missing")) as url:
        gateway(url).forget_payment_method(SavedToken("pm_1", "cus_1"))
