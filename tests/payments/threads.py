"""Real threads with real connections, each closed before its thread ends."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connection

T = TypeVar("T")


def run_in_threads(work: Callable[[int], T], number: int) -> list[T]:
    """The results of `work(0)`, `work(1)`, ... at the same time; the first exception is raised."""

    def with_connection(index: int) -> T:
        try:
            return work(index)
        finally:
            connection.close()

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(with_connection, range(number)))
