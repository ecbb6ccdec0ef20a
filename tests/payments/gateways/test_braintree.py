"""The Braintree adapter beside the contract: parts, settlement, disputes, the vault, broken answers, the wire."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlencode

import braintree as sdk
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from moneyed import CURRENCIES

from payments.errors import (
    AmountTooLargeError,
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
    GatewayFact,
    RefundRequest,
    RefundResult,
    RefundStatus,
    SavedToken,
    VoidRequest,
)
from payments.gateways.braintree import BraintreeGateway, cards, declines, results, wire
from payments.gateways.braintree.client import find_environment
from payments.gateways.braintree.errors import NotSettledError
from payments.gateways.braintree.evidence import add_evidence
from payments.gateways.braintree.reports import REPORT_COLUMNS
from payments.gateways.braintree.requests import build_charge
from payments.ids import new_id
from payments.kinds import EVIDENCE_KINDS, DisputeStage, DisputeState, OperationKind
from payments.money import Money, exponent
from payments.sandbox.braintree import start
from tests.payments.gateways.contract_shop import HASTE, PATIENCE
from webhooks.verifiers import braintree as verifier

EUR = "EUR"
KEYS = "public|private"
NONCE = "fake-valid-nonce"
REQUEST = ChargeRequest("k", "op_1", "pay_1", "ord_1", Money(1999, EUR), NONCE)
CARD_NUMBER = "4242424242424242"


class Shop:
    """Payments at a Braintree whose batch runs when it is told to."""

    def __init__(self, url: str, *, several_captures: bool = True, timeout: float = PATIENCE) -> None:
        self.url = url
        self.gateway = BraintreeGateway(
            "m", "public", "private", api_base=url, timeout=timeout, several_captures=several_captures
        )

    def control(self, path: str, **body: Any) -> Any:
        response = requests.post(f"{self.url}{path}", json=body, timeout=PATIENCE)
        response.raise_for_status()
        return response.json()

    def hold(self, nonce: str = NONCE, minor: int = 1999, **extra: Any) -> ChargeResult:
        request = ChargeRequest("k", new_id("op"), "pay", "ord", Money(minor, EUR), nonce, **extra)
        return self.gateway.authorize(request)

    def capture(
        self, held: ChargeResult, minor: int = 1999, *, final: bool = True, by: str = ""
    ) -> ChargeResult:
        request = CaptureRequest("k", by or new_id("op"), held.reference, Money(minor, EUR), final)
        return self.gateway.capture(request)

    def void(self, held: ChargeResult, minor: int = 1999, *, is_rest: bool = False) -> ChargeResult:
        return self.gateway.void(
            VoidRequest("k", new_id("op"), held.reference, Money(minor, EUR), is_rest=is_rest)
        )

    def refund(self, taken: ChargeResult, minor: int, *, by: str = "") -> RefundResult:
        return self.gateway.refund(
            RefundRequest(
                "k",
                by or new_id("re"),
                taken.reference,
                Money(minor, EUR),
                capture_reference=taken.own_reference,
            )
        )

    def notify(self, kind: str, **subject: str) -> list[Any]:
        """The facts of a notification that the verifier let through."""
        form = self.control("/_notify", kind=kind, **subject)
        body = urlencode({name: form[name] for name in ("bt_signature", "bt_payload")}).encode()
        verifier.verify(headers={}, body=body, secrets=["sandbox_public|sandbox_private"], now=0)
        payload = json.loads(verifier.read_envelope(body).content)
        return list(self.gateway.read_event(payload))

    def books(self) -> dict[str, int]:
        return dict(requests.get(f"{self.url}/_books", timeout=PATIENCE).json())


@pytest.fixture
def shop() -> Iterator[Shop]:
    with start() as sandbox:
        yield Shop(sandbox.url)


# --- captures -----------------------------------------------------------------------------------------------


def test_parts_are_transactions_of_their_own_below_the_hold(shop: Shop) -> None:
    held = shop.hold()
    first = shop.capture(held, 500, final=False)
    second = shop.capture(held, 700, final=False)
    assert (first.status, first.amount) == (ChargeStatus.CAPTURED, Money(500, EUR))
    assert first.reference == second.reference == held.reference
    assert len({held.reference, first.own_reference, second.own_reference}) == 3
    assert (shop.books()["captures"], shop.books()["captured"]) == (2, 1200)


def test_each_part_is_found_by_its_own_operation(shop: Shop) -> None:
    held, mine = shop.hold(), new_id("op")
    shop.capture(held, 500, final=False)
    part = shop.capture(held, 700, final=False, by=mine)
    for own in ("", part.own_reference):
        request = FetchRequest(OperationKind.CAPTURE, mine, held.reference, own)
        assert shop.gateway.fetch(request) == part
    assert shop.gateway.fetch(FetchRequest(OperationKind.CAPTURE, new_id("op"), held.reference)) is None
    hold = shop.gateway.fetch(FetchRequest(OperationKind.AUTHORIZE, "", held.reference))
    assert hold is not None
    assert (hold.status, hold.amount) == (ChargeStatus.AUTHORIZED, Money(1999, EUR))


def test_the_last_part_ends_the_hold(shop: Shop) -> None:
    held = shop.hold()
    shop.capture(held, 500, final=False)
    last = shop.capture(held, 700)
    assert (last.status, last.amount) == (ChargeStatus.CAPTURED, Money(700, EUR))
    with pytest.raises(InvalidRequestError):
        shop.capture(held, 100)
    released = shop.gateway.fetch(FetchRequest(OperationKind.VOID, "op", held.reference))
    assert released is not None
    assert released.status is ChargeStatus.VOIDED


def test_the_rest_after_parts_is_released(shop: Shop) -> None:
    held = shop.hold()
    shop.capture(held, 500, final=False)
    assert shop.gateway.fetch(FetchRequest(OperationKind.VOID, "op", held.reference)) is None
    released = shop.void(held, 1499, is_rest=True)
    assert (released.status, released.amount) == (ChargeStatus.VOIDED, Money(1499, EUR))
    assert shop.books()["released"] == 1499
    assert shop.void(held, 1499, is_rest=True).status is ChargeStatus.VOIDED
    assert shop.books()["cancels"] == 1


def test_a_hold_with_parts_is_never_voided_as_a_whole(shop: Shop) -> None:
    held = shop.hold()
    shop.capture(held, 500, final=False)
    with pytest.raises(InvalidRequestError, match="in parts"):
        shop.void(held)


def test_one_capture_of_less_released_the_rest(shop: Shop) -> None:
    held = shop.hold()
    taken = shop.capture(held, 500)
    assert taken.total_captured == Money(500, EUR)
    released = shop.void(held, 1499, is_rest=True)
    assert (released.status, released.amount) == (ChargeStatus.VOIDED, Money(1499, EUR))
    assert shop.books()["cancels"] == 0


def test_parts_beyond_the_hold_are_too_large(shop: Shop) -> None:
    held = shop.hold()
    shop.capture(held, 1500, final=False)
    with pytest.raises(AmountTooLargeError):
        shop.capture(held, 500, final=False)


def test_a_capture_that_waits_for_the_batch_is_not_voided(shop: Shop) -> None:
    """Braintree would void it, and take the money back that the books have."""
    held = shop.hold()
    shop.capture(held)
    with pytest.raises(InvalidRequestError, match="is captured"):
        shop.void(held)
    assert shop.books()["cancels"] == 0


def test_without_the_permission_nothing_is_captured_in_parts(shop: Shop) -> None:
    plain = Shop(shop.url, several_captures=False)
    held = plain.hold()
    assert not plain.gateway.capabilities.several_captures
    with pytest.raises(InvalidRequestError, match="nothing was sent"):
        plain.capture(held, 500, final=False)
    assert plain.capture(held, 500).status is ChargeStatus.CAPTURED


def test_a_duplicate_that_braintree_refuses_is_answered_with_the_first(shop: Shop) -> None:
    shop.control("/_settings", duplicate_seconds=30)
    first = shop.gateway.authorize(REQUEST)
    assert shop.gateway.authorize(REQUEST) == first
    assert shop.gateway.fetch(FetchRequest(OperationKind.AUTHORIZE, REQUEST.operation_id)) == first


def test_a_duplicate_without_a_first_is_unknown(shop: Shop) -> None:
    with pytest.raises(GatewayTimeoutError, match="duplicate"):
        shop.hold("fake-gateway-rejected-duplicate-nonce")


# --- settlement ---------------------------------------------------------------------------------------------


def test_a_settlement_that_was_declined_tells_of_the_capture(shop: Shop) -> None:
    held, mine = shop.hold("fake-settlement-declined-nonce"), new_id("op")
    assert shop.capture(held, by=mine).status is ChargeStatus.CAPTURED
    shop.control("/_settle")
    found = shop.gateway.fetch(FetchRequest(OperationKind.CAPTURE, mine, held.reference))
    assert isinstance(found, ChargeResult)
    assert found.status is ChargeStatus.FAILED  # what had succeeded is taken back
    assert found.decline is not None
    assert found.decline.gateway_code == "4001"
    [fact] = shop.notify("transaction_settlement_declined", transaction=held.reference)
    assert (fact.kind, fact.operation_id, fact.result.status) == (
        OperationKind.CAPTURE,
        mine,
        ChargeStatus.FAILED,
    )


def test_a_settled_part_is_told_with_its_own_id_and_its_authorization(shop: Shop) -> None:
    held, mine = shop.hold(), new_id("op")
    part = shop.capture(held, 500, final=False, by=mine)
    shop.control("/_settle")
    [fact] = shop.notify("transaction_settled", transaction=part.own_reference)
    assert isinstance(fact, GatewayFact)
    assert isinstance(fact.result, ChargeResult)
    assert (fact.operation_id, fact.reference, fact.result.own_reference) == (
        mine,
        held.reference,
        part.own_reference,
    )
    assert (fact.result.status, fact.result.amount) == (ChargeStatus.CAPTURED, Money(500, EUR))
    assert fact.occurred_at is not None
    assert fact.occurred_at.tzinfo is not None


def test_a_settled_authorization_with_parts_is_no_capture(shop: Shop) -> None:
    held = shop.hold()
    shop.capture(held, 500, final=False)
    assert shop.notify("transaction_settled", transaction=held.reference) == []
    shop.capture(held, 700)  # now it is confirmed, as a capture may be
    assert shop.notify("transaction_settled", transaction=held.reference) == []


# --- refunds ------------------------------------------------------------------------------------------------


def test_each_settled_part_is_refunded_by_itself(shop: Shop) -> None:
    held = shop.hold()
    first, second = shop.capture(held, 500, final=False), shop.capture(held, 700, final=False)
    shop.control("/_settle")
    refund = shop.refund(second, 700)
    assert (refund.status, refund.amount) == (RefundStatus.SUCCEEDED, Money(700, EUR))
    with pytest.raises(AmountTooLargeError):
        shop.refund(first, 600)
    with pytest.raises(AmountTooLargeError):
        shop.refund(second, 1)


def test_the_whole_of_what_has_not_settled_is_voided(shop: Shop) -> None:
    held, mine, refund_id = shop.hold(), new_id("op"), new_id("re")
    taken = shop.capture(held, by=mine)
    refund = shop.refund(taken, 1999, by=refund_id)
    assert (refund.status, refund.reference) == (RefundStatus.SUCCEEDED, taken.own_reference)
    assert shop.books()["refunds"] == 0
    # The refund is found again, a second try does nothing, and the capture stays one.
    assert shop.gateway.fetch(FetchRequest(OperationKind.REFUND, refund_id, held.reference)) == refund
    assert shop.refund(taken, 1999, by=refund_id) == refund
    assert shop.books()["cancels"] == 1
    capture = shop.gateway.fetch(FetchRequest(OperationKind.CAPTURE, mine, held.reference))
    assert capture is not None
    assert capture.status is ChargeStatus.CAPTURED


def test_a_part_that_has_not_settled_is_voided_alone(shop: Shop) -> None:
    held = shop.hold()
    first, second = shop.capture(held, 500, final=False), shop.capture(held, 700, final=False)
    assert shop.refund(first, 500).amount == Money(500, EUR)
    other = shop.gateway.fetch(FetchRequest(OperationKind.REFUND, "re", held.reference, second.own_reference))
    assert other is None


@pytest.mark.parametrize("status", ["submitted_for_settlement", "settling"])
def test_a_part_of_a_capture_waits_until_it_has_settled(shop: Shop, status: str) -> None:
    taken = shop.capture(shop.hold())
    if status == "settling":
        shop.control("/_settle", status="settling")
    with pytest.raises(NotSettledError, match=status) as caught:
        shop.refund(taken, 500)
    assert caught.value.retriable  # surely not done: the refund is not lost, it is sent again
    assert caught.value.details["retry_after"] > 0
    assert not isinstance(caught.value, NetworkError | RateLimitedError)  # but not within seconds
    shop.control("/_settle")
    assert shop.refund(taken, 500).status is RefundStatus.SUCCEEDED
    assert shop.books()["refunded"] == 500


def test_the_whole_of_what_is_settling_waits_too(shop: Shop) -> None:
    taken = shop.capture(shop.hold())
    shop.control("/_settle", status="settling")
    with pytest.raises(NotSettledError):
        shop.refund(taken, 1999)
    assert shop.books()["cancels"] == 0


def test_a_refund_that_the_issuer_refuses_has_failed(shop: Shop) -> None:
    taken = shop.capture(shop.hold("fake-refund-declined-nonce"))
    shop.control("/_settle")
    refund = shop.refund(taken, 500)
    assert refund.status is RefundStatus.FAILED
    assert refund.failure is not None
    assert (refund.failure.code, refund.failure.gateway_code) == ("refund_failed", "2000")


def test_a_refund_that_failed_later_is_told(shop: Shop) -> None:
    taken, mine = shop.capture(shop.hold()), new_id("re")
    shop.control("/_settle")
    refund = shop.refund(taken, 500, by=mine)
    [fact] = shop.notify("refund_failed", transaction=refund.reference)
    assert (fact.kind, fact.operation_id, fact.result.status) == (
        OperationKind.REFUND,
        mine,
        RefundStatus.FAILED,
    )


# --- saved payment methods ----------------------------------------------------------------------------------


def test_a_saved_card_is_charged_without_its_holder_and_forgotten(shop: Shop) -> None:
    first = shop.hold(save_payment_method=True, customer_email="jo@example.com")
    assert first.saved is not None
    assert first.saved.customer_reference
    later = shop.hold(
        first.saved.token,
        customer_reference=first.saved.customer_reference,
        is_merchant_initiated=True,
        request_three_d_secure=True,
    )
    assert later.status is ChargeStatus.AUTHORIZED
    assert later.saved == first.saved
    shop.gateway.forget_payment_method(first.saved)
    shop.gateway.forget_payment_method(first.saved)
    with pytest.raises(InvalidRequestError):
        shop.hold(first.saved.token, is_merchant_initiated=True)


def test_a_second_card_joins_the_customer(shop: Shop) -> None:
    first = shop.hold(save_payment_method=True)
    assert first.saved is not None
    second = shop.hold(
        "fake-valid-amex-nonce",
        save_payment_method=True,
        customer_reference=first.saved.customer_reference,
    )
    assert second.saved is not None
    assert second.saved.customer_reference == first.saved.customer_reference
    assert second.saved.token != first.saved.token


def test_a_card_that_was_not_kept_has_no_token(shop: Shop) -> None:
    assert shop.hold().saved is None


def test_a_declined_card_is_not_kept(shop: Shop) -> None:
    assert shop.hold("fake-decline-2001-nonce", save_payment_method=True).saved is None


# --- disputes -----------------------------------------------------------------------------------------------


def open_dispute(shop: Shop, **body: Any) -> str:
    taken = shop.capture(shop.hold())
    shop.control("/_settle")
    return str(shop.control("/_disputes", transaction=taken.reference, **body)["id"])


def test_a_dispute_states_amount_deadline_and_transaction(shop: Shop) -> None:
    reference = open_dispute(shop, reason="product_not_received", amount="5.00")
    fact = shop.gateway.fetch_dispute(reference)
    assert fact is not None
    assert (fact.stage, fact.state) == (DisputeStage.CHARGEBACK, DisputeState.NEEDS_RESPONSE)
    assert (fact.amount, fact.reason, fact.is_withdrawn) == (Money(500, EUR), "not_received", True)
    assert fact.due_by is not None
    assert fact.due_by > datetime.now(UTC) + timedelta(days=9)
    assert fact.payment_reference
    assert fact.source == "poll"


def test_an_unknown_dispute_is_none(shop: Shop) -> None:
    assert shop.gateway.fetch_dispute("nobody") is None
    assert shop.gateway.fetch_dispute("../x") is None


FILE = EvidenceFile("delivery note.pdf", "application/pdf", b"%PDF-1.4")


def test_evidence_is_sent_once_and_the_answer_closed(shop: Shop) -> None:
    reference = open_dispute(shop, reason="product_not_received")
    texts = {kind: f"about {kind}" for kind in EVIDENCE_KINDS}
    request = EvidenceRequest("k", reference, texts, {"shipping_documentation": FILE, "receipt": FILE})
    fact = shop.gateway.submit_evidence(request)
    assert fact.state is DisputeState.UNDER_REVIEW
    evidence = fact.raw["evidence"]
    assert len(evidence) == len(EVIDENCE_KINDS) + 2
    assert {item.get("category") for item in evidence} == {None, "TRACKING_NUMBER", "PROOF_OF_DELIVERY"}
    assert shop.gateway.submit_evidence(request) == fact


def test_a_category_that_the_reason_does_not_know_is_left_away(shop: Shop) -> None:
    reference = open_dispute(shop, reason="general")
    texts = {"shipping_tracking_number": "1Z999"}
    fact = shop.gateway.submit_evidence(
        EvidenceRequest("k", reference, texts, {"shipping_documentation": FILE})
    )
    assert [item.get("category") for item in fact.raw["evidence"]] == [None, None]


def test_evidence_that_was_half_sent_is_completed(shop: Shop) -> None:
    reference = open_dispute(shop)
    add_evidence(shop.gateway._sdk.dispute.add_text_evidence, reference, {"content": "Receipt: here"}, None)
    request = EvidenceRequest("k", reference, {"receipt": "here", "refund_policy": "none"})
    assert len(shop.gateway.submit_evidence(request).raw["evidence"]) == 2


def test_evidence_of_another_type_is_refused_before_it_is_sent(shop: Shop) -> None:
    reference = open_dispute(shop)
    file = EvidenceFile("a.exe", "application/octet-stream", b"MZ")
    with pytest.raises(InvalidRequestError, match="nothing was sent"):
        shop.gateway.submit_evidence(EvidenceRequest("k", reference, {}, {"receipt": file}))


@pytest.mark.parametrize("status", ["won", "lost", "expired", "accepted"])
def test_a_decided_dispute_takes_no_answer(shop: Shop, status: str) -> None:
    reference = open_dispute(shop)
    shop.control("/_disputes", dispute=reference, status=status)
    with pytest.raises(InvalidRequestError, match=status):
        shop.gateway.submit_evidence(EvidenceRequest("k", reference, {"receipt": "here"}))
    if status != "accepted":
        with pytest.raises(InvalidRequestError):
            shop.gateway.accept_dispute(reference, key="k")


def test_a_dispute_is_accepted_once(shop: Shop) -> None:
    reference = open_dispute(shop)
    assert shop.gateway.accept_dispute(reference, key="k").state is DisputeState.ACCEPTED
    assert shop.gateway.accept_dispute(reference, key="k").state is DisputeState.ACCEPTED


@pytest.mark.parametrize(
    ("kind", "status", "state", "is_withdrawn"),
    [
        ("dispute_opened", "open", DisputeState.NEEDS_RESPONSE, True),
        ("dispute_disputed", "disputed", DisputeState.UNDER_REVIEW, True),
        ("dispute_under_review", "under_review", DisputeState.UNDER_REVIEW, True),
        ("dispute_won", "won", DisputeState.WON, False),
        ("dispute_lost", "lost", DisputeState.LOST, True),
        ("dispute_accepted", "accepted", DisputeState.ACCEPTED, True),
        ("dispute_auto_accepted", "auto_accepted", DisputeState.ACCEPTED, True),
        ("dispute_expired", "expired", DisputeState.EXPIRED, True),
    ],
)
def test_a_notification_tells_how_a_dispute_stands(
    shop: Shop, kind: str, status: str, state: DisputeState, is_withdrawn: bool
) -> None:
    reference = open_dispute(shop)
    shop.control("/_disputes", dispute=reference, status=status)
    [fact] = shop.notify(kind, dispute=reference)
    assert isinstance(fact, DisputeFact)
    assert (fact.reference, fact.state, fact.is_withdrawn) == (reference, state, is_withdrawn)
    assert fact.occurred_at is not None


@pytest.mark.parametrize(
    ("kind", "stage", "is_withdrawn"),
    [
        ("retrieval", DisputeStage.INQUIRY, False),
        ("chargeback", DisputeStage.CHARGEBACK, True),
        ("pre_arbitration", DisputeStage.PRE_ARBITRATION, True),
    ],
)
def test_the_stage_says_whether_money_has_moved(
    shop: Shop, kind: str, stage: DisputeStage, is_withdrawn: bool
) -> None:
    fact = shop.gateway.fetch_dispute(open_dispute(shop, kind=kind))
    assert fact is not None
    assert (fact.stage, fact.is_withdrawn) == (stage, is_withdrawn)


# --- notifications of the SDK -------------------------------------------------------------------------------
TESTING = sdk.BraintreeGateway(
    sdk.Configuration(
        environment=sdk.Environment.Sandbox, merchant_id="m", public_key="public", private_key="private"
    )
).webhook_testing
KINDS = sorted(
    value for name, value in vars(sdk.WebhookNotification.Kind).items() if not name.startswith("_")
)
TOLD = {"transaction_settled", "transaction_settlement_declined"}


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"refund_failed"}))
def test_every_kind_of_the_sdk_is_a_fact_or_no_concern(kind: str) -> None:
    form = TESTING.sample_notification(kind, "my_id")
    payload = verifier.read_envelope(urlencode(form).encode()).payload
    facts = gateway("http://127.0.0.1:1").read_event(payload)
    assert len(facts) == (1 if kind in TOLD or kind.startswith("dispute_") else 0)


def test_a_failed_refund_without_a_currency_is_left_to_a_person() -> None:
    """The SDK's sample has none; a refund that failed must not pass unseen."""
    form = TESTING.sample_notification("refund_failed", "my_id")
    payload = dict(verifier.read_envelope(urlencode(form).encode()).payload)
    with pytest.raises(InvalidRequestError, match="refund_failed"):
        gateway("http://127.0.0.1:1").read_event(payload)
    payload["subject"]["transaction"] |= {"currency_iso_code": "EUR", "order_id": "re_1", "type": "credit"}
    [fact] = gateway("http://127.0.0.1:1").read_event(payload)
    assert isinstance(fact, GatewayFact)
    assert (fact.operation_id, fact.result.status) == ("re_1", RefundStatus.FAILED)


def test_a_notification_without_its_subject_is_our_mistake() -> None:
    event = {"kind": "dispute_opened", "timestamp": "2026-01-01T00:00:00+00:00", "subject": {}}
    with pytest.raises(InvalidRequestError, match="dispute_opened"):
        gateway("http://127.0.0.1:1").read_event(event)


# --- connections --------------------------------------------------------------------------------------------
Script = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(script: Script) -> Iterator[str]:
    """A server whose every request is answered by the script."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            script(self)

        do_POST = do_PUT = do_DELETE = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:  # else a failing test waits for this thread for ever
            server.shutdown()
            thread.join()


def answer(status: int, body: str = "") -> Script:
    def script(handler: BaseHTTPRequestHandler) -> None:
        payload = body.encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/xml")
        handler.send_header("Content-Length", str(len(payload)))
        handler.end_headers()
        handler.wfile.write(payload)

    return script


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def break_off(handler: BaseHTTPRequestHandler) -> None:
    """Half an answer."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n<transaction><id>1</id>")


def gateway(url: str, *, timeout: float = PATIENCE) -> BraintreeGateway:
    return BraintreeGateway("m", "public", "private", api_base=url, timeout=timeout)


def test_nobody_listening_means_surely_not_sent() -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(NetworkError, match="was not sent"):
            gateway(f"http://127.0.0.1:{unused.getsockname()[1]}").authorize(REQUEST)


def test_an_unknown_host_means_surely_not_sent() -> None:
    with pytest.raises(NetworkError):
        gateway("http://gateway.invalid").authorize(REQUEST)


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


TRANSACTION = "<id>t1</id><type>sale</type><status>{status}</status><amount>{amount}</amount>"
GOOD = TRANSACTION.format(status="authorized", amount="19.99") + "<currency-iso-code>EUR</currency-iso-code>"
ERROR = (
    '<api-error-response><errors><errors type="array"/><transaction><errors type="array"><error>'
    "<code>{code}</code><attribute>base</attribute><message>no</message></error></errors></transaction></errors>"
    "<message>{message}</message></api-error-response>"
)


def refusal(code: str, message: str = "no") -> Script:
    return answer(422, ERROR.format(code=code, message=message))


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (answer(401), InvalidRequestError),
        (answer(403), InvalidRequestError),
        (answer(404), InvalidRequestError),
        (answer(400), InvalidRequestError),
        (answer(413), InvalidRequestError),
        (answer(426), InvalidRequestError),
        (answer(429), RateLimitedError),
        (answer(408), GatewayTimeoutError),
        (answer(500), GatewayTimeoutError),
        (answer(502), GatewayTimeoutError),
        (answer(503), GatewayTimeoutError),
        (answer(504), GatewayTimeoutError),
        (refusal("91565"), InvalidRequestError),
        (
            answer(422, "<api-error-response><errors/><message>no</message></api-error-response>"),
            GatewayTimeoutError,
        ),
        (answer(422, "<hello/>"), GatewayTimeoutError),
        (answer(200), GatewayTimeoutError),
        (answer(200, "no xml"), GatewayTimeoutError),
        (answer(200, "<html>hello</html>"), GatewayTimeoutError),
        (answer(200, "<transaction><id>t1</id></transaction>"), GatewayTimeoutError),
        (answer(200, f"<transaction>{GOOD.replace('EUR', 'ZZZ')}</transaction>"), GatewayTimeoutError),
        (answer(200, f"<transaction>{GOOD.replace('19.99', 'much')}</transaction>"), GatewayTimeoutError),
        (answer(200, f"<transaction>{GOOD.replace('19.99', '')}</transaction>"), GatewayTimeoutError),
        (answer(200, f"<transaction>{GOOD.replace('<id>t1</id>', '')}</transaction>"), GatewayTimeoutError),
    ],
)
def test_every_odd_answer_has_its_place_in_the_taxonomy(script: Script, expected: type[PaymentError]) -> None:
    with serving(script) as url, pytest.raises(PaymentError) as caught:
        gateway(url).authorize(REQUEST)
    assert isinstance(caught.value, expected)
    assert caught.value.retriable is (expected is RateLimitedError)


def test_a_short_good_answer_is_read() -> None:
    with serving(answer(201, f"<transaction>{GOOD}</transaction>")) as url:
        assert gateway(url).authorize(REQUEST).amount == Money(1999, EUR)


def test_wrong_keys_are_named_but_never_shown() -> None:
    with serving(answer(401)) as url, pytest.raises(InvalidRequestError, match="keys") as caught:
        gateway(url).authorize(REQUEST)
    assert "private" not in json.dumps(caught.value.to_dict())


def test_a_card_number_in_an_error_is_masked() -> None:
    script = refusal("91565", f"No such card {CARD_NUMBER}")
    with serving(script) as url, pytest.raises(InvalidRequestError) as caught:
        gateway(url).authorize(REQUEST)
    assert CARD_NUMBER not in caught.value.message
    assert "4242" in caught.value.message


def test_a_404_is_an_absence_only_where_the_search_answers() -> None:
    """Behind a wrong address every operation would seem never to have happened."""
    request = FetchRequest(OperationKind.AUTHORIZE, "op_1", "t1")
    with serving(answer(404)) as url, pytest.raises(InvalidRequestError):
        gateway(url).fetch(request)
    with start() as sandbox:
        assert gateway(sandbox.url).fetch(request) is None


def test_the_private_key_goes_by_basic_authentication_alone() -> None:
    seen: list[str] = []

    def script(handler: BaseHTTPRequestHandler) -> None:
        seen.append(f"{handler.path} {handler.headers['Authorization']}")
        answer(201, f"<transaction>{GOOD}</transaction>")(handler)

    with serving(script) as url:
        gateway(url).authorize(REQUEST)
    token = base64.b64encode(b"public:private").decode()
    assert seen == [f"/merchants/m/transactions Basic {token}"]


# --- reports ------------------------------------------------------------------------------------------------


def test_a_report_that_breaks_off_is_an_error(shop: Shop) -> None:
    chunks = shop.gateway.settlement_report(day=date(2026, 1, 5))
    assert next(chunks).decode().strip() == ",".join(REPORT_COLUMNS)
    shop.control("/_faults", fault="500", operation="retrieve")
    with pytest.raises(GatewayTimeoutError):
        next(chunks)


def test_the_report_tells_of_declined_settlements(shop: Shop) -> None:
    taken = shop.capture(shop.hold("fake-settlement-declined-nonce"))
    shop.control("/_settle")
    shop.gateway._clock = lambda: datetime.now(UTC) + timedelta(days=1)
    text = b"".join(shop.gateway.settlement_report(day=datetime.now(UTC).date())).decode()
    [row] = [dict(zip(REPORT_COLUMNS, line.split(","), strict=True)) for line in text.splitlines()[1:]]
    assert (row["transaction_id"], row["status"]) == (taken.own_reference, "settlement_declined")
    assert row["occurred_at"].endswith("+00:00")


# --- requests -----------------------------------------------------------------------------------------------


def test_the_same_request_is_always_the_same_on_the_wire() -> None:
    assert build_charge(REQUEST, {}) == {
        "amount": "19.99",
        "order_id": "op_1",
        "options": {"submit_for_settlement": False},
        "payment_method_nonce": NONCE,
    }


def test_a_charge_without_the_cardholder_says_so_and_asks_for_no_authentication() -> None:
    request = ChargeRequest(
        "k",
        "op_1",
        "pay_1",
        "ord_1",
        Money(1999, EUR),
        "vault:abc",
        request_three_d_secure=True,
        is_merchant_initiated=True,
    )
    assert build_charge(request, {}) == {
        "amount": "19.99",
        "order_id": "op_1",
        "options": {"submit_for_settlement": False},
        "payment_method_token": "abc",
        "transaction_source": "unscheduled",
    }


@pytest.mark.parametrize(
    ("exemption", "expected"),
    [
        ("low_value", {"sca_exemption": "low_value"}),
        ("tra", {"sca_exemption": "transaction_risk_analysis"}),
        ("recurring", {"transaction_source": "recurring"}),
    ],
)
def test_an_exemption_is_said_in_braintrees_words(exemption: str, expected: dict[str, str]) -> None:
    saved = replace(REQUEST, payment_method="vault:abc")
    body = build_charge(replace(saved, sca_exemption=exemption), {})
    assert body == build_charge(saved, {}) | expected
    asked = build_charge(replace(saved, sca_exemption=exemption, request_three_d_secure=True), {})
    assert not expected.keys() & asked.keys()
    alone = build_charge(replace(saved, sca_exemption=exemption, is_merchant_initiated=True), {})
    assert alone["transaction_source"] == "unscheduled"


def test_each_currency_goes_to_its_merchant_account() -> None:
    assert build_charge(REQUEST, {"EUR": "shop_eur"})["merchant_account_id"] == "shop_eur"
    assert "merchant_account_id" not in build_charge(REQUEST, {"USD": "shop_usd"})


@pytest.mark.parametrize("name", ["merchant_id", "public_key", "api_key"])
def test_an_account_without_its_keys_is_refused(name: str) -> None:
    credentials = {"merchant_id": "m", "public_key": "p", "api_key": "k"}
    with pytest.raises(ValueError, match=name):
        BraintreeGateway.from_account(credentials | {name: ""})


def test_an_account_is_made_of_its_credentials() -> None:
    made = BraintreeGateway.from_account(
        {
            "merchant_id": "m",
            "public_key": "p",
            "api_key": "k",
            "api_base": "sandbox",
            "timeout": "25",
            "merchant_account_EUR": "shop_eur",
            "several_captures": "true",
        }
    )
    assert made._merchant_accounts == {"EUR": "shop_eur"}
    assert made.capabilities.several_captures
    assert sum(made._timeout) == 25
    assert made._sdk.config.timeout == made._timeout


@pytest.mark.parametrize(
    "address", ["", "nowhere", "https://127.0.0.1:8443", "http://127.0.0.1:443", "ftp://x"]
)
def test_an_address_that_the_sdk_would_reach_otherwise_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        find_environment(address)


# --- money on the wire --------------------------------------------------------------------------------------
def payable() -> list[str]:
    codes = []
    for code in CURRENCIES:
        try:
            exponent(code)
        except ValueError:
            continue
        codes.append(code)
    return sorted(codes)


@given(st.integers(min_value=0, max_value=10**15), st.sampled_from(payable()))
def test_no_amount_is_lost_on_the_way_and_back(minor: int, currency: str) -> None:
    amount = Money(minor, currency)
    text = wire.to_wire(amount)
    assert wire.from_wire(text, currency) == amount
    assert len(text.partition(".")[2]) == exponent(currency)
    assert "E" not in text.upper()


@pytest.mark.parametrize(
    ("amount", "text"),
    [(Money(1999, "EUR"), "19.99"), (Money(500, "JPY"), "500"), (Money(1230, "KWD"), "1.230")],
)
def test_amounts_are_written_with_the_digits_of_their_currency(amount: Money, text: str) -> None:
    assert wire.to_wire(amount) == text


def test_a_fraction_that_the_currency_does_not_have_is_a_mismatch() -> None:
    assert wire.from_wire("500.00", "JPY") == Money(500, "JPY")
    for stated, currency in (("500.50", "JPY"), ("1.999", "EUR")):
        with pytest.raises(GatewayMismatchError):
            wire.from_wire(stated, currency)


# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (("", "M", "M"), "pass"),
        (("", "M", "N"), "fail"),
        (("", "U", "M"), "pass"),
        (("", "I", "U"), "unavailable"),
        (("", "I", "I"), "unchecked"),
        (("S", "", ""), "unavailable"),
        ((None, None, None), ""),
        (("Q", "", ""), ""),
    ],
)
def test_address_checks_are_combined(codes: tuple[str | None, ...], expected: str) -> None:
    assert cards.combine_checks(*codes) == expected


@pytest.mark.parametrize(
    ("code", "country"),
    [("USA", "US"), ("DEU", "DE"), ("GBR", "GB"), ("FR", "FR"), ("Unknown", ""), ("", "")],
)
def test_countries_have_two_letters(code: str, country: str) -> None:
    assert cards.read_country(code) == country


@pytest.mark.parametrize("reason", sorted(set(declines.REJECTIONS) - {"duplicate"}))
def test_a_rejection_of_braintree_itself_is_a_decline(shop: Shop, reason: str) -> None:
    result = shop.hold(f"fake-gateway-rejected-{reason}-nonce")
    assert result.decline is not None
    assert result.decline.gateway_code == reason
    assert (result.decline.code, result.decline.advice) == declines.REJECTIONS[reason]


def test_every_rejection_that_the_sdk_knows_is_translated() -> None:
    known = sdk.Transaction.GatewayRejectionReason
    words = {value for name, value in vars(known).items() if not name.startswith("_")}
    assert words <= set(declines.REJECTIONS)


def test_the_common_codes_are_translated_and_the_others_kept() -> None:
    missing = {str(code) for code in (*range(2000, 2052), 2053, *range(2057, 2062), 2099, 3000)} - set(
        declines.DECLINES
    )
    assert missing == set()
    unheard_of = {"status": "processor_declined", "processor_response_code": "2999"}
    decline = declines.read_decline(unheard_of)
    assert (decline.code, decline.gateway_code, decline.advice) == (
        "card_declined",
        "2999",
        "try_another_method",
    )


@pytest.mark.parametrize(
    "status", sorted({v for n, v in vars(sdk.Transaction.Status).items() if n[0] != "_"})
)
def test_every_status_of_the_sdk_is_read_in_every_way(status: str) -> None:
    transaction = {"id": "t", "type": "sale", "status": status, "amount": "1.00", "currency_iso_code": "EUR"}
    for kind in OperationKind:
        results.read_transaction(transaction, kind=kind)
        results.read_transaction(transaction | {"type": "credit"}, kind=kind)
    assert results.read_authorization(transaction) is not None


def test_what_is_kept_of_an_answer_names_no_customer(shop: Shop) -> None:
    held = shop.hold(save_payment_method=True, customer_email="jo@example.com")
    text = json.dumps(dict(held.raw))
    assert "jo@example.com" not in text
    assert held.saved is not None
    assert held.saved.token.removeprefix(wire.VAULT) not in text


def test_a_token_that_is_named_plainly_is_forgotten_too(shop: Shop) -> None:
    saved = shop.hold(save_payment_method=True).saved
    assert saved is not None
    plain = saved.token.removeprefix(wire.VAULT)
    shop.gateway.forget_payment_method(SavedToken(plain))
    with pytest.raises(InvalidRequestError):
        shop.hold(saved.token)
