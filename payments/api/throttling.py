"""How often a caller may call: counted atomically in Redis, or in this process while Redis is away."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import structlog
from django.conf import settings
from limits import RateLimitItem, parse
from limits.errors import StorageError
from limits.storage import MemoryStorage, Storage, storage_from_string
from redis.exceptions import RedisError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from payments.api.authentication import Access

logger = structlog.stdlib.get_logger(__name__)

REDIS_RETRY_SECONDS = 5.0  # how long Redis is left alone after it failed
REDIS_TIMEOUT_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Quota:
    """Where a caller stands after a call: `left` of `quota` calls, for `seconds_left` of a window of `window`."""

    name: str
    quota: int
    window: int
    left: int
    seconds_left: int
    is_exceeded: bool

    def headers(self) -> dict[str, str]:
        """By draft-ietf-httpapi-ratelimit-headers-10."""
        return {
            "RateLimit-Policy": f'"{self.name}";q={self.quota};w={self.window}',
            "RateLimit": f'"{self.name}";r={self.left};t={self.seconds_left}',
        }


class KeyThrottle(BaseThrottle):
    """settings.API_RATE_LIMIT per API key, its tokens included. Without Redis the limit holds per process."""

    quota: Quota | None = None

    def allow_request(self, request: Request, view: Any) -> bool:
        if not isinstance(request.auth, Access):
            return True  # refused by its authentication already
        view.quota = self.quota = count_call(request.auth.key.prefix)
        return not self.quota.is_exceeded

    def wait(self) -> float | None:
        return float(self.quota.seconds_left) if self.quota else None


class AddressThrottle(KeyThrottle):
    """settings.TOKEN_RATE_LIMIT per address of the caller, who is nobody yet."""

    def allow_request(self, request: Request, view: Any) -> bool:
        view.quota = self.quota = count_call(
            self.get_ident(request), limit=settings.TOKEN_RATE_LIMIT, name="address"
        )
        return not self.quota.is_exceeded


class CountedView(APIView):
    """Says in each answer where its caller stands, and that no cache may keep it."""

    quota: Quota | None = None

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Response:
        final = super().finalize_response(request, response, *args, **kwargs)
        final.headers["Cache-Control"] = "no-store"
        for name, value in (self.quota.headers() if self.quota else {}).items():
            final.headers[name] = value
        return final


def count_call(caller: str, *, limit: str = "", name: str = "key") -> Quota:
    """Counts one call of this caller, against API_RATE_LIMIT by default."""
    item = parse(limit or settings.API_RATE_LIMIT)
    counters = _counters()
    if counters.redis and time.monotonic() >= counters.redis_rests_until:
        try:
            return _count(counters.redis, item, name, caller)
        except (RedisError, StorageError, OSError) as error:
            counters.redis_rests_until = time.monotonic() + REDIS_RETRY_SECONDS
            logger.warning("api_throttle_without_redis", reason=type(error).__name__)
    return _count(counters.memory, item, name, caller)


def _count(storage: Storage, item: RateLimitItem, name: str, caller: str) -> Quota:
    """A fixed window, which begins with its first call."""
    key = item.key_for("api", name, caller)
    calls = storage.incr(key, item.get_expiry())
    seconds_left = math.ceil(storage.get_expiry(key) - time.time())
    return Quota(
        name=name,
        quota=item.amount,
        window=item.get_expiry(),
        left=max(0, item.amount - calls),
        seconds_left=min(max(1, seconds_left), item.get_expiry()),
        is_exceeded=calls > item.amount,
    )


class _Counters:
    def __init__(self, redis_url: str) -> None:
        self.memory: Storage = MemoryStorage()
        self.redis: Storage | None = None
        self.redis_rests_until = 0.0
        if redis_url:
            # limits calls a socket's scheme redis+unix.
            address = f"redis+{redis_url}" if redis_url.startswith("unix://") else redis_url
            made = storage_from_string(
                address,
                wrap_exceptions=True,
                socket_timeout=REDIS_TIMEOUT_SECONDS,
                socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
            )
            self.redis = cast(Storage, made)  # the address names no asynchronous one


@cache
def _counters() -> _Counters:
    return _Counters(settings.REDIS_URL)
