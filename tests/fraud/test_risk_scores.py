"""The outside score: asked of a real server that answers well, slowly, wrongly or not at all."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from fraud.facts import FraudContext, ListMatch
from fraud.gathering import gather_after
from fraud.models import Verdict
from fraud.scores.base import RiskScore, ScoreError, ScoreRequest, ScoreStatus
from fraud.scores.breaker import FAILURES, PAUSE_SECONDS, Breaker
from fraud.scores.http import MAX_ANSWER_BYTES, SIGNATURE, HttpRiskScorer, Provider, read_answer
from fraud.scores.sources import build_request, build_verdicts, read_score, with_scores
from payments.decisions import Stage
from tests.factories.fraud import AssessmentFactory
from tests.factories.payments import OrderFactory, PaymentFactory

SECRET = "shared with the provider"
REQUEST = ScoreRequest("ord_1", {"amount": 1999, "currency": "EUR"}, {"email": "0" * 32})
GOOD = {"score": 0.82, "version": "7", "reasons": ["many cards"]}
Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class World:
    """A provider on a port of its own; `answer` is what it does, `asked` what it was told."""

    url: str
    answer: Answer
    asked: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    connections: set[int] = field(default_factory=set)
    gate: threading.Event = field(default_factory=threading.Event)

    def scorer(self, *, timeout_ms: int = 5_000, **changes: Any) -> HttpRiskScorer:
        provider = Provider(self.url, SECRET, "acme", timeout_ms, allows_private=True)
        return HttpRiskScorer(replace(provider, **changes))


def reply(status: int = 200, body: bytes | None = None, **headers: str) -> Answer:
    content = json.dumps(GOOD).encode() if body is None else body

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def wait_at_the_gate(world: World) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        world.gate.wait(30)

    return answer


@pytest.fixture
def world() -> Iterator[World]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.asked.append((dict(self.headers), body))
            found.connections.add(self.client_address[1])
            found.answer(self)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = World(f"http://127.0.0.1:{server.server_port}/score?shop=1", reply())
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield found
    found.gate.set()
    server.shutdown()
    server.server_close()


class TestAnswers:
    def test_a_good_answer_is_a_score(self, world: World) -> None:
        score = world.scorer().score(REQUEST)
        assert (score.status, score.value, score.provider, score.version, score.reasons) == (
            ScoreStatus.OK,
            0.82,
            "acme",
            "7",
            ("many cards",),
        )
        assert score.describe().startswith("0.8200 from acme 7 in ")
        assert read_score(json.loads(json.dumps(score.to_dict()))) == score

    def test_the_question_is_signed(self, world: World) -> None:
        world.scorer().score(REQUEST)
        ((headers, body),) = world.asked
        at, _, digest = headers[SIGNATURE].removeprefix("t=").partition(",v1=")
        assert digest == hmac.new(SECRET.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        assert json.loads(body) == {
            "order_id": "ord_1",
            "facts": {"amount": 1999, "currency": "EUR"},
            "keys": {"email": "0" * 32},
        }

    def test_one_connection_serves_many(self, world: World) -> None:
        scorer = world.scorer()
        assert [scorer.score(REQUEST).status for _ in range(3)] == [ScoreStatus.OK] * 3
        assert len(world.connections) == 1

    @pytest.mark.parametrize(
        ("answer", "why"),
        [
            (reply(500), "status 500"),
            (reply(204, b""), "status 204"),
            (reply(302, Location="http://127.0.0.1/elsewhere"), "status 302"),
            (reply(body=b"<html>"), "no JSON"),
            (reply(body=b"[" * 10_000), "no JSON"),
            (reply(body=b"\xff\xfe"), "no JSON"),
            (reply(body=b"[0.5]"), "no JSON object"),
            (reply(body=b"{}"), "no number"),
            (reply(body=b'{"score": true}'), "no number"),
            (reply(body=b'{"score": "0.5"}'), "no number"),
            (reply(body=b'{"score": NaN}'), "no JSON number"),
            (reply(body=b'{"score": -Infinity}'), "no JSON number"),
            (reply(body=b'{"score": 1e999}'), "not between"),
            (reply(body=b'{"score": 1.01}'), "not between"),
            (reply(body=b'{"score": 1' + b"0" * 400 + b"}"), "not between"),
            (reply(body=b'{"score": 1' + b"0" * 5000 + b"}"), "no JSON"),
            (reply(body=b'{"score": 0.5, "reasons": [1]}'), "reasons"),
            (reply(body=b'{"score": 0.5, "reasons": "x"}'), "reasons"),
            (reply(body=b" " * (MAX_ANSWER_BYTES + 1)), "more than"),
            (reply(body=b"\x1f\x8b", **{"Content-Encoding": "gzip"}), "no JSON"),
        ],
    )
    def test_a_wrong_answer_is_an_error(self, world: World, answer: Answer, why: str) -> None:
        world.answer = answer
        score = world.scorer().score(REQUEST)
        assert (score.status, score.value) == (ScoreStatus.ERROR, None)
        assert why in score.error

    def test_what_is_told_is_cut_and_cleaned(self, world: World) -> None:
        world.answer = reply(
            body=json.dumps(
                {"score": 1, "version": "\0" * 3 + "v" * 99, "reasons": ["a\0b" * 99] * 9}
            ).encode()
        )
        score = world.scorer().score(REQUEST)
        assert (score.value, score.version, len(score.reasons)) == (1.0, "v" * 40, 5)
        assert score.reasons[0] == ("ab" * 99)[:100]

    @given(
        st.binary(max_size=200)
        | st.recursive(st.floats() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
    )
    def test_no_answer_gets_through_that_is_no_score(self, body: bytes) -> None:
        try:
            answer = read_answer(body)
        except ScoreError:
            return
        assert 0 <= answer["value"] <= 1


class TestSilence:
    def test_a_slow_answer_is_a_timeout(self, world: World) -> None:
        world.answer = wait_at_the_gate(world)
        score = world.scorer(timeout_ms=50).score(REQUEST)
        assert (score.status, score.error) == (ScoreStatus.TIMEOUT, "no answer within 50 ms")

    @pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\nX-Long: ", b"HTTP/1.1 200 OK\r\n\r\n"])
    def test_an_answer_that_drips_is_cut_off(self, world: World, start: bytes) -> None:
        ended = threading.Event()

        def drip(handler: BaseHTTPRequestHandler) -> None:
            handler.wfile.write(start)
            try:
                while not world.gate.wait(0.01):
                    handler.wfile.write(b" ")
            except OSError:
                ended.set()

        world.answer = drip
        assert world.scorer(timeout_ms=400).score(REQUEST).status is ScoreStatus.TIMEOUT
        assert ended.wait(10), "our side hangs up, and no thread goes on reading"

    def test_a_broken_connection_is_an_error(self, world: World) -> None:
        world.answer = lambda handler: handler.connection.shutdown(socket.SHUT_RDWR)
        assert world.scorer().score(REQUEST).status is ScoreStatus.ERROR

    def test_nobody_there_is_an_error(self) -> None:
        with closing(socket.socket()) as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
            score = HttpRiskScorer(Provider(url, SECRET, allows_private=True, timeout_ms=5_000)).score(
                REQUEST
            )
        assert score.status is ScoreStatus.ERROR

    def test_a_name_without_an_address_is_an_error(self) -> None:
        scorer = HttpRiskScorer(Provider("https://risk.invalid/", SECRET, timeout_ms=5_000))
        assert scorer.score(REQUEST).status in (ScoreStatus.ERROR, ScoreStatus.TIMEOUT)


class TestAddresses:
    def test_a_private_address_is_told_nothing(self) -> None:
        """It is refused once the connection stands, whatever its name was, and before anything is sent."""
        received: list[bytes] = []
        with closing(socket.create_server(("127.0.0.1", 0))) as inner:
            url = f"https://127.0.0.1:{inner.getsockname()[1]}/"
            scorer = HttpRiskScorer(Provider(url, SECRET, timeout_ms=5_000))
            answered = threading.Thread(target=lambda: received.append(read_all(inner)))
            answered.start()
            score = scorer.score(REQUEST)
            answered.join(10)
        assert score.status is ScoreStatus.ERROR
        assert b"ord_1" not in received[0]

    @pytest.mark.parametrize(
        "url", ["http://risk.example/", "ftp://risk.example/", "risk.example", "https://"]
    )
    def test_what_is_not_https_is_not_asked(self, url: str) -> None:
        score = HttpRiskScorer(Provider(url, SECRET)).score(REQUEST)
        assert (score.status, score.error) == (
            ScoreStatus.ERROR,
            "the provider's address must begin with https://",
        )


def read_all(server: socket.socket) -> bytes:
    connection, _ = server.accept()
    with closing(connection):
        connection.settimeout(10)
        first = connection.recv(65_536)  # a TLS hello at most
        connection.sendall(b"no TLS here\r\n")
        return first


class TestBreaker:
    def test_a_dead_provider_is_skipped_for_a_while(self, world: World) -> None:
        now = [0.0]
        world.answer = reply(500)
        scorer = world.scorer()
        scorer._breaker = Breaker(lambda: now[0])
        assert [scorer.score(REQUEST).status for _ in range(FAILURES + 2)] == [
            *[ScoreStatus.ERROR] * FAILURES,
            *[ScoreStatus.SKIPPED] * 2,
        ]
        assert len(world.asked) == FAILURES
        world.answer = reply()
        now[0] = PAUSE_SECONDS
        assert scorer.score(REQUEST).status is ScoreStatus.OK
        assert scorer.score(REQUEST).status is ScoreStatus.OK

    def test_one_probes_and_the_others_wait(self) -> None:
        now = [0.0]
        breaker = Breaker(lambda: now[0])
        for _ in range(FAILURES):
            assert breaker.admits()
            breaker.learn(is_well=False)
        assert not breaker.admits()
        now[0] = PAUSE_SECONDS
        assert [breaker.admits(), breaker.admits()] == [True, False]
        breaker.learn(is_well=False)
        now[0] += PAUSE_SECONDS - 1
        assert not breaker.admits()
        now[0] += 1
        assert breaker.admits()
        breaker.learn(is_well=True)
        assert [breaker.admits(), breaker.admits()] == [True, True]


# --- what is told, and what is written down -----------------------------------------------------------------

CONTEXT = FraudContext(
    Stage.BEFORE_AUTHORIZATION,
    1999,
    "EUR",
    order_id="ord_1",
    customer_email="b***r@example.com",
    email_domain="example.com",
    ip="198.51.100.0/24",
    card_last4="4242",
    billing_country="DE",
    list_matches=(ListMatch("review", "email", "b***r@example.com"),),
    velocity={"card:3600": 2},
)


@pytest.mark.django_db
class TestWiring:
    @pytest.fixture
    def payment(self) -> Any:
        order = OrderFactory.create(
            customer_id="cus_42",
            customer_email="Buyer@example.com",
            context={"ip": "198.51.100.7", "device": "device-9"},
            billing={"country": "DE", "postal_code": "10115", "line1": "Am Ring 1"},
        )
        return PaymentFactory.create(order=order, payment_method="pm_secret_token")

    def test_no_personal_value_leaves_the_house(self, payment: Any) -> None:
        request = build_request(CONTEXT, payment.order, payment)
        told = json.dumps([request.facts, request.keys])
        for secret in ("cus_42", "uyer", "b***r", "198.51", "device-9", "4242", "pm_secret", "Ring", "10115"):
            assert secret not in told
        assert set(request.keys) == {"customer", "email", "ip", "device", "card"}
        assert all(len(key) == 32 for key in request.keys.values())
        assert request.facts["velocity"] == {"card:3600": 2}

    def test_nobody_is_asked_by_default(self, payment: Any) -> None:
        context = with_scores(CONTEXT, payment.order, payment)
        assert context == CONTEXT

    def test_the_score_is_a_fact_and_a_verdict_of_its_own(
        self, payment: Any, world: World, settings: Settings
    ) -> None:
        settings.FRAUD_RISK_URL, settings.FRAUD_RISK_ALLOW_PRIVATE = world.url, True
        settings.FRAUD_RISK_TIMEOUT_MS, settings.FRAUD_RISK_PROVIDER = 5_000, "acme"
        context = with_scores(CONTEXT, payment.order, payment)
        assert (context.outside_score, context.model_score) == (0.82, None)
        assert context.scores["outside"]["status"] == "ok"
        after = gather_after(payment.order, payment, json.loads(json.dumps(context.to_dict())), score=0)
        assert (after.outside_score, after.scores) == (0.82, context.scores)
        assessment = AssessmentFactory.create(payment=payment, context=context.to_dict())
        Verdict.objects.bulk_create(build_verdicts(assessment, context))
        verdict = Verdict.objects.get()
        assert (verdict.rule_name, verdict.rule_kind, verdict.status) == (
            "Outside score",
            "outside_score",
            "miss",
        )
        assert verdict.value.startswith("0.8200 from acme 7 in ")
        assert verdict.nanoseconds == context.scores["outside"]["latency_ms"] * 1_000_000

    def test_an_answer_that_took_seconds_can_be_written_down(self, payment: Any) -> None:
        told = RiskScore(ScoreStatus.OK, 0.5, "acme", latency_ms=2_500).to_dict()
        assessment = AssessmentFactory.create(payment=payment)
        context = replace(CONTEXT, scores={"outside": told})
        Verdict.objects.bulk_create(build_verdicts(assessment, context))
        assert Verdict.objects.get().value == "0.5000 from acme in 2500 ms"

    def test_no_answer_is_written_down_and_is_no_low_score(
        self, payment: Any, world: World, settings: Settings
    ) -> None:
        settings.FRAUD_RISK_URL, settings.FRAUD_RISK_ALLOW_PRIVATE = f"{world.url}&down", True
        settings.FRAUD_RISK_TIMEOUT_MS = 5_000
        world.answer = reply(503)
        context = with_scores(CONTEXT, payment.order, payment)
        assert context.outside_score is None
        assessment = AssessmentFactory.create(payment=payment, context=context.to_dict())
        (verdict,) = build_verdicts(assessment, context)
        assert verdict.status == "error"
        assert "status 503" in verdict.value


def test_a_score_that_is_off_says_so() -> None:
    assert RiskScore(ScoreStatus.OFF).to_dict() == {"status": "off", "latency_ms": 0}
