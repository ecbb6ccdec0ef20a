"""How often, for how much and with how many different values a card, e-mail, address or customer was used: exactly.

An order is recorded first and counted then, itself included, so that of many at once exactly the first few pass.

PostgreSQL is the truth. While Redis counts, the row is committed first, then one Lua call records and counts by Redis'
order; without Redis, PostgreSQL does both under one lock per key. Which of them counts is a regime with a number, the
epoch (fraud/velocity/rows.py), and nobody counts by both at once. Every epoch is a namespace of its own in Redis that
is filled from the rows, and belongs to one run of one server: after a restart, a flush or a failover a new one begins,
so Redis never answers without what was counted while it was away. An order that loses Redis between its row and its
count goes behind all others: too many never pass.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from typing import Any

from django.conf import settings
from django.db import transaction
from redis.exceptions import RedisError

from fraud.facts import VelocityKey
from fraud.velocity import counters, rows
from fraud.velocity.counters import Plan, UntrustedError
from fraud.velocity.keys import STANDARD, check_keys, hash_values, values_of
from payments.models import Order, Payment
from payments.money import Money

__all__ = ["STANDARD", "Figures", "begin_epoch", "count_order", "record_event", "values_of"]

logger = logging.getLogger(__name__)

DOWN_SECONDS = 5.0  # Redis is not asked again for so long
TRIES = 4

_down_until: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures by `VelocityKey.name`, this order included, and who counted them."""

    by_name: Mapping[str, int]
    source: str  # redis | postgresql | "" when there was nothing to count by


def count_order(
    order_id: str, total: Money, values: Mapping[str, str], keys: Iterable[VelocityKey] = ()
) -> Figures:
    """Record the order's attempt and give each figure asked for and the standard ones, itself included.

    `values` by dimension (see `values_of`); there is no figure by a dimension without a value. Sums are of the
    order's currency. Idempotent per order and card: a retry neither counts twice nor moves the order. Call it with no
    transaction open. Raises `ValueError` for a key that cannot be counted, and what the database raises.
    """
    hashes = hash_values(values)
    if not hashes:
        return Figures({}, "")
    plan = _plan(tuple(hashes), tuple(keys))
    arguments = rows.make_arguments(order_id, total, hashes)
    if not _is_redis_usable():
        return _answer(rows.count(arguments, plan.keys), "postgresql")
    try:
        return _count_with_redis(arguments, plan)
    except RedisError as error:
        _mark_down(error)
        return _answer(rows.count(arguments, plan.keys, last=True), "postgresql")


def record_event(
    order: Order, payment: Payment, kind: str, amount: Money, *, at: datetime | None = None
) -> bool:
    """Count a decline, an approval or a chargeback by the keys of the order's last attempt before `at` (now).

    False when it was recorded before: once per order, kind and card. May be called in a transaction, Redis hears of
    it after the commit; if that fails, PostgreSQL counts until a new epoch is filled from the rows.
    """
    found = rows.read_keys(order.pk, at) or hash_values(values_of(order, payment))
    hashes = {name: digest for name, digest in found.items() if digest}
    if not hashes:
        return False
    arguments = {**rows.make_arguments(order.pk, amount, hashes), "kind": kind, "at": at}
    epoch, row_id, moment, is_new = rows.add_event(arguments)
    if epoch % 2 == 0:
        member = counters.pack(row_id, amount.minor, amount.currency, hashes)
        transaction.on_commit(partial(_tell_redis, epoch, kind, moment, member, hashes))
    return is_new


def begin_epoch() -> None:
    """Make every process fill its counts from the rows again, as after rows were deleted by hand."""
    rows.end_epoch()


@lru_cache(maxsize=256)
def _plan(dimensions: tuple[str, ...], keys: tuple[VelocityKey, ...]) -> Plan:
    check_keys(keys)
    return Plan.of(dimensions, (*STANDARD, *keys))


def _count_with_redis(arguments: Mapping[str, Any], plan: Plan) -> Figures:
    url, distrusted = settings.REDIS_URL, 0
    for _ in range(TRIES):
        recorded = rows.record(arguments, plan.sets, distrusted=distrusted, last=bool(distrusted))
        if recorded.is_begun:
            counters.mark_epoch(url, recorded.epoch)
        if recorded.is_settled:
            return _answer(rows.count_settled(arguments, plan.keys), "postgresql")
        try:
            return _answer(counters.count(url, recorded, plan, arguments, last=bool(distrusted)), "redis")
        except UntrustedError:
            distrusted = recorded.epoch
    raise RedisError("Redis keeps losing the velocity keys")


def _tell_redis(epoch: int, kind: str, at: int, member: bytes, hashes: Mapping[str, str]) -> None:
    try:
        if not settings.REDIS_URL:
            raise RedisError("there is none")
        counters.add_event(settings.REDIS_URL, epoch, kind, at, member, hashes)
    except RedisError as error:
        _mark_down(error)
        rows.end_epoch(epoch)


def _answer(figures: Mapping[VelocityKey, int], source: str) -> Figures:
    return Figures({key.name: figure for key, figure in figures.items()}, source)


def _is_redis_usable() -> bool:
    """Whether Redis can be asked now; a process that just lost it does not try."""
    url = settings.REDIS_URL
    if not url or _down_until.get(url, 0.0) > time.monotonic():
        return False
    try:
        counters.reach(url)
    except RedisError as error:
        _mark_down(error)
        return False
    return True


def _mark_down(error: Exception) -> None:
    _down_until[settings.REDIS_URL] = time.monotonic() + DOWN_SECONDS
    logger.warning("velocity is counted by PostgreSQL: Redis does not answer (%s)", type(error).__name__)
