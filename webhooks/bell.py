"""Wakes a worker soon after something was written, without making the writer wait for the broker."""

from __future__ import annotations

import os
import threading
import time

import structlog
from celery import Task
from django.db import connection, transaction

logger = structlog.stdlib.get_logger(__name__)

COALESCE_SECONDS = 0.05


class Bell:
    """Rings one task from a thread of its own: many calls within 50 ms send one message.

    A receipt must not wait for Redis, and still less fail with it. A ring that is lost costs the few seconds
    until beat's next round, since the rows are the queue.
    """

    def __init__(self, task: Task[..., object]) -> None:
        self._task = task
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._starting = threading.Lock()

    def ring_on_commit(self) -> None:
        """Rings when the transaction commits, or now without one; a bell that cannot ring fails nobody's work."""
        if connection.in_atomic_block:
            transaction.on_commit(self.ring, robust=True)
            return
        try:
            self.ring()
        except RuntimeError as error:  # no thread to be had
            logger.warning("bell_not_rung", task=self._task.name, error=str(error))

    def ring(self) -> None:
        self._wanted.set()
        if self._thread is None or self._pid != os.getpid() or not self._thread.is_alive():
            self._start()

    def _start(self) -> None:
        with self._starting:
            if self._thread and self._pid == os.getpid() and self._thread.is_alive():
                return
            self._pid = os.getpid()  # a forked server process has the object, but not the thread
            self._thread = threading.Thread(target=self._run, name=f"bell of {self._task.name}", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            time.sleep(COALESCE_SECONDS)
            self._wanted.clear()
            self._send()

    def _send(self) -> None:
        try:
            self._task.apply_async(retry=False, expires=60)
        except Exception as error:  # whatever the broker's client raises: the rows are safe, beat comes round
            logger.warning("bell_not_heard", task=self._task.name, error=str(error))
