"""Asks a provider for a score by one signed POST, within a time, a size and an address that are all checked."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from http.client import HTTPException
from queue import Empty, Full, LifoQueue
from typing import Any, NoReturn
from urllib.parse import SplitResult, urlsplit

import certifi
import structlog
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from fraud.scores.base import (
    RiskScore,
    ScoreError,
    ScoreRequest,
    ScoreStatus,
    ScoreTimeoutError,
    check_value,
    failed,
)
from fraud.scores.breaker import Breaker
from payments.networks import parse_address

logger = structlog.stdlib.get_logger(__name__)

MAX_ANSWER_BYTES = 16 * 1024
MAX_REASONS, MAX_REASON_LENGTH, MAX_VERSION_LENGTH = 5, 100, 40
AT_ONCE = 8  # questions of one process; who comes later waits for its own time to run out
SIGNATURE = "Countinghouse-Signature"


@dataclass(frozen=True, slots=True)
class Provider:
    """Who is asked, and how. Without `allows_private` only https to a public address."""

    url: str
    secret: str
    name: str = "outside"
    timeout_ms: int = 300  # for all of it: name, connection, answer
    allows_private: bool = False

    @property
    def parts(self) -> SplitResult:
        return urlsplit(self.url)


class HttpRiskScorer:
    """A `RiskScorer` over HTTP. Threads ask, so that nothing on the way can hold a checkout up for longer."""

    def __init__(self, provider: Provider, *, breaker: Breaker | None = None) -> None:
        self._provider = provider
        self._breaker = breaker or Breaker()
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="risk-score")
        self._idle: LifoQueue[HTTPConnection] = LifoQueue(AT_ONCE)

    def score(self, request: ScoreRequest) -> RiskScore:
        name = self._provider.name
        if not self._breaker.admits():
            return RiskScore(ScoreStatus.SKIPPED, None, name, error="it failed three times in a row")
        started = time.monotonic()
        try:
            answer = read_answer(self._ask(json.dumps(asdict(request), allow_nan=False).encode()))
        except Exception as error:  # whatever it is, the checkout goes on
            self._breaker.learn(is_well=False)
            logger.warning("risk_score_failed", provider=name, error=str(error)[:200])
            return failed(error, provider=name, latency_ms=_milliseconds_since(started))
        self._breaker.learn(is_well=True)
        return RiskScore(ScoreStatus.OK, provider=name, latency_ms=_milliseconds_since(started), **answer)

    def _ask(self, body: bytes) -> bytes:
        """Raises `ScoreError` for everything that is no answer."""
        seconds = self._provider.timeout_ms / 1000
        connection = self._connect()
        deadline = time.monotonic() + seconds
        future = self._threads.submit(exchange, connection, self._provider, body, deadline)
        try:
            answer = future.result(timeout=seconds)
        except Exception as error:
            future.cancel()
            future.add_done_callback(lambda _: connection.close())
            cut_off(connection)
            _raise(error, deadline, self._provider.timeout_ms)
        with suppress(Full):
            self._idle.put_nowait(connection)
        return answer

    def _connect(self) -> HTTPConnection:
        """One that is open still, or a new one, which opens with the first request."""
        with suppress(Empty):
            while True:
                connection = self._idle.get_nowait()
                if connection.is_connected:
                    return connection
                connection.close()
        return make_connection(self._provider)


def make_connection(provider: Provider) -> HTTPConnection:
    """Raises `ScoreError` for an address of no use."""
    parts = provider.parts
    if parts.scheme == "http" and provider.allows_private:
        return HTTPConnection(parts.hostname or "", parts.port or 80)
    if parts.scheme != "https" or not parts.hostname:
        raise ScoreError("the provider's address must begin with https://")
    return HTTPSConnection(
        parts.hostname, parts.port or 443, cert_reqs="CERT_REQUIRED", ca_certs=certifi.where()
    )


def exchange(connection: HTTPConnection, provider: Provider, body: bytes, deadline: float) -> bytes:
    """Send the question, read the answer. Redirects are not followed: they are no answer."""
    connection.timeout = max(0.001, deadline - time.monotonic())
    if connection.sock is None:
        connection.connect()
        check_peer(connection, provider)
    assert connection.sock is not None
    connection.sock.settimeout(connection.timeout)
    target = (provider.parts.path or "/") + (f"?{provider.parts.query}" if provider.parts.query else "")
    headers = sign(body, secret=provider.secret, timestamp=int(time.time()))
    connection.request("POST", target, body=body, headers=headers, preload_content=False)
    response = connection.getresponse()
    if response.status != 200:
        raise ScoreError(f"it answered with the status {response.status}")
    received = bytearray()
    while chunk := response.read1(MAX_ANSWER_BYTES, decode_content=False):
        received += chunk
        if len(received) > MAX_ANSWER_BYTES:
            raise ScoreError(f"its answer has more than {MAX_ANSWER_BYTES} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError
    return bytes(received)


def check_peer(connection: HTTPConnection, provider: Provider) -> None:
    """Where the connection really leads, whatever the name said, before anything is sent."""
    assert connection.sock is not None
    address = parse_address(connection.sock.getpeername()[0].partition("%")[0])
    if not (address.is_global or provider.allows_private):
        raise ScoreError("the provider's address is a private one, which the settings do not allow")


def cut_off(connection: HTTPConnection) -> None:
    """Ends what a thread still reads: a socket's own timeout begins anew with every byte that drips in."""
    sock = connection.sock
    if sock is not None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def sign(body: bytes, *, secret: str, timestamp: int) -> dict[str, str]:
    """The headers: `Countinghouse-Signature: t=<seconds>,v1=<hex HMAC-SHA256 of "<seconds>.<body>">`."""
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        SIGNATURE: f"t={timestamp},v1={digest}",
    }


def read_answer(body: bytes) -> dict[str, Any]:
    """`{"score": 0.82, "version": "3", "reasons": ["many cards"]}`. Raises `ScoreError`."""
    try:
        answer = json.loads(body, parse_constant=partial(_refuse, "the answer holds no JSON number"))
    except (ValueError, RecursionError):
        raise ScoreError("the answer is no JSON") from None
    if not isinstance(answer, Mapping):
        raise ScoreError("the answer is no JSON object")
    reasons = answer.get("reasons") or []
    if not isinstance(reasons, list) or not all(isinstance(reason, str) for reason in reasons):
        raise ScoreError("the reasons are no list of texts")
    return {
        "value": check_value(answer.get("score")),
        "version": _clean(str(answer.get("version") or ""), MAX_VERSION_LENGTH),
        "reasons": tuple(_clean(reason, MAX_REASON_LENGTH) for reason in reasons[:MAX_REASONS]),
    }


def _clean(text: str, length: int) -> str:
    """What may be kept and shown: PostgreSQL takes no NUL."""
    return "".join(letter for letter in text if letter.isprintable())[:length]


def _refuse(why: str, _: str) -> NoReturn:
    raise ScoreError(why)


def _raise(error: Exception, deadline: float, timeout_ms: int) -> NoReturn:
    """In words of ours; what a thread broke off over after the deadline is late, whatever it says."""
    if isinstance(error, TimeoutError) or time.monotonic() >= deadline:
        raise ScoreTimeoutError(f"no answer within {timeout_ms} ms") from None
    if isinstance(error, OSError | HTTPError | HTTPException):
        raise ScoreError(f"no connection or no answer: {type(error).__name__}") from error
    raise error


def _milliseconds_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
