"""The bell wakes a worker without the ringer waiting for, or failing with, the broker."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import transaction

from webhooks import processing, tasks
from webhooks.bell import Bell


class Task:
    """A task that is only counted."""

    name = "tests.task"

    def __init__(self, *, failures: int = 0) -> None:
        self.failures = failures
        self.sent = threading.Semaphore(0)

    def apply_async(self, **_: Any) -> None:
        self.sent.release()
        if self.failures:
            self.failures -= 1
            raise ConnectionError("no broker")


def test_a_ring_sends_one_message_from_another_thread() -> None:
    task = Task()
    Bell(task).ring()  # type: ignore[arg-type]
    assert task.sent.acquire(timeout=60)


def test_many_rings_at_once_are_few_messages() -> None:
    task = Task()
    bell = Bell(task)  # type: ignore[arg-type]
    for _ in range(1000):
        bell.ring()
    assert task.sent.acquire(timeout=60)
    more = 0
    while task.sent.acquire(timeout=0.2):
        more += 1
    assert more < 100


def test_a_broker_that_fails_is_asked_again_by_the_next_ring() -> None:
    task = Task(failures=1)
    bell = Bell(task)  # type: ignore[arg-type]
    bell.ring()
    assert task.sent.acquire(timeout=60)
    bell.ring()
    assert task.sent.acquire(timeout=60)


@pytest.mark.django_db(transaction=True)
def test_without_a_transaction_it_rings_at_once_and_within_one_on_commit() -> None:
    task = Task()
    bell = Bell(task)  # type: ignore[arg-type]
    with transaction.atomic():
        bell.ring_on_commit()
        transaction.set_rollback(True)
    assert bell._thread is None
    bell.ring_on_commit()
    assert task.sent.acquire(timeout=60)


@pytest.mark.django_db(transaction=True)
def test_a_bell_without_a_thread_fails_no_receipt(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    Bell(Task()).ring_on_commit()  # type: ignore[arg-type]


def test_a_full_batch_asks_for_another_message(monkeypatch: pytest.MonkeyPatch, rings: list[str]) -> None:
    monkeypatch.setattr(processing, "process_due", lambda: processing.BATCH)
    tasks.process_due()
    assert rings == ["inbound"]
    monkeypatch.setattr(processing, "process_due", lambda: processing.BATCH - 1)
    tasks.process_due()
    assert rings == ["inbound"]
