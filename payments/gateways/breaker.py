"""The circuit breaker: it leaves a gateway alone that keeps failing, save for a probe and a few questions."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from threading import Lock
from typing import Protocol, TypeVar

import structlog
from redis import Redis
from redis.exceptions import RedisError

from payments.errors import (
    GatewayTimeoutError,
    GatewayUnavailableError,
    NetworkError,
    PaymentError,
    RateLimitedError,
)

T = TypeVar("T")
Clock = Callable[[], float]
logger = structlog.get_logger(__name__)

WINDOW_SECONDS = 60  # holds enough calls to judge by, and forgets what is over
BUCKET_SECONDS = 10  # the window moves in these steps: it holds the last 50 to 60 seconds
MIN_CALLS = 10  # at night a single lost answer must not switch a gateway off
FAILURE_PERCENT = 50  # a gateway that answers every other call still earns more than it costs
COOL_DOWN_SECONDS = 30  # about what a restart or a failover at the other end takes
PROBE_SECONDS = 30  # a call takes 25 s at most; a probe whose process died gives way after this
QUESTION_SECONDS = 5  # while it is open, one question in this time, over all processes
# Doubt about money is resolved by asking alone: these pass an open breaker, a few at a time.
QUESTIONS = frozenset({"fetch", "fetch_dispute"})
# Any answer, be it a decline or a 400, is a sign of life.
FAILURES = (NetworkError, GatewayTimeoutError)


@dataclass(frozen=True, slots=True)
class BreakerState:
    """What operators see: `state` is closed, open or half_open; `by` is who switched it off, if anybody did."""

    name: str
    state: str
    failures: int
    calls: int
    opened_at: float | None  # Unix seconds
    by: str = ""
    reason: str = ""


class Admission(Enum):
    """As what a call may pass."""

    USUAL = "usual"
    PROBE = "probe"  # its end decides whether the breaker closes
    QUESTION = "question"  # its end is no lesson: answering questions is not taking payments


@dataclass(frozen=True, slots=True)
class Tally:
    """The calls of the window."""

    calls: int = 0
    failures: int = 0

    @property
    def is_too_bad(self) -> bool:
        return self.calls >= MIN_CALLS and self.failures * 100 >= self.calls * FAILURE_PERCENT


class BreakerStore(Protocol):
    """Where breakers keep their state. Every method is atomic; times are Unix seconds."""

    def tripped_at(self, name: str) -> float | None: ...
    def trip(self, name: str, at: float) -> None: ...
    def recover(self, name: str, now: float) -> None:
        """Undo the trip and forget the window."""

    def claim_probe(self, name: str, now: float) -> bool:
        """True for one caller until it is released or `PROBE_SECONDS` are over."""

    def release_probe(self, name: str) -> None: ...
    def is_probing(self, name: str, now: float) -> bool: ...
    def claim_question(self, name: str, now: float) -> bool:
        """True for one caller in `QUESTION_SECONDS`."""

    def count(self, name: str, now: float, *, failed: bool) -> Tally: ...
    def tally(self, name: str, now: float) -> Tally: ...


class CircuitBreaker:
    """An account's breaker: closed, open for `COOL_DOWN_SECONDS`, then half open for one probe at a time."""

    def __init__(self, name: str, *, store: BreakerStore, clock: Clock = time.time) -> None:
        self.name = name
        self._store = store
        self._clock = clock

    def guard(self, operation: str, proceed: Callable[[], T]) -> T:
        """Run the call and learn from its end. Raises `GatewayUnavailableError` instead when it is open."""
        admission = self._admit(operation)
        failed: bool | None = None  # None: nothing was learned about the gateway
        try:
            result = proceed()
            failed = False
            return result
        except FAILURES:
            failed = True
            raise
        except RateLimitedError:
            raise  # it may be our own limit
        except PaymentError:
            failed = False
            raise
        finally:
            self._learn(failed, admission)

    def state(self) -> BreakerState:
        tripped_at, tally = self._store.tripped_at(self.name), self._store.tally(self.name, self._clock())
        state = "closed" if tripped_at is None else self._trip_state(tripped_at)
        return BreakerState(self.name, state, tally.failures, tally.calls, tripped_at)

    def reset(self, by: str) -> None:
        """Ask the gateway again at once."""
        self._store.recover(self.name, self._clock())
        self._store.release_probe(self.name)
        logger.warning("gateway_breaker_reset", gateway=self.name, by=by)

    def _admit(self, operation: str) -> Admission:
        """As what the call passes. Raises `GatewayUnavailableError`."""
        tripped_at, now = self._store.tripped_at(self.name), self._clock()
        if tripped_at is None:
            return Admission.USUAL
        if self._trip_state(tripped_at) == "half_open" and self._store.claim_probe(self.name, now):
            return Admission.PROBE
        if operation in QUESTIONS and self._store.claim_question(self.name, now):
            return Admission.QUESTION
        raise GatewayUnavailableError(
            f"{self.name} keeps failing and is left alone for a while: the {operation} was not sent",
            gateway=self.name,
        )

    def _trip_state(self, tripped_at: float) -> str:
        return "open" if self._clock() - tripped_at < COOL_DOWN_SECONDS else "half_open"

    def _learn(self, failed: bool | None, admission: Admission) -> None:
        if admission is Admission.PROBE:
            self._finish_probe(failed)
        elif failed is not None and admission is Admission.USUAL:
            tally = self._store.count(self.name, self._clock(), failed=failed)
            # Late answers of calls that began before the trip must not prolong it.
            if failed and tally.is_too_bad and self._store.tripped_at(self.name) is None:
                self._store.trip(self.name, self._clock())
                logger.error(
                    "gateway_breaker_tripped", gateway=self.name, calls=tally.calls, failures=tally.failures
                )

    def _finish_probe(self, failed: bool | None) -> None:
        if failed:
            self._store.trip(self.name, self._clock())
        elif failed is False:
            self._store.recover(self.name, self._clock())
            logger.warning("gateway_breaker_recovered", gateway=self.name)
        self._store.release_probe(self.name)


def takes_payments(name: str, *, store: BreakerStore, clock: Clock = time.time) -> bool:
    """Whether a new payment would pass now: closed, or half open with nobody probing."""
    tripped_at, now = store.tripped_at(name), clock()
    if tripped_at is None:
        return True
    return now - tripped_at >= COOL_DOWN_SECONDS and not store.is_probing(name, now)


@dataclass(slots=True)
class _Memory:
    tripped_at: float | None = None
    probe_until: float = 0.0
    question_until: float = 0.0
    buckets: dict[int, Tally] = field(default_factory=dict)


class MemoryStore:
    """Breaker state of this process alone."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._breakers: defaultdict[str, _Memory] = defaultdict(_Memory)

    def tripped_at(self, name: str) -> float | None:
        with self._lock:
            return self._breakers[name].tripped_at

    def remember(self, name: str, tripped_at: float | None) -> None:
        with self._lock:
            self._breakers[name].tripped_at = tripped_at

    def trip(self, name: str, at: float) -> None:
        self.remember(name, at)

    def recover(self, name: str, now: float) -> None:
        with self._lock:
            self._breakers[name] = _Memory()

    def claim_probe(self, name: str, now: float) -> bool:
        with self._lock:
            breaker = self._breakers[name]
            if now < breaker.probe_until:
                return False
            breaker.probe_until = now + PROBE_SECONDS
            return True

    def release_probe(self, name: str) -> None:
        with self._lock:
            self._breakers[name].probe_until = 0.0

    def is_probing(self, name: str, now: float) -> bool:
        with self._lock:
            return now < self._breakers[name].probe_until

    def claim_question(self, name: str, now: float) -> bool:
        with self._lock:
            breaker = self._breakers[name]
            if now < breaker.question_until:
                return False
            breaker.question_until = now + QUESTION_SECONDS
            return True

    def count(self, name: str, now: float, *, failed: bool) -> Tally:
        with self._lock:
            current = list_buckets(now)
            buckets = self._breakers[name].buckets
            for old in buckets.keys() - current:
                del buckets[old]
            tally = buckets.get(current[0], Tally())
            buckets[current[0]] = Tally(tally.calls + 1, tally.failures + failed)
        return self.tally(name, now)

    def tally(self, name: str, now: float) -> Tally:
        with self._lock:
            buckets = self._breakers[name].buckets
            tallies = [buckets[bucket] for bucket in list_buckets(now) if bucket in buckets]
        return Tally(sum(tally.calls for tally in tallies), sum(tally.failures for tally in tallies))


def list_buckets(now: float) -> list[int]:
    """The numbers of the buckets that make the window, the current one first."""
    newest = int(now // BUCKET_SECONDS)
    return [newest - age for age in range(WINDOW_SECONDS // BUCKET_SECONDS)]


class RedisStore:
    """Breaker state shared by every process that uses this Redis. Raises `redis.exceptions.RedisError`."""

    def __init__(self, client: Redis, *, prefix: str = "gateway-breaker") -> None:
        self._redis = client
        self._prefix = prefix

    def tripped_at(self, name: str) -> float | None:
        found = self._redis.hget(self._key(name), "tripped_at")
        return None if found is None else float(found)

    def trip(self, name: str, at: float) -> None:
        self._redis.hset(self._key(name), "tripped_at", at)

    def recover(self, name: str, now: float) -> None:
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hdel(self._key(name), "tripped_at")
            pipeline.delete(*self._bucket_keys(name, now))
            pipeline.execute()

    def claim_probe(self, name: str, now: float) -> bool:
        return bool(self._redis.set(self._key(name, "probe"), now, nx=True, ex=PROBE_SECONDS))

    def release_probe(self, name: str) -> None:
        self._redis.delete(self._key(name, "probe"))

    def is_probing(self, name: str, now: float) -> bool:
        return bool(self._redis.exists(self._key(name, "probe")))

    def claim_question(self, name: str, now: float) -> bool:
        return bool(self._redis.set(self._key(name, "question"), now, nx=True, ex=QUESTION_SECONDS))

    def count(self, name: str, now: float, *, failed: bool) -> Tally:
        newest = self._bucket_keys(name, now)[0]
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hincrby(newest, "calls", 1)
            pipeline.hincrby(newest, "failures", int(failed))
            pipeline.expire(newest, 2 * WINDOW_SECONDS)
            pipeline.execute()
        return self.tally(name, now)

    def tally(self, name: str, now: float) -> Tally:
        with self._redis.pipeline(transaction=False) as pipeline:
            for key in self._bucket_keys(name, now):
                pipeline.hmget(key, "calls", "failures")
            rows = pipeline.execute()
        return Tally(sum(int(row[0] or 0) for row in rows), sum(int(row[1] or 0) for row in rows))

    def _key(self, name: str, part: str = "condition") -> str:
        return f"{self._prefix}:{name}:{part}"

    def _bucket_keys(self, name: str, now: float) -> list[str]:
        return [self._key(name, str(bucket)) for bucket in list_buckets(now)]


class RedisHealth:
    """Remembers for some seconds that Redis is gone, so that not every call waits for its timeout."""

    AVOID_SECONDS = 5.0

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._avoid_until = 0.0

    def ask(self, shared: Callable[[], T], local: Callable[[], T]) -> T:
        """The shared answer, or the local one while Redis does not give any."""
        if self._clock() >= self._avoid_until:
            try:
                return shared()
            except (RedisError, OSError) as error:
                self._avoid_until = self._clock() + self.AVOID_SECONDS
                logger.warning("gateway_limits_are_local", reason=type(error).__name__)
        return local()


class SharedStore:
    """Breaker state in Redis, and in this process while it is gone."""

    def __init__(self, shared: BreakerStore, *, health: RedisHealth | None = None) -> None:
        self._shared = shared
        self._local = MemoryStore()
        self._health = health or RedisHealth()

    def tripped_at(self, name: str) -> float | None:
        def read_shared() -> float | None:
            tripped_at = self._shared.tripped_at(name)
            self._local.remember(name, tripped_at)
            return tripped_at

        return self._health.ask(read_shared, lambda: self._local.tripped_at(name))

    def trip(self, name: str, at: float) -> None:
        self._both(lambda store: store.trip(name, at))

    def recover(self, name: str, now: float) -> None:
        self._both(lambda store: store.recover(name, now))

    def claim_probe(self, name: str, now: float) -> bool:
        return self._either(lambda store: store.claim_probe(name, now))

    def release_probe(self, name: str) -> None:
        self._both(lambda store: store.release_probe(name))

    def is_probing(self, name: str, now: float) -> bool:
        return self._either(lambda store: store.is_probing(name, now))

    def claim_question(self, name: str, now: float) -> bool:
        return self._either(lambda store: store.claim_question(name, now))

    def count(self, name: str, now: float, *, failed: bool) -> Tally:
        return self._either(lambda store: store.count(name, now, failed=failed))

    def tally(self, name: str, now: float) -> Tally:
        return self._either(lambda store: store.tally(name, now))

    def _either(self, ask: Callable[[BreakerStore], T]) -> T:
        return self._health.ask(lambda: ask(self._shared), lambda: ask(self._local))

    def _both(self, write: Callable[[BreakerStore], None]) -> None:
        write(self._local)
        self._health.ask(lambda: write(self._shared), lambda: None)
