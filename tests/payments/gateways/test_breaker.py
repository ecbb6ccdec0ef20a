"""The circuit breaker: when it opens, what it lets through, how it recovers, and what processes share."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Barrier, Thread

import pytest
from django.conf import settings
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from payments.errors import (
    GatewayTimeoutError,
    GatewayUnavailableError,
    InvalidRequestError,
    NetworkError,
    RateLimitedError,
)
from payments.gateways import breaker as breaker_module
from payments.gateways.breaker import (
    COOL_DOWN_SECONDS,
    MIN_CALLS,
    PROBE_SECONDS,
    QUESTION_SECONDS,
    WINDOW_SECONDS,
    BreakerStore,
    CircuitBreaker,
    MemoryStore,
    RedisHealth,
    RedisStore,
    SharedStore,
    takes_payments,
)
from tests.payments.gateways.fakes import FakeClock

ROOT = Path(__file__).resolve().parents[3]


def connect() -> Redis:
    if not settings.REDIS_URL:
        pytest.skip("there is no Redis on this platform")
    return Redis.from_url(settings.REDIS_URL, decode_responses=True)


@pytest.fixture(params=["memory", "redis", "shared"])
def store(request: pytest.FixtureRequest, redis_prefix: str) -> BreakerStore:
    if request.param == "memory":
        return MemoryStore()
    shared = RedisStore(connect(), prefix=redis_prefix)
    return shared if request.param == "redis" else SharedStore(shared)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(store: BreakerStore, clock: FakeClock) -> CircuitBreaker:
    return CircuitBreaker("stripe/main", store=store, clock=clock)


def call(breaker: CircuitBreaker, error: Exception | None = None, *, operation: str = "authorize") -> None:
    """One call that ends so; what the breaker itself refuses is raised."""

    def proceed() -> None:
        if error:
            raise error

    try:
        breaker.guard(operation, proceed)
    except Exception as raised:
        if raised is not error:
            raise


def trip(breaker: CircuitBreaker) -> None:
    for _ in range(MIN_CALLS):
        call(breaker, GatewayTimeoutError())
    assert breaker.state().state == "open"


# --- opening ------------------------------------------------------------------------------------------------


def test_it_opens_when_half_of_the_calls_fail(breaker: CircuitBreaker) -> None:
    for number in range(MIN_CALLS - 1):
        call(breaker, NetworkError() if number % 2 == 0 else None)
    assert breaker.state().state == "closed"
    call(breaker, NetworkError())
    with pytest.raises(GatewayUnavailableError, match="was not sent"):
        call(breaker)


def test_few_calls_prove_nothing(breaker: CircuitBreaker) -> None:
    for _ in range(MIN_CALLS - 1):
        call(breaker, NetworkError())
    call(breaker)
    assert breaker.state().failures == MIN_CALLS - 1
    assert breaker.state().state == "closed"


def test_fewer_than_half_failing_are_borne(breaker: CircuitBreaker) -> None:
    for number in range(40):
        call(breaker, GatewayTimeoutError() if number % 5 > 2 else None)
    assert breaker.state().state == "closed"


@pytest.mark.parametrize("error", [InvalidRequestError(), RateLimitedError(), ValueError("a bug")])
def test_other_errors_say_nothing_against_the_gateway(breaker: CircuitBreaker, error: Exception) -> None:
    for _ in range(2 * MIN_CALLS):
        call(breaker, error)
    assert breaker.state().failures == 0
    assert breaker.state().state == "closed"


def test_old_failures_are_forgotten(breaker: CircuitBreaker, clock: FakeClock) -> None:
    for _ in range(MIN_CALLS - 1):
        call(breaker, NetworkError())
    clock.advance(WINDOW_SECONDS)
    call(breaker, NetworkError())
    state = breaker.state()
    assert (state.state, state.calls, state.failures) == ("closed", 1, 1)


# --- recovering ---------------------------------------------------------------------------------------------


def test_it_stays_open_for_its_cool_down(breaker: CircuitBreaker, clock: FakeClock) -> None:
    trip(breaker)
    clock.advance(COOL_DOWN_SECONDS - 1)
    for operation in ("authorize", "capture", "list_events"):
        with pytest.raises(GatewayUnavailableError):
            call(breaker, operation=operation)


def test_a_good_probe_closes_it(breaker: CircuitBreaker, clock: FakeClock) -> None:
    trip(breaker)
    clock.advance(COOL_DOWN_SECONDS)
    assert breaker.state().state == "half_open"
    call(breaker, operation="fetch")
    state = breaker.state()
    assert (state.state, state.calls, state.opened_at) == ("closed", 0, None)


def test_a_bad_probe_opens_it_again(breaker: CircuitBreaker, clock: FakeClock) -> None:
    trip(breaker)
    clock.advance(COOL_DOWN_SECONDS)
    call(breaker, GatewayTimeoutError())
    assert breaker.state().opened_at == clock.now
    with pytest.raises(GatewayUnavailableError):
        call(breaker)


def test_a_probe_that_learned_nothing_lets_another_try(breaker: CircuitBreaker, clock: FakeClock) -> None:
    trip(breaker)
    clock.advance(COOL_DOWN_SECONDS)
    call(breaker, RateLimitedError())
    assert breaker.state().state == "half_open"
    call(breaker)
    assert breaker.state().state == "closed"


def test_one_probe_at_a_time(breaker: CircuitBreaker, clock: FakeClock) -> None:
    trip(breaker)
    clock.advance(COOL_DOWN_SECONDS)

    def proceed() -> None:
        with pytest.raises(GatewayUnavailableError):
            call(breaker)

    breaker.guard("authorize", proceed)


def test_of_many_threads_one_is_the_probe(breaker: CircuitBreaker, clock: FakeClock) -> None:
    trip(breaker)
    clock.advance(COOL_DOWN_SECONDS)
    barrier, refused = Barrier(8), []
    passed: list[int] = []

    def proceed() -> None:
        passed.append(1)
        barrier.wait(60)  # the probe is under way until all others were refused

    def attempt() -> None:
        try:
            breaker.guard("authorize", proceed)
        except GatewayUnavailableError:
            refused.append(1)
            barrier.wait(60)

    threads = [Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(passed), len(refused)) == (1, 7)


def test_a_probe_that_died_gives_way(clock: FakeClock) -> None:
    store = MemoryStore()
    assert store.claim_probe("stripe/main", clock())
    assert not store.claim_probe("stripe/main", clock())
    clock.advance(PROBE_SECONDS)
    assert store.claim_probe("stripe/main", clock())


def test_a_late_failure_does_not_prolong_the_pause(breaker: CircuitBreaker, clock: FakeClock) -> None:
    def fail_late() -> None:
        trip(breaker)
        clock.advance(COOL_DOWN_SECONDS)
        raise GatewayTimeoutError

    with pytest.raises(GatewayTimeoutError):
        breaker.guard("authorize", fail_late)
    assert breaker.state().state == "half_open"


# --- questions ----------------------------------------------------------------------------------------------


def test_questions_pass_an_open_breaker_one_at_a_time(breaker: CircuitBreaker) -> None:
    trip(breaker)
    call(breaker, operation="fetch")
    for operation in ("fetch", "fetch_dispute"):
        with pytest.raises(GatewayUnavailableError):
            call(breaker, operation=operation)


def test_the_budget_of_questions_fills_up_again(clock: FakeClock) -> None:
    store = MemoryStore()
    assert store.claim_question("stripe/main", clock())
    assert not store.claim_question("stripe/main", clock())
    clock.advance(QUESTION_SECONDS)
    assert store.claim_question("stripe/main", clock())


def test_redis_forgets_a_question_by_its_own_clock(redis_prefix: str) -> None:
    client = connect()
    RedisStore(client, prefix=redis_prefix).claim_question("stripe/main", 0.0)
    (key,) = client.scan_iter(f"{redis_prefix}*question", count=1000)
    assert 0 < client.ttl(key) <= QUESTION_SECONDS


@pytest.mark.parametrize("error", [None, GatewayTimeoutError()])
def test_a_question_neither_closes_the_breaker_nor_prolongs_the_pause(
    breaker: CircuitBreaker, clock: FakeClock, error: Exception | None
) -> None:
    trip(breaker)
    before = breaker.state()
    clock.advance(1)
    call(breaker, error, operation="fetch")
    assert breaker.state() == before


def test_a_question_passes_beside_a_probe(breaker: CircuitBreaker, clock: FakeClock) -> None:
    trip(breaker)
    clock.advance(COOL_DOWN_SECONDS)

    def proceed() -> None:
        call(breaker, operation="fetch")
        with pytest.raises(GatewayUnavailableError):
            call(breaker, operation="fetch")

    breaker.guard("authorize", proceed)


# --- for routing --------------------------------------------------------------------------------------------


def test_a_new_payment_passes_when_closed_or_when_a_probe_is_wanted(
    breaker: CircuitBreaker, store: BreakerStore, clock: FakeClock
) -> None:
    def is_open_for_payments() -> bool:
        return takes_payments("stripe/main", store=store, clock=clock)

    assert is_open_for_payments()
    trip(breaker)
    assert not is_open_for_payments()
    clock.advance(COOL_DOWN_SECONDS)
    assert is_open_for_payments()  # or nobody would ever probe
    assert not breaker.guard("authorize", is_open_for_payments)
    assert is_open_for_payments()


# --- by hand ------------------------------------------------------------------------------------------------


def test_a_tripped_breaker_can_be_closed_at_once(breaker: CircuitBreaker) -> None:
    trip(breaker)
    breaker.reset("user:ann")
    call(breaker)
    assert breaker.state().calls == 1


def test_accounts_have_breakers_of_their_own(store: BreakerStore, breaker: CircuitBreaker) -> None:
    trip(breaker)
    other = CircuitBreaker("stripe/other", store=store, clock=FakeClock())
    call(other)
    assert other.state().state == "closed"


# --- between processes --------------------------------------------------------------------------------------

FAIL_ELSEWHERE = """
import importlib.util, sys
from redis import Redis
from payments.errors import NetworkError

# The module alone: its package would want the whole site.
spec = importlib.util.spec_from_file_location("breaker", sys.argv[1])
sys.modules["breaker"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

store = module.RedisStore(Redis.from_url(sys.argv[2], decode_responses=True), prefix=sys.argv[3])
breaker = module.CircuitBreaker("stripe/main", store=store)

def fail():
    raise NetworkError

for _ in range(module.MIN_CALLS - 1):
    try:
        breaker.guard("authorize", fail)
    except NetworkError:
        pass
breaker.guard("fetch", lambda: None)
"""

ASK_ELSEWHERE = (
    FAIL_ELSEWHERE.split("def fail()")[0]
    + """
from payments.errors import GatewayUnavailableError

try:
    breaker.guard("fetch", lambda: print("asked"))
except GatewayUnavailableError:
    print("refused")
"""
)


def test_processes_count_together_and_open_for_each_other(redis_prefix: str) -> None:
    here = CircuitBreaker("stripe/main", store=SharedStore(RedisStore(connect(), prefix=redis_prefix)))
    call(here)
    subprocess.run(
        [
            sys.executable,
            "-c",
            FAIL_ELSEWHERE,
            str(breaker_module.__file__),
            settings.REDIS_URL,
            redis_prefix,
        ],
        cwd=ROOT,
        check=True,
        timeout=60,
    )
    state = here.state()
    assert (state.state, state.calls, state.failures) == ("open", MIN_CALLS, MIN_CALLS - 1)
    with pytest.raises(GatewayUnavailableError):
        call(here)
    with pytest.raises(GatewayUnavailableError):
        call(here, operation="fetch")  # the other process has just asked


def test_of_many_processes_one_asks_a_question(redis_prefix: str) -> None:
    trip(CircuitBreaker("stripe/main", store=RedisStore(connect(), prefix=redis_prefix)))
    arguments = [str(breaker_module.__file__), settings.REDIS_URL, redis_prefix]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ASK_ELSEWHERE, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    said = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert sorted(said) == ["asked", "refused", "refused", "refused"]


# --- without Redis ------------------------------------------------------------------------------------------


class FlakyRedis:
    """A store in Redis that can be unplugged."""

    def __init__(self) -> None:
        self._store = MemoryStore()
        self.is_plugged = True
        self.asked = 0

    def __getattr__(self, name: str) -> Callable[..., object]:
        def ask(*args: object, **kwargs: object) -> object:
            self.asked += 1
            if not self.is_plugged:
                raise RedisError("gone")
            return getattr(self._store, name)(*args, **kwargs)

        return ask


@pytest.fixture
def flaky() -> FlakyRedis:
    return FlakyRedis()


@pytest.fixture
def uptime() -> FakeClock:
    return FakeClock(0.0)


@pytest.fixture
def lonely(flaky: FlakyRedis, uptime: FakeClock, clock: FakeClock) -> Iterator[CircuitBreaker]:
    store = SharedStore(flaky, health=RedisHealth(clock=uptime))  # type: ignore[arg-type]
    return CircuitBreaker("stripe/main", store=store, clock=clock)  # type: ignore[return-value]


def test_without_redis_each_process_guards_itself(lonely: CircuitBreaker, flaky: FlakyRedis) -> None:
    flaky.is_plugged = False
    trip(lonely)
    with pytest.raises(GatewayUnavailableError):
        call(lonely)


def test_a_missing_redis_is_not_asked_by_every_call(
    lonely: CircuitBreaker, flaky: FlakyRedis, uptime: FakeClock
) -> None:
    flaky.is_plugged = False
    call(lonely)
    asked = flaky.asked
    call(lonely)
    assert flaky.asked == asked
    flaky.is_plugged = True
    uptime.advance(RedisHealth.AVOID_SECONDS)
    call(lonely)
    assert flaky.asked > asked


def test_a_redis_that_is_not_there_costs_no_call() -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        port, at_once = unused.getsockname()[1], Retry(NoBackoff(), 0)
        client = Redis(host="127.0.0.1", port=port, retry=at_once, decode_responses=True)
        call(CircuitBreaker("stripe/main", store=SharedStore(RedisStore(client))))
