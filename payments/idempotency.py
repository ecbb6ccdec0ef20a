"""Idempotency keys: one insert decides who runs, everybody else gets the stored answer or is told to wait."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar, cast

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from payments import sql
from payments.errors import (
    IdempotencyConflictError,
    IdempotencyExpiredError,
    IdempotencyInFlightError,
    IdempotencyKeyMissingError,
)
from payments.models import IdempotencyKey

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """A key that is ours to answer. `resource` names what a first call, now dead, had made."""

    row_id: int
    is_new: bool
    resource: str = ""
    replay: StoredAnswer | None = None


def fingerprint(payload: Any) -> str:
    """SHA-256 of the canonical JSON. Raises `TypeError` for what JSON cannot say."""
    canonical = json.dumps(
        payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()


def claim(*, scope: str, route: str, key: str, payload: Any) -> Claim:
    """Claim the key, or find its answer. Join it to the transaction that makes the resource, if there is one.

    Raises `IdempotencyKeyMissingError`, `IdempotencyConflictError` (other payload), `IdempotencyInFlightError`
    (details: `retry_after` in seconds) and `IdempotencyExpiredError` (tombstone).
    """
    if not key:
        raise IdempotencyKeyMissingError(
            "Send an Idempotency-Key header with this request; nothing was changed."
        )
    given = fingerprint(payload)
    # The insert decides, never a look before it.
    new = sql.fetch_one(_CLAIM, [scope, route, key, given, settings.SAGA_LEASE_SECONDS])
    if new is not None:
        return Claim(new[0], is_new=True)
    return _claim_again(IdempotencyKey.objects.get(scope=scope, route=route, key=key), given)


_CLAIM = """
INSERT INTO payments_idempotencykey (scope, route, key, fingerprint, resource, content_type, is_tombstone,
    lease_expires_at, created_at)
VALUES (%s, %s, %s, %s, '', '', false, now() + make_interval(secs => %s::float), now())
ON CONFLICT (scope, route, key) DO NOTHING RETURNING id
"""


def _claim_again(row: IdempotencyKey, given: str) -> Claim:
    if row.is_tombstone:
        raise IdempotencyExpiredError(
            "This Idempotency-Key was used long ago; nothing was charged. Use a new key."
        )
    if row.fingerprint != given:
        raise IdempotencyConflictError(
            "This Idempotency-Key came with another payload before; nothing was changed."
        )
    if row.completed_at is not None:
        return Claim(row.pk, is_new=False, resource=row.resource, replay=_stored(row))
    _take_over(row)
    return Claim(row.pk, is_new=False, resource=row.resource)


def _stored(row: IdempotencyKey) -> StoredAnswer:
    return StoredAnswer(cast(int, row.status), row.content_type, bytes(row.answer or b""))


def _take_over(row: IdempotencyKey) -> None:
    """The first request died: of all who come now, one goes on."""
    lease = timedelta(seconds=settings.SAGA_LEASE_SECONDS)
    # By the database's clock, which wrote the lease: a server whose clock is ahead must not take over the living.
    dead = IdempotencyKey.objects.filter(pk=row.pk, completed_at__isnull=True, lease_expires_at__lte=Now())
    if not dead.update(lease_expires_at=Now() + lease):
        seconds = int((row.lease_expires_at - timezone.now()).total_seconds())
        left = max(1, min(seconds, settings.SAGA_LEASE_SECONDS))
        raise IdempotencyInFlightError(
            "The first request with this Idempotency-Key is still running.", retry_after=left
        )


def attach(claim: Claim, resource: str) -> None:
    """Remember what the call makes, in the transaction that makes it: a resumed key finds it, never makes another.

    Raises `IdempotencyInFlightError` when a request that took the key over has made something already: the slow
    first request must roll back what it was about to make.
    """
    free = IdempotencyKey.objects.filter(Q(resource="") | Q(resource=resource), pk=claim.row_id)
    if not free.update(resource=resource):
        raise IdempotencyInFlightError(
            "Another request with this Idempotency-Key went on in the meantime; this one changed nothing.",
            retry_after=1,
        )


def complete(claim: Claim, *, status: int, content_type: str, body: bytes) -> StoredAnswer:
    """Keep the final answer; the first one that was kept wins and is returned."""
    unanswered = IdempotencyKey.objects.filter(pk=claim.row_id, completed_at__isnull=True)
    kept = unanswered.update(
        status=status, content_type=content_type, answer=body, completed_at=timezone.now()
    )
    return (
        StoredAnswer(status, content_type, body)
        if kept
        else _stored(IdempotencyKey.objects.get(pk=claim.row_id))
    )


def defer(claim: Claim) -> None:
    """The outcome is not final yet: whoever repeats the call asks for it again, at once."""
    unanswered = IdempotencyKey.objects.filter(pk=claim.row_id, completed_at__isnull=True)
    unanswered.update(lease_expires_at=Now())


def abandon(claim: Claim) -> None:
    """Nothing was begun: the key is free again. A key with a resource is never freed."""
    IdempotencyKey.objects.filter(pk=claim.row_id, completed_at__isnull=True, resource="").delete()


def idempotent(*, scope: str, key: Callable[P, str]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """The same store and rules for a plain function with a JSON result: a command, a task.

    `key` gives the key from the arguments; the payload is the arguments themselves. An exception frees the key.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            payload = {"args": list(args), "kwargs": dict(kwargs)}
            with transaction.atomic():
                held = claim(
                    scope=scope, route=function.__qualname__, key=key(*args, **kwargs), payload=payload
                )
            if held.replay is not None:
                return cast(T, json.loads(held.replay.body))
            try:
                result = function(*args, **kwargs)
            except BaseException:
                abandon(held)
                raise
            complete(held, status=200, content_type="application/json", body=json.dumps(result).encode())
            return result

        return wrapper

    return decorate
