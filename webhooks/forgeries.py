"""Counts the bad signatures of each sender, so that who tries many is told to wait and costs the database nothing."""

from __future__ import annotations

import zlib
from ipaddress import IPv6Address, ip_network

from django.conf import settings
from prometheus_client import Counter

from payments.gateways.resilience import local_limiter, parse_limit, redis_health, shared_limiter
from payments.networks import parse_address

BUCKETS = 16_384  # senders share counters, so that no flood of addresses takes memory without bound
THROTTLED = Counter(
    "webhooks_throttled_total", "Badly signed deliveries that were turned away uncounted.", ("gateway",)
)


def count_forgery(ip: str) -> bool:
    """Count one bad signature from an address, "" for an unknown one. Returns whether it is one too many.

    settings.WEBHOOK_FORGERY_LIMIT over all processes, and in each by itself while Redis is away.
    """
    limit, bucket = parse_limit(settings.WEBHOOK_FORGERY_LIMIT), _find_bucket(ip)
    return not redis_health().ask(
        lambda: shared_limiter().hit(limit, "forgeries", bucket),
        lambda: local_limiter().hit(limit, "forgeries", bucket),
    )


def retry_seconds() -> int:
    """How long the limit looks back, which is the longest that a sender may have to wait."""
    return int(parse_limit(settings.WEBHOOK_FORGERY_LIMIT).get_expiry())


def _find_bucket(ip: str) -> str:
    """By address, and of IPv6 by the 64 bits that one sender has for himself."""
    if ip and isinstance(address := parse_address(ip), IPv6Address):
        ip = str(ip_network((address, 64), strict=False))
    return str(zlib.crc32(ip.encode()) % BUCKETS)
