"""Waiting for a condition instead of a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PAUSE_SECONDS = 0.05
PATIENCE_SECONDS = 120.0  # costs time only where something is broken


def wait_until(look: Callable[[], T | None], *, seconds: float = PATIENCE_SECONDS, what: object = "") -> T:
    """Look until it is true, and return what was seen; fail with what was seen last when it never is."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        if time.monotonic() > deadline:
            described = what() if callable(what) else what
            raise AssertionError(f"not so after {seconds:g} s: {described or seen!r}")
        time.sleep(PAUSE_SECONDS)
    return seen
