"""The Adyen adapter where its stand-in cannot go: broken connections, odd answers, the wire format itself."""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from payments.errors import (
    GatewayMismatchError,
    GatewayTimeoutError,
    InvalidRequestError,
    NetworkError,
    PaymentError,
    RateLimitedError,
    ReportNotReadyError,
)
from payments.gateways.adyen import AdyenGateway, cards, declines, evidence, results, wire
from payments.gateways.adyen.client import find_addresses
from payments.gateways.adyen.requests import build_charge, shorten_key
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
from payments.ids import new_id
from payments.kinds import DisputeStage, DisputeState, OperationKind
from payments.money import Money
from payments.sandbox.adyen import start
from tests.payments.gateways.contract_shop import HASTE, PATIENCE
from tests.payments.gateways.test_adyen_contract import ACCOUNT, AdyenWorld, make_token
from tests.payments.gateways.test_stripe import Script, answer, break_off, hang_up, serving

KEY = "AQE_unit_test_key"
CARD_NUMBER = "4242424242424242"
EUROS = Money(1999, "EUR")
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
REQUEST = ChargeRequest("key-1", "op_1", "pay_1", "ord_1", EUROS, "shopper-1:8416065199174107")
CAPTURE = CaptureRequest("key-2", "op_2", "QFQTPCQ8HXSKGK82", EUROS)
AUTHORISED: dict[str, Any] = {
    "pspReference": "QFQTPCQ8HXSKGK82",
    "resultCode": "Authorised",
    "amount": {"currency": "EUR", "value": 1999},
    "merchantReference": "op_1",
    "paymentMethod": {"brand": "mc", "type": "scheme"},
    "additionalData": {"cardSummary": "1111", "expiryDate": "3/2030", "fundingSource": "DEBIT"},
}


def error(status: int, code: str = "702", message: str = "no") -> Script:
    return answer(
        status, {"status": status, "errorCode": code, "message": message, "errorType": "validation"}
    )


def gateway(url: str, *, timeout: float = PATIENCE, **more: Any) -> AdyenGateway:
    return AdyenGateway(KEY, ACCOUNT, api_base=url, timeout=timeout, **more)


# --- connections --------------------------------------------------------------------------------------------


def test_nobody_listening_means_surely_not_sent() -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(NetworkError, match="was not sent"):
            gateway(f"http://127.0.0.1:{unused.getsockname()[1]}").authorize(REQUEST)


def test_an_unknown_host_means_surely_not_sent() -> None:
    with pytest.raises(NetworkError):
        gateway("http://gateway.invalid").capture(CAPTURE)


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
        gateway("htp://nowhere").authorize(REQUEST)


def test_the_key_does_not_follow_a_redirect() -> None:
    """The SDK's own transport would take it along to wherever the answer points."""
    reached: list[str] = []

    def elsewhere(handler: BaseHTTPRequestHandler) -> None:
        reached.append(handler.headers.get("x-api-key", ""))
        answer(200, AUTHORISED)(handler)

    with serving(elsewhere) as other:

        def redirect(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(307)
            handler.send_header("Location", f"{other}/taken")
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        with serving(redirect) as url, pytest.raises(GatewayTimeoutError):
            gateway(url).authorize(REQUEST)
    assert reached == []


def test_nothing_is_sent_twice_by_the_sdk() -> None:
    calls: list[str] = []

    def script(handler: BaseHTTPRequestHandler) -> None:
        calls.append(handler.path)
        error(500)(handler)

    with serving(script) as url, pytest.raises(GatewayTimeoutError):
        gateway(url).authorize(REQUEST)
    assert calls == ["/checkout/v72/payments"]


# --- answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (error(400), InvalidRequestError),
        (error(401, "000"), InvalidRequestError),
        (error(403, "901"), InvalidRequestError),
        (error(404), InvalidRequestError),
        (error(422, "130"), InvalidRequestError),
        (error(422, "704"), GatewayTimeoutError),
        (error(422, "703"), GatewayTimeoutError),
        (error(409, "704"), GatewayTimeoutError),
        (error(408), GatewayTimeoutError),
        (error(429), RateLimitedError),
        (error(500, "905"), GatewayTimeoutError),
        (error(503), GatewayTimeoutError),
        (answer(302, {}), GatewayTimeoutError),
        (answer(502, b"<html>bad gateway</html>", "text/html"), GatewayTimeoutError),
        (answer(422, []), GatewayTimeoutError),
        (answer(200, b"<html>hello</html>", "text/html"), GatewayTimeoutError),
        (answer(200, b""), GatewayTimeoutError),
        (answer(200, b"\xff\xfe"), GatewayTimeoutError),
        (answer(200, b'{"a":' + b"9" * 5000 + b"}"), GatewayTimeoutError),
        (answer(200, []), GatewayTimeoutError),
        (answer(200, {"pspReference": "A"}), GatewayTimeoutError),
        (answer(200, {**AUTHORISED, "pspReference": None, "resultCode": "Brand-new"}), GatewayTimeoutError),
        (answer(200, {"resultCode": "Authorised"}), GatewayTimeoutError),
        (answer(200, {**AUTHORISED, "amount": {"currency": "ZZZ", "value": 1}}), GatewayTimeoutError),
        (answer(200, {**AUTHORISED, "amount": {"currency": "EUR", "value": "many"}}), GatewayTimeoutError),
        (answer(200, {**AUTHORISED, "amount": {"currency": "EUR", "value": 19.5}}), GatewayTimeoutError),
        (
            answer(200, {"resultCode": "RedirectShopper", "action": {"type": "threeDS2"}}),
            GatewayTimeoutError,
        ),
    ],
)
def test_every_odd_answer_has_its_place_in_the_taxonomy(script: Script, expected: type[PaymentError]) -> None:
    with serving(script) as url, pytest.raises(PaymentError) as caught:
        gateway(url).authorize(REQUEST)
    assert isinstance(caught.value, expected)
    assert caught.value.retriable is (expected is RateLimitedError)


def test_a_passing_error_leaves_the_outcome_unknown() -> None:
    """Adyen's `transient-error` asks for the same request with the same key again."""

    def script(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(422)
        handler.send_header("transient-error", "true")
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"{}")

    with serving(script) as url, pytest.raises(GatewayTimeoutError):
        gateway(url).authorize(REQUEST)


@pytest.mark.parametrize("status", [None, "rejected"])
def test_a_modification_that_was_not_received_is_in_doubt(status: str | None) -> None:
    body = {"pspReference": "C1", "paymentPspReference": "P1", "status": status}
    with serving(answer(201, body)) as url, pytest.raises(GatewayTimeoutError):
        gateway(url).capture(CAPTURE)


def test_a_wrong_key_is_named_but_never_shown() -> None:
    with (
        serving(error(401, message=f"Unauthorized {KEY}")) as url,
        pytest.raises(InvalidRequestError) as caught,
    ):
        gateway(url).authorize(REQUEST)
    assert "API key" in caught.value.message
    assert KEY not in json.dumps(caught.value.to_dict())


def test_a_card_number_in_an_error_is_masked() -> None:
    with (
        serving(error(422, "101", f"Invalid card number {CARD_NUMBER}")) as url,
        pytest.raises(InvalidRequestError) as caught,
    ):
        gateway(url).authorize(REQUEST)
    assert CARD_NUMBER not in caught.value.message


def test_no_question_is_ever_answered() -> None:
    silent = gateway("http://127.0.0.1:1")
    assert not silent.capabilities.answers_questions
    assert silent.fetch(FetchRequest(OperationKind.AUTHORIZE, "op_1", "P1")) is None
    assert silent.fetch_dispute("D1") is None


# --- requests -----------------------------------------------------------------------------------------------


def test_a_request_carries_its_key_its_account_and_our_ids() -> None:
    seen: dict[str, Any] = {}

    def script(handler: BaseHTTPRequestHandler) -> None:
        seen.update(path=handler.path, headers=dict(handler.headers))
        answer(201, {"pspReference": "C1", "paymentPspReference": "P1", "status": "received"})(handler)

    with serving(script) as url:
        result = gateway(url).capture(CAPTURE)
    assert seen["path"] == "/checkout/v72/payments/QFQTPCQ8HXSKGK82/captures"
    assert seen["headers"]["Idempotency-Key"] == "key-2"
    assert seen["headers"]["x-api-key"] == KEY
    assert (result.own_reference, result.reference) == ("C1", "P1")


def test_a_payment_is_authorized_only_and_challenged_by_redirect() -> None:
    body = build_charge(REQUEST)
    assert body["additionalData"] == {"manualCapture": "true"}
    assert body["authenticationData"] == {"threeDSRequestData": {"nativeThreeDS": "disabled"}}
    assert body["reference"] == "op_1"
    assert body["metadata"] == {"operation_id": "op_1", "payment_id": "pay_1", "order_id": "ord_1"}
    assert json.dumps(body) == json.dumps(build_charge(REQUEST))


@pytest.mark.parametrize(
    ("exemption", "word"),
    [("low_value", "lowValue"), ("tra", "transactionRiskAnalysis"), ("recurring", None)],
)
def test_an_exemption_is_named_and_switches_the_challenge_off(exemption: str, word: str | None) -> None:
    body = build_charge(replace(REQUEST, sca_exemption=exemption))
    assert body["authenticationData"]["attemptAuthentication"] == "never"
    assert body["additionalData"].get("scaExemption") == word
    asked = build_charge(replace(REQUEST, sca_exemption=exemption, request_three_d_secure=True))
    assert asked["authenticationData"]["attemptAuthentication"] == "always"
    assert "scaExemption" not in asked["additionalData"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"shopperReference": "shopper-1", "recurringProcessingModel": "CardOnFile"}),
        (
            {"payment_method": "8416065199174107", "customer_id": "cus_9"},
            {"shopperReference": "cus_9", "shopperInteraction": "ContAuth"},
        ),
        (
            {"payment_method": "8416065199174107", "customer_id": "cus_9", "customer_reference": "theirs"},
            {"shopperReference": "theirs"},
        ),
        (
            {"is_merchant_initiated": True},
            {"shopperInteraction": "ContAuth", "recurringProcessingModel": "UnscheduledCardOnFile"},
        ),
        (
            {"payment_method": make_token("x"), "save_payment_method": True, "customer_id": "cus_9"},
            {
                "shopperInteraction": "Ecommerce",
                "storePaymentMethod": True,
                "recurringProcessingModel": "CardOnFile",
                "shopperReference": "cus_9",
            },
        ),
        ({"payment_method": make_token("x")}, {"shopperInteraction": "Ecommerce"}),
        (
            {"sca_exemption": "recurring"},
            {"shopperInteraction": "ContAuth", "recurringProcessingModel": "Subscription"},
        ),
    ],
)
def test_who_pays_with_what(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    request = ChargeRequest(**{**{n: getattr(REQUEST, n) for n in REQUEST.__slots__}, **changes})
    body = build_charge(request)
    assert {name: body.get(name) for name in expected} == expected


@pytest.mark.parametrize("field", ["number", "cvc", "expiryMonth"])
def test_card_data_in_the_clear_is_not_sent_on(field: str) -> None:
    token = make_token("x", **{field: "123"})
    with pytest.raises(InvalidRequestError, match="nothing was sent") as caught:
        build_charge(ChargeRequest("k", "op_1", "pay_1", "ord_1", EUROS, token))
    assert "123" not in caught.value.message


@pytest.mark.parametrize("token", ["data:!!!", "data:", "data:" + base64.urlsafe_b64encode(b"[1]").decode()])
def test_a_token_that_cannot_be_read_is_our_mistake(token: str) -> None:
    with pytest.raises(InvalidRequestError, match="nothing was sent"):
        build_charge(ChargeRequest("k", "op_1", "pay_1", "ord_1", EUROS, token))


def test_nothing_is_kept_for_nobody() -> None:
    request = ChargeRequest("k", "op_1", "pay_1", "ord_1", EUROS, make_token("x"), save_payment_method=True)
    with pytest.raises(InvalidRequestError, match="customer"):
        build_charge(request)


def test_the_callers_metadata_never_crowds_out_our_ids() -> None:
    extra = {f"k{number}": "v" * 900 for number in range(80)} | {"x" * 21: "v", "operation_id": "theirs"}
    metadata = build_charge(ChargeRequest("k", "op_1", "pay_1", "ord_1", EUROS, "a:b", metadata=extra))[
        "metadata"
    ]
    assert metadata["operation_id"] == "op_1"
    assert len(metadata) <= 20
    assert all(len(key) <= 20 and len(value) <= 80 for key, value in metadata.items())


@pytest.mark.parametrize("reference", ["", "../payments", "A/B", "A?b", "é"])
def test_a_reference_that_is_none_never_becomes_an_address(reference: str) -> None:
    silent = gateway("http://127.0.0.1:1")
    with pytest.raises(InvalidRequestError, match="not sent"):
        silent.capture(CaptureRequest("k", "op", reference, EUROS))
    with pytest.raises(InvalidRequestError, match="not sent"):
        silent.refund(RefundRequest("k", "op", reference, EUROS))


def test_a_void_needs_some_name_of_what_it_voids() -> None:
    with pytest.raises(InvalidRequestError, match="nothing was sent"):
        gateway("http://127.0.0.1:1").void(VoidRequest("k", "op", "", EUROS))


def test_a_second_capture_needs_adyens_consent() -> None:
    silent = gateway("http://127.0.0.1:1")
    assert not silent.capabilities.several_captures
    with pytest.raises(InvalidRequestError, match="nothing was sent"):
        silent.capture(CaptureRequest("k", "op", "P1", EUROS, final=False))
    assert gateway("http://127.0.0.1:1", several_captures=True).capabilities.several_captures


def test_a_key_too_long_becomes_the_same_digest_each_time() -> None:
    assert shorten_key("k" * 64) == "k" * 64
    assert shorten_key("k" * 65) == shorten_key("k" * 65)
    assert len(shorten_key("k" * 65)) == 64
    assert shorten_key("k" * 65) != shorten_key("k" * 66)


# --- accounts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["api_key", "merchant_account"])
def test_an_account_without_its_credentials_is_refused(missing: str) -> None:
    credentials = {"api_key": KEY, "merchant_account": ACCOUNT, missing: ""}
    with pytest.raises(ValueError, match=missing):
        AdyenGateway.from_account(credentials)


def test_one_call_takes_no_longer_than_its_timeout() -> None:
    credentials = {"api_key": KEY, "merchant_account": ACCOUNT, "timeout": "25"}
    connect, read = AdyenGateway.from_account(credentials)._timeout
    assert connect + read == 25


def test_the_address_is_the_test_platform_a_live_prefix_or_whole() -> None:
    test, live = find_addresses(""), find_addresses("1797a841fbb37ca7-Shop")
    assert test.checkout == "https://checkout-test.adyen.com/v72"
    assert test == find_addresses("https://checkout-test.adyen.com/v72")
    assert live.checkout == "https://1797a841fbb37ca7-Shop-checkout-live.adyenpayments.com/checkout/v72"
    assert live.disputes == "https://ca-live.adyen.com/ca/services/DisputeService/v30"
    assert live.reports == "https://ca-live.adyen.com/reports/download"
    with pytest.raises(ValueError, match="neither"):
        find_addresses("evil.example/x")


# --- reports ------------------------------------------------------------------------------------------------


def test_the_report_is_fetched_by_its_name_with_the_key_of_its_user() -> None:
    content = b"Company Account,Record Type\n" + b"Shop,Settled\n" * 20_000
    seen: list[tuple[str, str]] = []

    def script(handler: BaseHTTPRequestHandler) -> None:
        seen.append((handler.path, handler.headers["x-api-key"]))
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:missing] if missing else content)

    missing = 0
    with serving(script) as url:
        reporter = gateway(url, report_key="AQE_report")
        chunks = list(reporter.settlement_report(day=date(2026, 1, 5)))
        assert b"".join(chunks) == content
        assert len(chunks) > 1
        missing = -1
        with pytest.raises(GatewayTimeoutError):
            list(reporter.settlement_report(day=date(2026, 1, 5)))
    path = f"/reports/download/MerchantAccount/{ACCOUNT}/payments_accounting_report_2026_01_05.csv"
    assert seen[0] == (path, "AQE_report")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (404, ReportNotReadyError),
        (401, InvalidRequestError),
        (302, GatewayTimeoutError),
        (500, GatewayTimeoutError),
        (429, RateLimitedError),
    ],
)
def test_a_report_that_is_not_there(status: int, expected: type[PaymentError]) -> None:
    with serving(answer(status, b"")) as url, pytest.raises(expected):
        gateway(url).settlement_report(day=date(2026, 1, 5))


# --- money on the wire --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "number"),
    [
        (Money(1999, "EUR"), 1999),
        (Money(500, "JPY"), 500),
        (Money(1230, "KWD"), 1230),
        (Money(500, "UGX"), 500),
        (Money(500, "ISK"), 50000),
        (Money(500, "CLP"), 50000),
        (Money(500, "CVE"), 5),
        (Money(500, "IDR"), 5),
    ],
)
def test_amounts_are_written_with_the_digits_that_adyen_counts(amount: Money, number: int) -> None:
    stated = wire.to_wire(amount)
    assert stated == {"value": number, "currency": amount.currency}
    assert wire.from_wire(stated) == amount


@given(
    st.integers(min_value=0, max_value=10**12), st.sampled_from(["EUR", "JPY", "KWD", "UGX", "ISK", "CLP"])
)
def test_no_amount_is_lost_on_the_way_and_back(minor: int, currency: str) -> None:
    amount = Money(minor, currency)
    assert wire.from_wire(wire.to_wire(amount)) == amount


def test_a_fraction_that_the_wire_cannot_say_is_refused() -> None:
    with pytest.raises(InvalidRequestError):
        wire.to_wire(Money(501, "IDR"))
    with pytest.raises(GatewayMismatchError):
        wire.from_wire({"value": 50050, "currency": "CLP"})


# --- reading ------------------------------------------------------------------------------------------------


def read(answer: dict[str, Any]) -> ChargeResult:
    return results.read_payment(answer, asked=EUROS, now=NOW)


def test_an_authorization_without_a_stated_amount_is_of_what_was_asked() -> None:
    plain = {name: value for name, value in AUTHORISED.items() if name != "amount"}
    assert read(plain).amount == EUROS
    extra = {"authorisedAmountValue": "1500", "authorisedAmountCurrency": "EUR"}
    assert read({**plain, "additionalData": extra}).amount == Money(1500, "EUR")


def test_a_card_is_described_in_our_words() -> None:
    card = read(AUTHORISED).card
    assert card is not None
    assert (card.brand, card.funding, card.exp_month, card.exp_year) == ("mastercard", "debit", 3, 2030)
    assert (card.avs, card.cvc, card.three_d_secure, card.risk_score) == ("", "", "", None)
    assert read({**AUTHORISED, "additionalData": {}}).card is None


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ("7 Both postal code and address match", "pass"),
        ("2 Neither postal code nor address match", "fail"),
        ("1 Address matches, postal code doesn't", "fail"),
        ("12 Address matches, postal code not checked", "pass"),
        ("4 AVS not supported for this card type", "unavailable"),
        ("5 No AVS data provided", "unchecked"),
        ("99 New", ""),
        (None, ""),
    ],
)
def test_the_address_check_is_read_by_its_number(result: str | None, expected: str) -> None:
    card = cards.read_card({"additionalData": {"cardSummary": "1111", "avsResult": result}})
    assert card is not None
    assert card.avs == expected


def test_every_number_of_the_address_check_has_one_meaning() -> None:
    numbers = [code for codes in cards.AVS.values() for code in codes]
    assert sorted(numbers, key=int) == [str(number) for number in range(27)]


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"threeDOffered": "true", "threeDAuthenticated": "true"}, "authenticated"),
        ({"threeDOffered": "true", "threeDAuthenticated": "false", "liabilityShift": "true"}, "attempted"),
        ({"threeDOffered": "true", "threeDAuthenticated": "false"}, "failed"),
        ({"threeDOffered": "false", "threeDAuthenticated": "false"}, ""),
    ],
)
def test_three_d_secure_is_read(extra: dict[str, str], expected: str) -> None:
    assert cards.read_three_d_secure(extra) == expected


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"resultCode": "Refused", "refusalReasonCode": "12"}, "insufficient_funds"),
        ({"resultCode": "Refused", "refusalReason": "Expired Card"}, "expired_card"),
        ({"resultCode": "Error"}, "processing_error"),
        ({"resultCode": "Cancelled", "refusalReasonCode": "16"}, "card_declined"),
        ({"resultCode": "Refused", "refusalReasonCode": "998"}, "card_declined"),
    ],
)
def test_a_refusal_has_our_code(answer: dict[str, Any], code: str) -> None:
    result = read({"pspReference": "P1", **answer})
    assert result.status is ChargeStatus.DECLINED
    assert result.decline is not None
    assert result.decline.code == code
    assert result.decline.message


def test_every_refusal_has_a_code_and_an_advice() -> None:
    assert all(code and advice for code, advice in declines.DECLINES.values())
    assert set(declines.REASONS.values()) <= set(declines.DECLINES)


@pytest.mark.parametrize("word", ["Pending", "Received"])
def test_a_payment_on_its_way_is_pending(word: str) -> None:
    assert read({**AUTHORISED, "resultCode": word}).status is ChargeStatus.PENDING


@pytest.mark.parametrize(
    "extra",
    [
        {"recurring.recurringDetailReference": "T1", "recurring.shopperReference": "S1"},
        {"tokenization.storedPaymentMethodId": "T1", "tokenization.shopperReference": "S1"},
    ],
)
def test_a_saved_card_is_told_under_its_old_name_and_its_new_one(extra: dict[str, str]) -> None:
    assert read({**AUTHORISED, "additionalData": extra}).saved == SavedToken("T1", "S1")


def test_what_is_kept_of_an_answer_has_no_token_and_no_card_number() -> None:
    extra = {
        "alias": "H167852639363479",
        "recurring.recurringDetailReference": "T1",
        "hmacSignature": "C8hPB6UcY3kS4dirYQ",
        "refusalReasonRaw": f"card {CARD_NUMBER} said no",
        "metadata.payment_id": "pay_1",
        "cvcResult": "1 Matches",
    }
    kept = json.dumps(wire.trim({**AUTHORISED, "shopperEmail": "ann@example.org", "additionalData": extra}))
    for hidden in ("H167852639363479", "T1", "C8hPB6", CARD_NUMBER, "ann@"):
        assert hidden not in kept
    for shown in ("pay_1", "1 Matches", "Authorised", "op_1"):
        assert shown in kept


# --- events -------------------------------------------------------------------------------------------------


def item(code: str, **changes: Any) -> dict[str, Any]:
    return {
        "additionalData": {},
        "amount": {"currency": "EUR", "value": 1999},
        "eventCode": code,
        "eventDate": "2026-11-20T13:00:00+01:00",
        "merchantAccountCode": ACCOUNT,
        "merchantReference": "op_2",
        "originalReference": "P1",
        "pspReference": "M1",
        "reason": "",
        "success": "true",
        **changes,
    }


def webhook(*items: dict[str, Any]) -> dict[str, Any]:
    return {"live": "false", "notificationItems": [{"NotificationRequestItem": entry} for entry in items]}


def facts_of(*items: dict[str, Any]) -> list[Any]:
    return list(gateway("http://127.0.0.1:1").read_event(webhook(*items)))


@pytest.mark.parametrize(
    ("code", "success", "kind", "status"),
    [
        ("AUTHORISATION", "true", OperationKind.AUTHORIZE, ChargeStatus.AUTHORIZED),
        ("AUTHORISATION", "false", OperationKind.AUTHORIZE, ChargeStatus.DECLINED),
        ("AUTHORISATION_ADJUSTMENT", "true", OperationKind.AUTHORIZE, ChargeStatus.AUTHORIZED),
        ("CAPTURE", "true", OperationKind.CAPTURE, ChargeStatus.CAPTURED),
        ("CAPTURE", "false", OperationKind.CAPTURE, ChargeStatus.FAILED),
        ("CAPTURE_FAILED", "true", OperationKind.CAPTURE, ChargeStatus.FAILED),
        ("CANCELLATION", "true", OperationKind.VOID, ChargeStatus.VOIDED),
        ("CANCELLATION", "false", OperationKind.VOID, ChargeStatus.FAILED),
        ("TECHNICAL_CANCEL", "true", OperationKind.VOID, ChargeStatus.VOIDED),
        ("EXPIRE", "true", OperationKind.VOID, ChargeStatus.VOIDED),
        ("REFUND", "true", OperationKind.REFUND, RefundStatus.SUCCEEDED),
        ("REFUND", "false", OperationKind.REFUND, RefundStatus.FAILED),
        ("REFUND_FAILED", "true", OperationKind.REFUND, RefundStatus.FAILED),
        ("REFUNDED_REVERSED", "true", OperationKind.REFUND, RefundStatus.FAILED),
    ],
)
def test_what_each_event_says_of_the_money(
    code: str, success: str, kind: OperationKind, status: ChargeStatus | RefundStatus
) -> None:
    (fact,) = facts_of(item(code, success=success))
    assert (fact.kind, fact.result.status, fact.result.amount) == (kind, status, EUROS)
    assert fact.occurred_at == NOW
    assert fact.reference == ("M1" if code == "AUTHORISATION" else "P1")
    if isinstance(fact.result, RefundResult):
        assert fact.result.reference == "M1"
    elif kind is not OperationKind.AUTHORIZE and code != "EXPIRE":
        assert fact.result.own_reference == "M1"


def test_a_token_that_nothing_signs_is_not_taken_from_a_webhook() -> None:
    extra = {"recurring.recurringDetailReference": "T1", "recurring.shopperReference": "S1"}
    (fact,) = facts_of(item("AUTHORISATION", additionalData=extra))
    assert isinstance(fact, GatewayFact)
    assert isinstance(fact.result, ChargeResult)
    assert fact.result.saved is None


@pytest.mark.parametrize("code", ["AUTHORISATION", "CAPTURE", "REFUND", "CHARGEBACK"])
def test_the_extra_data_which_nothing_signs_names_no_payment(code: str) -> None:
    (fact,) = facts_of(item(code, additionalData={"metadata.payment_id": "pay_of_another"}))
    assert fact.payment_id == ""


def test_an_expiry_without_an_original_has_the_payments_own_reference() -> None:
    expired = item("EXPIRE", pspReference="P1")
    del expired["originalReference"]
    (fact,) = facts_of(expired)
    assert (fact.reference, fact.operation_id) == ("P1", "")


@pytest.mark.parametrize(
    ("action", "kind"), [("cancel", OperationKind.VOID), ("refund", OperationKind.REFUND), ("", None)]
)
def test_a_reversal_says_which_of_the_two_it_was(action: str, kind: OperationKind | None) -> None:
    found = facts_of(item("CANCEL_OR_REFUND", additionalData={"modification.action": action}))
    assert [fact.kind for fact in found] == ([kind] if kind else [])


def test_all_items_of_a_batch_are_read_in_their_order() -> None:
    found = facts_of(
        item("AUTHORISATION", pspReference="P1"),
        item("REPORT_AVAILABLE"),
        item("CAPTURE"),
        item("CHARGEBACK"),
    )
    assert [type(fact) for fact in found] == [GatewayFact, GatewayFact, DisputeFact]


@pytest.mark.parametrize("code", ["REPORT_AVAILABLE", "ORDER_CLOSED", "ISSUER_COMMENTS", "PENDING", "X"])
def test_other_events_hold_no_facts(code: str) -> None:
    assert facts_of(item(code)) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": None},
        {"success": True},
        {"success": "maybe"},
        {"eventDate": "soon"},
        {"eventDate": "2026-11-20T13:00:00"},
        {"amount": {"currency": "ZZZ", "value": 1}},
    ],
)
def test_an_event_that_lacks_what_it_promises_is_an_error_and_not_a_silence(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="webhook cannot be read"):
        facts_of(item("CAPTURE"), item("CAPTURE", **changes))


def test_a_failed_adjustment_says_nothing() -> None:
    assert facts_of(item("AUTHORISATION_ADJUSTMENT", success="false")) == []


# --- disputes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "stage", "state", "is_withdrawn"),
    [
        ("REQUEST_FOR_INFORMATION", "Unresponded", "inquiry", "needs_response", None),
        ("REQUEST_FOR_INFORMATION", "Responded", "inquiry", "under_review", None),
        ("NOTIFICATION_OF_CHARGEBACK", "Undefended", "chargeback", "needs_response", None),
        ("CHARGEBACK", "Undefended", "chargeback", "needs_response", True),
        ("CHARGEBACK", None, "chargeback", "needs_response", True),
        ("CHARGEBACK", "Pending", "chargeback", "under_review", True),
        ("CHARGEBACK", "Lost", "chargeback", "lost", True),
        ("CHARGEBACK", "Accepted", "chargeback", "accepted", True),
        ("INFORMATION_SUPPLIED", "Pending", "chargeback", "under_review", None),
        ("CHARGEBACK_REVERSED", "Pending", "chargeback", "under_review", False),
        ("CHARGEBACK_REVERSED", "Won", "chargeback", "won", False),
        ("CHARGEBACK_REVERSED", None, "chargeback", "under_review", False),
        ("SECOND_CHARGEBACK", "Lost", "pre_arbitration", "lost", True),
        ("PREARBITRATION_OPEN", "Undefended", "pre_arbitration", "needs_response", None),
        ("PREARBITRATION_WON", "Won", "pre_arbitration", "won", False),
        ("PREARBITRATION_LOST", "Lost", "pre_arbitration", "lost", True),
        ("DISPUTE_DEFENSE_PERIOD_ENDED", "Lost", "chargeback", "expired", None),
        ("DISPUTE_DEFENSE_PERIOD_ENDED", "Accepted", "chargeback", "accepted", None),
        ("ISSUER_RESPONSE_TIMEFRAME_EXPIRED", "Won", "chargeback", "won", None),
    ],
)
def test_what_each_dispute_event_says(
    code: str, status: str | None, stage: str, state: str, is_withdrawn: bool | None
) -> None:
    (fact,) = facts_of(item(code, additionalData={"disputeStatus": status} if status else {}))
    assert (fact.stage, fact.state, fact.is_withdrawn) == (
        DisputeStage(stage),
        DisputeState(state),
        is_withdrawn,
    )
    assert (fact.reference, fact.payment_reference, fact.amount) == ("M1", "P1", EUROS)


def test_a_dispute_names_its_reason_and_its_deadline() -> None:
    extra = {
        "chargebackReasonCode": " 4837",
        "defensePeriodEndsAt": "2026-12-08T03:03:07+01:00",
        "disputeStatus": "Undefended",
    }
    (fact,) = facts_of(item("CHARGEBACK", additionalData=extra))
    assert (fact.reason, fact.network_code) == ("fraudulent", "4837")
    assert fact.due_by == datetime(2026, 12, 8, 2, 3, 7, tzinfo=UTC)


def test_a_dispute_that_adyen_defends_itself_needs_no_answer() -> None:
    (fact,) = facts_of(item("NOTIFICATION_OF_CHARGEBACK", additionalData={"autoDefended": "true"}))
    assert fact.state is DisputeState.UNDER_REVIEW


def test_a_reversed_chargeback_may_name_no_payment() -> None:
    told = item("CHARGEBACK_REVERSED")
    del told["originalReference"]
    (fact,) = facts_of(told)
    assert (fact.reference, fact.payment_reference) == ("M1", "")


PDF = EvidenceFile("receipt.pdf", "application/pdf", b"%PDF-1.4 receipt")


def test_the_defense_that_fits_most_of_the_evidence_is_chosen() -> None:
    reasons: list[dict[str, Any]] = [
        {
            "defenseReasonCode": "Impossible",
            "defenseDocumentTypes": [{"defenseDocumentTypeCode": "Zebra", "requirementLevel": "Required"}],
        },
        {"defenseReasonCode": "Empty", "defenseDocumentTypes": []},
        {
            "defenseReasonCode": "Good",
            "defenseDocumentTypes": [
                {"defenseDocumentTypeCode": "TIDorInvoice", "requirementLevel": "Optional"},
                {"defenseDocumentTypeCode": "DefenseMaterial", "requirementLevel": "Required"},
            ],
        },
    ]
    code, documents = evidence.choose_defense(reasons, {"receipt": PDF})
    assert code == "Good"
    assert [document["defenseDocumentTypeCode"] for document in documents] == [
        "TIDorInvoice",
        "DefenseMaterial",
    ]
    assert base64.b64decode(documents[0]["content"]) == PDF.content
    with pytest.raises(InvalidRequestError, match="nothing was sent"):
        evidence.choose_defense(reasons[:1], {"receipt": PDF})


def test_evidence_of_a_kind_that_adyen_does_not_take_is_refused() -> None:
    picture = EvidenceFile("a.png", "image/png", b"x")
    with pytest.raises(InvalidRequestError, match=r"a\.png"):
        evidence.collect_evidence(EvidenceRequest("k", "D1", files={"receipt": picture}))
    with pytest.raises(InvalidRequestError, match="no evidence"):
        evidence.collect_evidence(EvidenceRequest("k", "D1", texts={"receipt": "  "}))


def test_texts_become_a_document_that_can_be_read() -> None:
    long = "word " * 2000 + "(a) back\\slash — and €"
    files = evidence.collect_evidence(EvidenceRequest("k", "D1", texts={"product_description": long}))
    content = files["uncategorized"].content
    assert content.startswith(b"%PDF-1.4")
    assert content.count(b"/Type /Page ") > 1
    assert rb"\(a\) back\\slash" in content
    table = int(content.rsplit(b"startxref\n", 1)[1].split()[0])
    assert content[table:].startswith(b"xref")
    for offset, number in zip(re.findall(rb"(\d{10}) 00000 n", content), range(1, 99), strict=False):
        assert content[int(offset) :].startswith(f"{number} 0 obj".encode())


# --- with the stand-in: what only Adyen has ------------------------------------------------------------------


@pytest.fixture
def world() -> Iterator[AdyenWorld]:
    with start() as running:
        yield AdyenWorld(running)


@pytest.fixture
def adyen(world: AdyenWorld) -> AdyenGateway:
    return AdyenGateway(KEY, ACCOUNT, api_base=world.url)


def charge(**changes: Any) -> ChargeRequest:
    operation_id = new_id("op")
    fields = {
        "key": operation_id,
        "operation_id": operation_id,
        "payment_id": new_id("pay"),
        "order_id": new_id("ord"),
        "amount": EUROS,
        "payment_method": make_token("TESTVISA"),
    }
    return ChargeRequest(**{**fields, **changes})


def test_a_card_is_kept_charged_again_and_forgotten(adyen: AdyenGateway) -> None:
    first = adyen.authorize(charge(save_payment_method=True, customer_id="cus/1 & co"))
    assert first.saved is not None
    assert first.saved.customer_reference == "cus/1 & co"
    again = charge(
        payment_method=first.saved.token,
        customer_reference=first.saved.customer_reference,
        is_merchant_initiated=True,
    )
    assert adyen.authorize(again).status is ChargeStatus.AUTHORIZED
    adyen.forget_payment_method(first.saved)
    adyen.forget_payment_method(first.saved)
    with pytest.raises(InvalidRequestError):
        adyen.authorize(charge(payment_method=first.saved.token, customer_id="cus/1 & co"))


def test_a_card_belongs_to_its_customer(adyen: AdyenGateway) -> None:
    saved = adyen.authorize(charge(save_payment_method=True, customer_id="cus_1")).saved
    assert saved is not None
    with pytest.raises(InvalidRequestError):
        adyen.authorize(charge(payment_method=saved.token, customer_id="cus_2"))


def test_forgetting_fails_when_adyen_does(adyen: AdyenGateway, world: AdyenWorld) -> None:
    world.post("/_faults", {"fault": "500", "operation": "any"})
    with pytest.raises(GatewayTimeoutError):
        adyen.forget_payment_method(SavedToken("T1", "cus_1"))
    with pytest.raises(InvalidRequestError, match="no token"):
        adyen.forget_payment_method(SavedToken("../T1", "cus_1"))


def dispute(adyen: AdyenGateway, world: AdyenWorld, event: str = "CHARGEBACK") -> DisputeFact:
    request = charge()
    held = adyen.authorize(request)
    adyen.capture(CaptureRequest(new_id("op"), new_id("op"), held.reference, EUROS))
    world.post("/_disputes", {"reference": request.operation_id, "event": event, "amount": 1999})
    return last_dispute(adyen, world)


def last_dispute(adyen: AdyenGateway, world: AdyenWorld) -> DisputeFact:
    fact = [fact for body in world.flush() for fact in adyen.read_event(body)][-1]
    assert isinstance(fact, DisputeFact)
    return fact


def test_a_dispute_is_defended_and_won(adyen: AdyenGateway, world: AdyenWorld) -> None:
    opened = dispute(adyen, world)
    assert (opened.state, opened.is_withdrawn, opened.reason) == (
        DisputeState.NEEDS_RESPONSE, True, "fraudulent",
    )  # fmt: skip
    assert opened.due_by is not None
    assert opened.due_by > datetime.now(UTC) + timedelta(days=1)
    answered = adyen.submit_evidence(
        EvidenceRequest(
            "key-d", opened.reference, texts={"product_description": "Shoes"}, files={"receipt": PDF}
        )
    )
    assert (answered.reference, answered.state, answered.source) == (
        opened.reference, DisputeState.UNDER_REVIEW, "answer",
    )  # fmt: skip
    assert last_dispute(adyen, world).state is DisputeState.UNDER_REVIEW
    world.post("/_disputes", {"dispute": opened.reference, "event": "CHARGEBACK_REVERSED", "status": "Won"})
    won = last_dispute(adyen, world)
    assert (won.state, won.is_withdrawn) == (DisputeState.WON, False)


def test_a_dispute_is_accepted_once(adyen: AdyenGateway, world: AdyenWorld) -> None:
    opened = dispute(adyen, world)
    assert adyen.accept_dispute(opened.reference, key="k1").state is DisputeState.ACCEPTED
    assert last_dispute(adyen, world).state is DisputeState.ACCEPTED
    with pytest.raises(InvalidRequestError, match="refused"):
        adyen.accept_dispute(opened.reference, key="k2")
    with pytest.raises(InvalidRequestError, match="refused"):
        adyen.submit_evidence(EvidenceRequest("k3", opened.reference, files={"receipt": PDF}))


def test_the_days_report_balances_in_every_bucket(adyen: AdyenGateway, world: AdyenWorld) -> None:
    """What was received leaves each bucket again, but for what is payable and the commission."""
    held = adyen.authorize(charge())
    adyen.capture(CaptureRequest("c", "c", held.reference, Money(1500, "EUR")))
    adyen.refund(RefundRequest("r", "r", held.reference, Money(300, "EUR")))
    today = datetime.now(UTC).date()
    world.tomorrow()
    lines = b"".join(adyen.settlement_report(day=today)).decode().splitlines()
    header = lines[0].split(",")
    rows = [dict(zip(header, line.split(","), strict=True)) for line in lines[1:]]

    def total(column: str) -> float:
        return round(sum(float(row[column] or 0) for row in rows), 2)

    assert (total("Received (PC)"), total("Authorised (PC)"), total("Captured (PC)")) == (0, 0, 0)
    assert total("Payable (SC)") + total("Commission (SC)") == 12.00
    assert requests.get(f"{world.url}/_deliveries", timeout=PATIENCE).json()["deliveries"]
