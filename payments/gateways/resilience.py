"""The one stack around every gateway: timing, kill switch, breaker, retry, rate limit and a redacted log line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cache
from typing import Any, Protocol, TypeVar, cast

import stamina
import structlog
from django.conf import settings
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import MovingWindowRateLimiter
from prometheus_client import Counter, Histogram
from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.retry import Retry as RedisRetry

from payments.errors import (
    ConflictError,
    GatewayTimeoutError,
    GatewayUnavailableError,
    NetworkError,
    PaymentError,
    RateLimitedError,
)
from payments.gateways.base import (
    CaptureRequest,
    ChargeRequest,
    ChargeResult,
    DisputeFact,
    EvidenceRequest,
    Fact,
    FetchRequest,
    PaymentGateway,
    RedirectGateway,
    RefundRequest,
    RefundResult,
    SavedToken,
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
from payments.gateways.breaker import takes_payments as is_admitting
from payments.gateways.kill_switch import FindSwitch, no_switch, switch_board, to_switch
from payments.models import GatewayAccount
from payments.money import Money

T = TypeVar("T")
logger = structlog.get_logger(__name__)

ATTEMPTS = 3
RETRY_BUDGET_SECONDS = 3.0  # with one whole call of 25 s it stays below the saga's lease of 30 s
READS = frozenset({"fetch", "fetch_dispute", "list_events"})  # asking twice moves no money
# Money that is under way may always be finished or given back, whoever has switched the account off.
SWITCHED_OFF_OPERATIONS = frozenset({"authorize"})
DEFAULT_RATE_LIMIT = "100/second"  # Stripe's own limit per account in live mode
REDIS_PATIENCE = {"socket_connect_timeout": 0.25, "socket_timeout": 0.5}

SECONDS = Histogram(
    "payments_gateway_seconds",
    "Time of a gateway call with its retries, by outcome.",
    ("gateway", "op", "outcome"),
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60),
)


REFUSALS = Counter(
    "payments_gateway_refusals_total",
    "Calls that were not sent, by reason: switched_off or failing.",
    ("gateway", "op", "reason"),
)
LIMIT_WAITS = Counter(
    "payments_gateway_rate_limit_waits_total",
    "Times that a call had to wait for the account's own rate limit.",
    ("gateway", "op"),
)


def wrap_gateway(
    gateway: PaymentGateway, *, name: str, limit: str = "", find_switch: FindSwitch = no_switch
) -> PaymentGateway:
    """The gateway inside the stack; `name` identifies the account to the breaker and the limit.

    `limit` is the account's own, e.g. `50/second`; "" is the house's.
    """
    return ResilientGateway(
        gateway,
        name=name,
        layers=(
            Timing(),
            KillSwitch(find_switch),
            Breaker(CircuitBreaker(name, store=breaker_store())),
            Retry(),
            RateLimit(limit),
            Log(),
        ),
    )


# --- for operators ------------------------------------------------------------------------------------------


def breaker_states() -> list[BreakerState]:
    """The state of every gateway account, by name."""
    accounts = GatewayAccount.objects.order_by("gateway", "name").defer("api_key")
    return [account_state(account) for account in accounts]


def account_state(account: GatewayAccount) -> BreakerState:
    """The state of one account; a switch that a person threw counts before what the breaker says."""
    state = CircuitBreaker(str(account), store=breaker_store()).state()
    switch = to_switch(account)
    if switch is None:
        return state
    return replace(state, state="open", opened_at=switch.at.timestamp(), by=switch.by, reason=switch.reason)


def takes_payments(account: GatewayAccount) -> bool:
    """Whether its breaker would let a new payment pass now; says nothing of the kill switch."""
    return is_admitting(str(account), store=breaker_store())


def switch_off(account: GatewayAccount, *, by: str, reason: str) -> None:
    """Stop new payments on an account, in every process within `FRESH_SECONDS`; what is under way is finished.

    Raises `ConflictError`, and changes nothing, when it is switched off already.
    """
    account.switch_off(by=by, reason=reason)
    switch_board().forget()
    logger.warning("gateway_switched_off", gateway=str(account), by=by, reason=reason)


def switch_on(account: GatewayAccount, *, by: str, reason: str) -> None:
    """Ask an account again at once, whether a person or its failures had stopped it.

    Raises `ConflictError`, and changes nothing, when neither had.
    """
    breaker = CircuitBreaker(str(account), store=breaker_store())
    is_tripped = breaker.state().state != "closed"
    if not account.switch_on() and not is_tripped:
        raise ConflictError(f"{account} takes new payments already; nothing was changed.")
    breaker.reset(by)
    switch_board().forget()
    logger.warning("gateway_switched_on", gateway=str(account), by=by, reason=reason)


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


class KillSwitch:
    """Refuses new payments while a person has switched the account off; all else passes."""

    def __init__(self, find_switch: FindSwitch) -> None:
        self._find_switch = find_switch

    def __call__(self, call: Call, proceed: Callable[[], T]) -> T:
        switch = self._find_switch() if call.operation in SWITCHED_OFF_OPERATIONS else None
        if switch is None:
            return proceed()
        REFUSALS.labels(call.gateway, call.operation, "switched_off").inc()
        raise GatewayUnavailableError(
            f"{call.gateway} is switched off by {switch.by}: the {call.operation} was not sent",
            gateway=call.gateway,
        )


class Breaker:
    """Refuses the call while the gateway is failing."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker

    def __call__(self, call: Call, proceed: Callable[[], T]) -> T:
        try:
            return self._breaker.guard(call.operation, proceed)
        except GatewayUnavailableError:
            REFUSALS.labels(call.gateway, call.operation, "failing").inc()
            raise


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

    def __init__(self, limit: str = "") -> None:
        self._limit = limit

    def __call__(self, call: Call, proceed: Callable[[], T]) -> T:
        limit, health = rate_limit(self._limit), redis_health()
        is_free = health.ask(
            lambda: shared_limiter().hit(limit, "gateway", call.gateway),
            lambda: local_limiter().hit(limit, "gateway", call.gateway),
        )
        if not is_free:
            LIMIT_WAITS.labels(call.gateway, call.operation).inc()
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

    def complete_authentication(
        self, *, operation_id: str, amount: Money, redirect_result: str
    ) -> ChargeResult:
        gateway = cast(RedirectGateway, self._gateway)

        def proceed() -> ChargeResult:
            return gateway.complete_authentication(
                operation_id=operation_id, amount=amount, redirect_result=redirect_result
            )

        return self._run("complete_authentication", proceed, operation_id)

    def fetch_dispute(self, reference: str) -> DisputeFact | None:
        return self._run("fetch_dispute", lambda: self._gateway.fetch_dispute(reference), reference)

    def submit_evidence(self, request: EvidenceRequest) -> DisputeFact:
        return self._run("submit_evidence", lambda: self._gateway.submit_evidence(request), request.key)

    def accept_dispute(self, reference: str, *, key: str) -> DisputeFact:
        return self._run("accept_dispute", lambda: self._gateway.accept_dispute(reference, key=key), key)

    def forget_payment_method(self, saved: SavedToken) -> None:
        return self._run("forget_payment_method", lambda: self._gateway.forget_payment_method(saved))

    def read_event(self, payload: Mapping[str, Any]) -> Sequence[Fact]:
        return self._gateway.read_event(payload)  # no network: nothing to protect

    def list_events(
        self, *, since: datetime, until: datetime | None = None, types: Sequence[str] = ()
    ) -> Iterable[Mapping[str, Any]]:
        return self._run(
            "list_events", lambda: self._gateway.list_events(since=since, until=until, types=types)
        )

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


def rate_limit(own: str = "") -> RateLimitItem:
    """An account's own limit, or the house's; one that cannot be read is logged and never stops money under way."""
    house = getattr(settings, "GATEWAY_RATE_LIMIT", DEFAULT_RATE_LIMIT)
    try:
        return parse_limit(own or house)
    except ValueError:
        logger.error("gateway_rate_limit_unreadable", limit=own, used=house)
        return parse_limit(house)


@cache
def parse_limit(text: str) -> RateLimitItem:
    """Such as `50/second`. Raises `ValueError`."""
    return parse(text)
