"""The circuit breaker: it stops asking a gateway that keeps failing, and it is the operators' kill switch."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
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
# Money that is under way may always be finished or given back.
SWITCHED_OFF_OPERATIONS = frozenset({"authorize"})
# Any answer, be it a decline or a 400, is a sign of life.
FAILURES = (NetworkError, GatewayTimeoutError)


@dataclass(frozen=True, slots=True)
class BreakerState:
    """What operators see: `state` is closed, open or half_open; `by` is who opened it by hand, if anybody."""

    name: str
    state: str
    failures: int
    calls: int
    opened_at: float | None  # Unix seconds
    by: str = ""


@dataclass(frozen=True, slots=True)
class Condition:
    """Why a breaker is open: an operator's switch and a trip are independent of each other. Unix seconds."""

    switched_by: str = ""
    switched_at: float | None = None
    tripped_at: float | None = None


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

    def read(self, name: str) -> Condition: ...
    def switch(self, name: str, by: str, at: float) -> None: ...
    def trip(self, name: str, at: float) -> None: ...
    def recover(self, name: str, now: float) -> None:
        """Undo the trip and forget the window; the operator's switch stays."""

    def close(self, name: str, now: float) -> None:
        """Undo both, and forget the window."""

    def claim_probe(self, name: str, now: float) -> bool:
        """True for one caller until it is released or `PROBE_SECONDS` are over."""

    def release_probe(self, name: str) -> None: ...
    def count(self, name: str, now: float, *, failed: bool) -> Tally: ...
    def tally(self, name: str, now: float) -> Tally: ...
    def register(self, name: str) -> None: ...
    def names(self) -> set[str]: ...


class CircuitBreaker:
    """An account's breaker: closed, open for `COOL_DOWN_SECONDS`, then half open for one probe at a time."""

    def __init__(self, name: str, *, store: BreakerStore, clock: Clock = time.time) -> None:
        self.name = name
        self._store = store
        self._clock = clock
        store.register(name)

    def guard(self, operation: str, proceed: Callable[[], T]) -> T:
        """Run the call and learn from its end. Raises `GatewayUnavailableError` instead when it is open."""
        is_probe = self._admit(operation)
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
            self._learn(failed, is_probe=is_probe)

    def state(self) -> BreakerState:
        now = self._clock()
        condition, tally = self._store.read(self.name), self._store.tally(self.name, now)
        if condition.switched_by:
            state, opened_at = "open", condition.switched_at
        elif condition.tripped_at is not None:
            state, opened_at = self._trip_state(condition.tripped_at), condition.tripped_at
        else:
            state, opened_at = "closed", None
        return BreakerState(
            self.name, state, tally.failures, tally.calls, opened_at, by=condition.switched_by
        )

    def open(self, by: str) -> None:
        self._store.switch(self.name, by, self._clock())
        logger.warning("gateway_breaker_opened", gateway=self.name, by=by)

    def close(self, by: str) -> None:
        self._store.close(self.name, self._clock())
        logger.warning("gateway_breaker_closed", gateway=self.name, by=by)

    def _admit(self, operation: str) -> bool:
        """Whether this call is the probe. Raises `GatewayUnavailableError`."""
        condition = self._store.read(self.name)
        if condition.switched_by and operation in SWITCHED_OFF_OPERATIONS:
            raise GatewayUnavailableError(
                f"{self.name} is switched off by {condition.switched_by}: the {operation} was not sent",
                gateway=self.name,
            )
        if condition.tripped_at is None:
            return False
        is_half_open = self._trip_state(condition.tripped_at) == "half_open"
        if is_half_open and self._store.claim_probe(self.name, self._clock()):
            return True
        raise GatewayUnavailableError(
            f"{self.name} keeps failing and is left alone for a while: the {operation} was not sent",
            gateway=self.name,
        )

    def _trip_state(self, tripped_at: float) -> str:
        return "open" if self._clock() - tripped_at < COOL_DOWN_SECONDS else "half_open"

    def _learn(self, failed: bool | None, *, is_probe: bool) -> None:
        if is_probe:
            self._finish_probe(failed)
        elif failed is not None:
            tally = self._store.count(self.name, self._clock(), failed=failed)
            # Late answers of calls that began before the trip must not prolong it.
            if failed and tally.is_too_bad and self._store.read(self.name).tripped_at is None:
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


@dataclass(slots=True)
class _Memory:
    condition: Condition = Condition()
    probe_until: float = 0.0
    buckets: dict[int, Tally] = field(default_factory=dict)


class MemoryStore:
    """Breaker state of this process alone."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._breakers: defaultdict[str, _Memory] = defaultdict(_Memory)

    def read(self, name: str) -> Condition:
        return self._breakers[name].condition

    def remember(self, name: str, condition: Condition) -> None:
        self._breakers[name].condition = condition

    def switch(self, name: str, by: str, at: float) -> None:
        with self._lock:
            breaker = self._breakers[name]
            breaker.condition = Condition(by, at, breaker.condition.tripped_at)

    def trip(self, name: str, at: float) -> None:
        with self._lock:
            breaker = self._breakers[name]
            breaker.condition = Condition(
                breaker.condition.switched_by, breaker.condition.switched_at, tripped_at=at
            )

    def recover(self, name: str, now: float) -> None:
        with self._lock:
            old = self._breakers[name].condition
            self._breakers[name] = _Memory(Condition(old.switched_by, old.switched_at))

    def close(self, name: str, now: float) -> None:
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

    def register(self, name: str) -> None:
        with self._lock:
            self._breakers[name]

    def names(self) -> set[str]:
        with self._lock:
            return set(self._breakers)


def list_buckets(now: float) -> list[int]:
    """The numbers of the buckets that make the window, the current one first."""
    newest = int(now // BUCKET_SECONDS)
    return [newest - age for age in range(WINDOW_SECONDS // BUCKET_SECONDS)]


class RedisStore:
    """Breaker state shared by every process that uses this Redis. Raises `redis.exceptions.RedisError`."""

    def __init__(self, client: Redis, *, prefix: str = "gateway-breaker") -> None:
        self._redis = client
        self._prefix = prefix

    def read(self, name: str) -> Condition:
        by, switched_at, tripped_at = self._redis.hmget(
            self._key(name), "switched_by", "switched_at", "tripped_at"
        )
        return Condition(str(by or ""), _to_float(switched_at), _to_float(tripped_at))

    def switch(self, name: str, by: str, at: float) -> None:
        self._redis.hset(self._key(name), mapping={"switched_by": by, "switched_at": at})

    def trip(self, name: str, at: float) -> None:
        self._redis.hset(self._key(name), "tripped_at", at)

    def recover(self, name: str, now: float) -> None:
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hdel(self._key(name), "tripped_at")
            pipeline.delete(*self._bucket_keys(name, now))
            pipeline.execute()

    def close(self, name: str, now: float) -> None:
        self._redis.delete(self._key(name), self._key(name, "probe"), *self._bucket_keys(name, now))

    def claim_probe(self, name: str, now: float) -> bool:
        return bool(self._redis.set(self._key(name, "probe"), now, nx=True, ex=PROBE_SECONDS))

    def release_probe(self, name: str) -> None:
        self._redis.delete(self._key(name, "probe"))

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

    def register(self, name: str) -> None:
        self._redis.sadd(f"{self._prefix}:names", name)

    def names(self) -> set[str]:
        return {str(name) for name in self._redis.smembers(f"{self._prefix}:names")}

    def _key(self, name: str, part: str = "condition") -> str:
        return f"{self._prefix}:{name}:{part}"

    def _bucket_keys(self, name: str, now: float) -> list[str]:
        return [self._key(name, str(bucket)) for bucket in list_buckets(now)]


def _to_float(value: str | bytes | None) -> float | None:
    return None if value is None else float(value)


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
    """Breaker state in Redis, and in this process while it is gone; a known kill switch survives that."""

    def __init__(self, shared: BreakerStore, *, health: RedisHealth | None = None) -> None:
        self._shared = shared
        self._local = MemoryStore()
        self._health = health or RedisHealth()

    def read(self, name: str) -> Condition:
        def read_shared() -> Condition:
            condition = self._shared.read(name)
            self._local.remember(name, condition)
            return condition

        return self._health.ask(read_shared, lambda: self._local.read(name))

    def switch(self, name: str, by: str, at: float) -> None:
        """Raises `RedisError`: a switch that other processes do not see must not look like one."""
        self._local.switch(name, by, at)
        self._shared.switch(name, by, at)

    def trip(self, name: str, at: float) -> None:
        self._both(lambda store: store.trip(name, at))

    def recover(self, name: str, now: float) -> None:
        self._both(lambda store: store.recover(name, now))

    def close(self, name: str, now: float) -> None:
        """Raises `RedisError`, as `switch` does."""
        self._local.close(name, now)
        self._shared.close(name, now)

    def claim_probe(self, name: str, now: float) -> bool:
        return self._either(lambda store: store.claim_probe(name, now))

    def release_probe(self, name: str) -> None:
        self._both(lambda store: store.release_probe(name))

    def count(self, name: str, now: float, *, failed: bool) -> Tally:
        return self._either(lambda store: store.count(name, now, failed=failed))

    def tally(self, name: str, now: float) -> Tally:
        return self._either(lambda store: store.tally(name, now))

    def register(self, name: str) -> None:
        self._both(lambda store: store.register(name))

    def names(self) -> set[str]:
        return self._either(lambda store: store.names()) | self._local.names()

    def _either(self, ask: Callable[[BreakerStore], T]) -> T:
        return self._health.ask(lambda: ask(self._shared), lambda: ask(self._local))

    def _both(self, write: Callable[[BreakerStore], None]) -> None:
        write(self._local)
        self._health.ask(lambda: write(self._shared), lambda: None)
