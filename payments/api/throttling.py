"""How often one API key may call: counted atomically in Redis, or in this process while Redis is away."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import structlog
from django.conf import settings
from limits import RateLimitItem, parse
from limits.errors import StorageError
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import FixedWindowRateLimiter, RateLimiter
from redis.exceptions import RedisError
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from payments.models import ApiKey

logger = structlog.stdlib.get_logger(__name__)

REDIS_RETRY_SECONDS = 5.0  # how long Redis is left alone after it failed
REDIS_TIMEOUT_SECONDS = 0.25


class KeyThrottle(BaseThrottle):
    """settings.API_RATE_LIMIT per API key. Without Redis the limit holds per process."""

    def allow_request(self, request: Request, view: Any) -> bool:
        if not isinstance(request.auth, ApiKey):
            return True  # refused by its authentication already
        self.reset_at = count_call(request.auth.prefix)
        return self.reset_at is None

    def wait(self) -> float | None:
        return None if self.reset_at is None else max(1.0, self.reset_at - time.time())


def count_call(key: str) -> float | None:
    """Counts one call; None within the limit, else when the window ends (epoch seconds)."""
    item = parse(settings.API_RATE_LIMIT)
    limiters = _limiters()
    if limiters.redis and time.monotonic() >= limiters.redis_rests_until:
        try:
            return _hit(limiters.redis, item, key)
        except (RedisError, StorageError, OSError) as error:
            limiters.redis_rests_until = time.monotonic() + REDIS_RETRY_SECONDS
            logger.warning("api_throttle_without_redis", reason=type(error).__name__)
    return _hit(limiters.memory, item, key)


def _hit(limiter: RateLimiter, item: RateLimitItem, key: str) -> float | None:
    if limiter.hit(item, "api", key):
        return None
    return limiter.get_window_stats(item, "api", key).reset_time


class _Limiters:
    def __init__(self, redis_url: str) -> None:
        self.memory = FixedWindowRateLimiter(MemoryStorage())
        self.redis: RateLimiter | None = None
        self.redis_rests_until = 0.0
        if redis_url:
            # limits calls a socket's scheme redis+unix.
            address = f"redis+{redis_url}" if redis_url.startswith("unix://") else redis_url
            storage = storage_from_string(
                address,
                wrap_exceptions=True,
                socket_timeout=REDIS_TIMEOUT_SECONDS,
                socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
            )
            self.redis = FixedWindowRateLimiter(storage)


@cache
def _limiters() -> _Limiters:
    return _Limiters(settings.REDIS_URL)
