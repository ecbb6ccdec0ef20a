"""Leaves a provider alone that keeps failing, so that no checkout waits for what does not come."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock

FAILURES = 3  # in a row
PAUSE_SECONDS = 10.0


class Breaker:
    """Of this process. After the pause one call probes; the others are skipped until it has ended well."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._failures = 0
        self._closed_until = 0.0

    def admits(self) -> bool:
        """Whether to ask now. Whoever is told yes must say how it went."""
        with self._lock:
            if self._failures < FAILURES:
                return True
            now = self._clock()
            if now < self._closed_until:
                return False
            self._closed_until = now + PAUSE_SECONDS  # this one is the probe
            return True

    def learn(self, *, is_well: bool) -> None:
        with self._lock:
            self._failures = 0 if is_well else self._failures + 1
            if self._failures >= FAILURES:
                self._closed_until = self._clock() + PAUSE_SECONDS
