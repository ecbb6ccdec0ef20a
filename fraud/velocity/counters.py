"""Counts in Redis: one sorted set per key, kind and epoch, one Lua call for all figures of an order.

A set holds the last 24 hours. What is older, and what of a busy key is not among its newest thousand events, is read
from the rows and added: such events are settled.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Any

from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from fraud.facts import DIMENSIONS, Measure, VelocityKey
from fraud.velocity import rows
from fraud.velocity.rows import KEPT_SECONDS, SHORT_HASH, EventSet, Recorded, Tail

TIMEOUT_SECONDS = 0.05
BIRTH_SECONDS = 0.05  # how long an epoch may lack the mark of who has begun it
MOST_READ = 1000  # events of one set that are read for sums and distinct figures; counts read none
MICROSECONDS = 1_000_000
SCRIPT = (Path(__file__).parent / "count.lua").read_text()
SCRIPT_SHA = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()

_RUN_ID = re.compile(rb"run_id:(\w+)")
_HEAD = struct.Struct(">QQ3s")
_OFFSETS = {name: _HEAD.size + 1 + place * SHORT_HASH // 2 for place, name in enumerate(DIMENSIONS)}
_NO_HASH = bytes(SHORT_HASH // 2)


class UntrustedError(RedisError):
    """This server does not know what was counted in the epoch: it is new, emptied, or another one took over."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of the script for one set of figures, in the order in which it gets it."""

    keys: tuple[VelocityKey, ...]
    sets: tuple[EventSet, ...]  # those of attempts first
    attempts: int
    windows: tuple[int, ...]  # counts of attempts, by every dimension
    others: tuple[VelocityKey, ...]
    arguments: tuple[Any, ...]

    @classmethod
    def of(cls, dimensions: tuple[str, ...], keys: Iterable[VelocityKey]) -> Plan:
        """The figures by these dimensions; of the others there are none."""
        known = sorted({key for key in keys if key.dimension in dimensions})
        windows = tuple(sorted({key.seconds for key in known if _is_plain(key)}))
        others = [key for key in known if not _is_plain(key)]
        others.sort(key=lambda key: (key.dimension, key.kind, -key.seconds))  # the script reads a set once
        attempts = [EventSet(name) for name in dimensions]
        more = dict.fromkeys(EventSet(key.dimension, key.kind) for key in others if key.kind != "attempt")
        sets = (*attempts, *more)
        asked = [part for key in others for part in _describe(sets, key)]
        arguments = (len(windows), *(seconds * MICROSECONDS for seconds in windows), *asked)
        return cls(tuple(known), sets, len(attempts), windows, tuple(others), arguments)


def _describe(sets: Sequence[EventSet], key: VelocityKey) -> tuple[int, int, int]:
    what = _OFFSETS[key.of] if key.of else int(key.measure is Measure.SUM)
    span = min(key.seconds, KEPT_SECONDS) * MICROSECONDS
    return sets.index(EventSet(key.dimension, key.kind)) + 1, span, what


def _is_plain(key: VelocityKey) -> bool:
    """Counted for every order anyway: the number of attempts, no longer ago than Redis remembers."""
    return key.kind == "attempt" and key.measure is Measure.COUNT and key.seconds <= KEPT_SECONDS


def name_epoch(epoch: int) -> str:
    return f"velocity:{{{epoch}}}"


def _name_set(epoch: int, one: EventSet, key_hash: str) -> str:
    return f"{name_epoch(epoch)}:{one.kind}:{one.dimension}:{key_hash}"


def count(
    url: str, recorded: Recorded, plan: Plan, row: Mapping[str, Any], *, last: bool
) -> dict[VelocityKey, int]:
    """Every figure. Raises `UntrustedError`, and `RedisError` when Redis does not answer."""
    server = _Server.at(url)
    names = [_name_set(recorded.epoch, one, row[one.dimension]) for one in plan.sets]
    arguments = _arguments(recorded, plan, row, last=last)
    is_young = recorded.at - recorded.epoch < BIRTH_SECONDS * MICROSECONDS
    born_by = time.monotonic() + BIRTH_SECONDS * is_young
    while True:
        status, *answer = server.call([name_epoch(recorded.epoch), *names], arguments)
        if status == b"figures":
            return _read_figures(plan, row, answer)
        if status == b"cold":
            cold = [int(index) for index in answer]
            events = rows.read_before([plan.sets[index] for index in cold], row, recorded.epoch)
            _fill(server.client, [names[index] for index in cold], events)
        elif time.monotonic() > born_by:
            raise UntrustedError("this Redis does not know the epoch")
        else:
            time.sleep(0.002)  # somebody else has begun it a moment ago


def _arguments(recorded: Recorded, plan: Plan, row: Mapping[str, Any], *, last: bool) -> list[Any]:
    return [
        recorded.at,
        pack(recorded.id, row["amount"], row["currency"], row),
        "last" if last else "",
        KEPT_SECONDS * MICROSECONDS,
        MOST_READ,
        plan.attempts,
        "".join("y" if has_past else "n" for has_past in recorded.has_past),
        *plan.arguments,
    ]


def _read_figures(plan: Plan, row: Mapping[str, Any], answer: Sequence[bytes]) -> dict[VelocityKey, int]:
    numbers = iter(answer[1].split())
    figures = {
        (one.dimension, window): int(next(numbers))
        for one in plan.sets[: plan.attempts]
        for window in plan.windows
    }
    found = {key: figures[key.dimension, key.seconds] for key in plan.keys if _is_plain(key)}
    if plan.others:
        times = dict(zip(plan.sets, map(int, answer[0].split()), strict=True))
        found |= _read_others(plan, row, times, zip(answer[2::2], answer[3::2], strict=True))
    return found


def _read_others(
    plan: Plan, row: Mapping[str, Any], times: Mapping[EventSet, int], answers: Iterable[tuple[bytes, bytes]]
) -> dict[VelocityKey, int]:
    figures, tails = {}, {}
    for key, (read_from, value) in zip(plan.others, answers, strict=True):
        since = times[EventSet(key.dimension, key.kind)] - key.seconds * MICROSECONDS
        if int(read_from) > since:
            tails[Tail(key, since, int(read_from))] = value
        else:
            figures[key] = len(value) // len(_NO_HASH) if key.of else int(value)
    if tails:
        for (tail, value), old in zip(tails.items(), rows.read_tails(row, list(tails)), strict=True):
            figures[tail.key] = _join(tail.key, value, old)
    return figures


def _join(key: VelocityKey, recent: bytes, old: Any) -> int:
    if not key.of:
        return int(recent) + int(old)
    width = len(_NO_HASH)
    values = {recent[place : place + width] for place in range(0, len(recent), width)}
    return len(values | {bytes.fromhex(value) for value in old})


def add_event(url: str, epoch: int, kind: str, at: int, member: bytes, hashes: Mapping[str, str]) -> None:
    """Let an event of another kind be counted in this epoch. Raises `RedisError`; idempotent."""
    pipeline = _Server.at(url).client.pipeline(transaction=True)
    for name, key_hash in hashes.items():
        key = _name_set(epoch, EventSet(name, kind), key_hash)
        pipeline.zadd(key, {member: at}, nx=True)
        pipeline.zremrangebyscore(key, "-inf", at - KEPT_SECONDS * MICROSECONDS)
        pipeline.pexpire(key, KEPT_SECONDS * 1000)
    pipeline.execute()


def reach(url: str) -> None:
    """Raises `RedisError` when there is no connection to the server and none can be made; asks it nothing."""
    _Server.at(url).reach()


def mark_epoch(url: str, epoch: int) -> None:
    """Say that the server that answers now counts in this epoch; for who has begun it. Raises `RedisError`."""
    _Server.at(url).mark(name_epoch(epoch))


def pack(row_id: int, amount: int, currency: str, hashes: Mapping[str, str]) -> bytes:
    """An event as a member of a sorted set: 61 bytes, see count.lua."""
    short = (
        bytes.fromhex(hashes[name][:SHORT_HASH]) if hashes.get(name) else _NO_HASH for name in DIMENSIONS
    )
    return _HEAD.pack(row_id, amount, currency.encode()) + b"".join(short)


def _fill(client: Redis, names: Sequence[str], events: Iterable[Sequence[Any]]) -> None:
    """Copy the rows from before the epoch into these sets; those after come by themselves."""
    pipeline = client.pipeline(transaction=False)
    for place, row_id, at, amount, currency, *hashes in events:
        member = pack(row_id, amount, currency, dict(zip(DIMENSIONS, hashes, strict=True)))
        pipeline.zadd(names[place], {member: at}, nx=True)
    for name in names:
        pipeline.zadd(name, {"#full": "+inf"})  # last: only now it may be counted
        pipeline.pexpire(name, KEPT_SECONDS * 1000)
    pipeline.execute()


class _Server:
    """One Redis. Each connection knows the run id of the process that it leads to, and tells the script."""

    def __init__(self, url: str) -> None:
        self._pool = ConnectionPool.from_url(
            url,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            redis_connect_func=_greet,
        )
        self.client = Redis(connection_pool=self._pool)

    @staticmethod
    @cache
    def at(url: str) -> _Server:
        return _Server(url)

    def reach(self) -> None:
        self._pool.release(self._pool.get_connection())

    def call(self, names: Sequence[str], arguments: Sequence[Any]) -> list[Any]:
        """The script's answer; a server without the script gets it."""
        connection: Any = self._pool.get_connection()
        try:
            rest = [len(names), *names, connection.velocity_run_id, *arguments]
            try:
                answer = self._ask(connection, "EVALSHA", SCRIPT_SHA, *rest)
            except NoScriptError:
                answer = self._ask(connection, "EVAL", SCRIPT, *rest)
        finally:
            self._pool.release(connection)
        return list(answer)

    def mark(self, name: str) -> None:
        connection: Any = self._pool.get_connection()
        try:
            self._ask(connection, "SET", name, connection.velocity_run_id, "EX", 2 * KEPT_SECONDS)
        finally:
            self._pool.release(connection)

    @staticmethod
    def _ask(connection: Any, *command: Any) -> Any:
        connection.send_command(*command)
        return connection.read_response()


def _greet(connection: Any) -> None:
    connection.on_connect()
    connection.send_command("INFO", "server")
    found = _RUN_ID.search(connection.read_response())
    if found is None:
        raise RedisError("this Redis does not say its run id: velocity cannot be counted with it")
    connection.velocity_run_id = found.group(1)
