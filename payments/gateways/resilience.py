"""The one stack around every gateway: timing, circuit breaker, retry, rate limit and a redacted log line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from typing import Any, Protocol, TypeVar

import stamina
import structlog
from django.conf import settings
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import MovingWindowRateLimiter
from prometheus_client import Histogram
from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry as RedisRetry

from payments.errors import ConflictError, GatewayTimeoutError, NetworkError, PaymentError, RateLimitedError
from payments.gateways.base import (
    CaptureRequest,
    ChargeRequest,
    ChargeResult,
    FetchRequest,
    GatewayFact,
    PaymentGateway,
    RefundRequest,
    RefundResult,
    VoidRequest,
)
from payments.gateways.breaker import (
    BreakerState,
    BreakerStore,
    CircuitBreaker,
    MemoryStore,
    RedisHealth,
    RedisStore,
    SharedStore,
)

T = TypeVar("T")
logger = structlog.get_logger(__name__)

ATTEMPTS = 3
RETRY_BUDGET_SECONDS = 3.0  # with one whole call of 25 s it stays below the saga's lease of 30 s
READS = frozenset({"fetch", "list_events"})  # asking twice moves no money
DEFAULT_RATE_LIMIT = "100/second"  # Stripe's own limit per account in live mode
REDIS_PATIENCE = {"socket_connect_timeout": 0.25, "socket_timeout": 0.5}

SECONDS = Histogram(
    "payments_gateway_seconds",
    "Time of a gateway call with its retries, by outcome.",
    ("gateway", "op", "outcome"),
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60),
)


def wrap_gateway(gateway: PaymentGateway, *, name: str) -> PaymentGateway:
    """The gateway inside the stack; `name` identifies the account to the breaker and the limit."""
    return ResilientGateway(
        gateway,
        name=name,
        layers=(
            Timing(),
            Breaker(CircuitBreaker(name, store=breaker_store())),
            Retry(),
            RateLimit(),
            Log(),
        ),
    )


# --- for operators ------------------------------------------------------------------------------------------


def breaker_states() -> list[BreakerState]:
    """The breaker of every gateway account that any process has used, by name."""
    return [CircuitBreaker(name, store=breaker_store()).state() for name in sorted(breaker_store().names())]


def open_breaker(name: str, by: str) -> None:
    """Stop new authorizations on an account; captures, voids, refunds and questions still go through.

    Raises `ConflictError` when the other processes cannot be told.
    """
    with telling_everybody(name):
        CircuitBreaker(name, store=breaker_store()).open(by)


def close_breaker(name: str, by: str) -> None:
    """Ask the account again at once, whether a person or its failures had opened the breaker.

    Raises `ConflictError` when the other processes cannot be told.
    """
    with telling_everybody(name):
        CircuitBreaker(name, store=breaker_store()).close(by)


@contextmanager
def telling_everybody(name: str) -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise ConflictError(
            f"The breaker of {name} was changed in this process alone, because Redis does not answer"
        ) from error


# --- the layers ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """What every layer knows of a call."""

    gateway: str
    operation: str
    operation_id: str = ""


class Layer(Protocol):
    """One concern around a call: it runs `proceed` none, one or several times, and returns or raises."""

    def __call__(self, call: Call, proceed: Callable[[], T]) -> T: ...


class Timing:
    """Observes how long the whole call took, retries and refusals of the breaker included."""

    def __call__(self, call: Call, proceed: Callable[[], T]) -> T:
        def observe(outcome: str, seconds: float) -> None:
            SECONDS.labels(call.gateway, call.operation, outcome).observe(seconds)

        return watch(proceed, observe)


class Breaker:
    """Refuses the call while the gateway is failing or switched off."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker

    def __call__(self, call: Call, proceed: Callable[[], T]) -> T:
        return self._breaker.guard(call.operation, proceed)


class Retry:
    """Sends again, with the same key, what surely did not happen; a decline or an unknown outcome never."""

    def __call__(self, call: Call, proceed: Callable[[], T]) -> T:
        def may_help(error: Exception) -> bool:
            return isinstance(error, NetworkError | RateLimitedError) or (
                call.operation in READS and isinstance(error, GatewayTimeoutError)
            )

        for attempt in stamina.retry_context(
            on=may_help,
            attempts=ATTEMPTS,
            timeout=RETRY_BUDGET_SECONDS,
            wait_initial=0.1,
            wait_max=0.5,
            wait_jitter=0.1,
        ):
            with attempt:
                return proceed()
        raise AssertionError("the last attempt returns or raises")


class RateLimit:
    """Holds each account below its limit over all processes; what exceeds it is retried a little later."""

    def __call__(self, call: Call, proceed: Callable[[], T]) -> T:
        limit, health = rate_limit(), redis_health()
        is_free = health.ask(
            lambda: shared_limiter().hit(limit, "gateway", call.gateway),
            lambda: local_limiter().hit(limit, "gateway", call.gateway),
        )
        if not is_free:
            raise RateLimitedError(
                f"{call.gateway} takes {limit}: the {call.operation} was not sent", gateway=call.gateway
            )
        return proceed()


class Log:
    """One line per attempt; names and times only, and every log handler masks card data besides."""

    def __call__(self, call: Call, proceed: Callable[[], T]) -> T:
        def write(outcome: str, seconds: float) -> None:
            logger.info(
                "gateway_call",
                gateway=call.gateway,
                operation=call.operation,
                operation_id=call.operation_id,
                outcome=outcome,
                ms=round(seconds * 1000),
            )

        return watch(proceed, write)


def watch(proceed: Callable[[], T], report: Callable[[str, float], None]) -> T:
    """Run it, and report its outcome and its seconds however it ends."""
    start, outcome = time.perf_counter(), "bug"
    try:
        result = proceed()
        outcome = describe_result(result)
        return result
    except PaymentError as error:
        outcome = error.code
        raise
    finally:
        report(outcome, time.perf_counter() - start)


def describe_result(result: object) -> str:
    """A word of a small set, fit for a metric's label."""
    if isinstance(result, ChargeResult | RefundResult):
        return str(result.status)
    return "absent" if result is None else "ok"


# --- the stack ----------------------------------------------------------------------------------------------


class ResilientGateway:
    """A gateway whose every call to the network goes through the layers, the first one outermost."""

    def __init__(self, gateway: PaymentGateway, *, name: str, layers: Sequence[Layer]) -> None:
        self.capabilities = gateway.capabilities
        self.name = name
        self._gateway = gateway
        self._layers = layers

    def authorize(self, request: ChargeRequest) -> ChargeResult:
        return self._run("authorize", lambda: self._gateway.authorize(request), request.operation_id)

    def capture(self, request: CaptureRequest) -> ChargeResult:
        return self._run("capture", lambda: self._gateway.capture(request), request.operation_id)

    def void(self, request: VoidRequest) -> ChargeResult:
        return self._run("void", lambda: self._gateway.void(request), request.operation_id)

    def refund(self, request: RefundRequest) -> RefundResult:
        return self._run("refund", lambda: self._gateway.refund(request), request.operation_id)

    def fetch(self, request: FetchRequest) -> ChargeResult | RefundResult | None:
        return self._run("fetch", lambda: self._gateway.fetch(request), request.operation_id)

    def read_event(self, payload: Mapping[str, Any]) -> Sequence[GatewayFact]:
        return self._gateway.read_event(payload)  # no network: nothing to protect

    def list_events(self, *, since: datetime, types: Sequence[str] = ()) -> Iterable[Mapping[str, Any]]:
        return self._run("list_events", lambda: self._gateway.list_events(since=since, types=types))

    def settlement_report(self, *, day: date) -> Iterator[bytes]:
        return self._run("settlement_report", lambda: self._gateway.settlement_report(day=day))

    def _run(self, operation: str, proceed: Callable[[], T], operation_id: str = "") -> T:
        call = Call(self.name, operation, operation_id)
        for layer in reversed(self._layers):
            proceed = enclose(layer, call, proceed)
        return proceed()


def enclose(layer: Layer, call: Call, proceed: Callable[[], T]) -> Callable[[], T]:
    return lambda: layer(call, proceed)


# --- what the processes share -------------------------------------------------------------------------------


@cache
def breaker_store() -> BreakerStore:
    if not settings.REDIS_URL:
        return MemoryStore()
    return SharedStore(RedisStore(Redis(connection_pool=redis_pool(decode=True))), health=redis_health())


@cache
def redis_health() -> RedisHealth:
    return RedisHealth()


@cache
def redis_pool(*, decode: bool) -> ConnectionPool:
    # The client's own retries would wait for seconds; without Redis we go on alone.
    return ConnectionPool.from_url(
        settings.REDIS_URL, decode_responses=decode, retry=RedisRetry(NoBackoff(), 0), **REDIS_PATIENCE
    )


@cache
def local_limiter() -> MovingWindowRateLimiter:
    return MovingWindowRateLimiter(MemoryStorage())


@cache
def shared_limiter() -> MovingWindowRateLimiter:
    if not settings.REDIS_URL:
        return local_limiter()
    return MovingWindowRateLimiter(RedisStorage("redis://", connection_pool=redis_pool(decode=False)))


def rate_limit() -> RateLimitItem:
    return _parse_limit(getattr(settings, "GATEWAY_RATE_LIMIT", DEFAULT_RATE_LIMIT))


@cache
def _parse_limit(text: str) -> RateLimitItem:
    return parse(text)
