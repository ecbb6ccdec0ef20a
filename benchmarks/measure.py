"""What the benchmarks share: a scratch database, worker threads, and tables with ratios."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg import conninfo

ROOT = Path(__file__).resolve().parent.parent


def server_url() -> str:
    return os.environ["DATABASE_URL"]


def scratch_url(name: str) -> str:
    """A fresh, empty database of this name beside the one in DATABASE_URL."""
    with psycopg.connect(server_url(), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        connection.execute(f'CREATE DATABASE "{name}"')
        # The embedded server may answer before the disk has it; what is called durable here is on the disk.
        connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = on')
    head, _, query = server_url().partition("?")
    base = head.rsplit("/", 1)[0]
    return f"{base}/{name}" + (f"?{query}" if query else "")


def drop_scratch(name: str) -> None:
    with psycopg.connect(server_url(), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def pgbench_arguments(url: str) -> list[str]:
    """Host, port, user and database of a URL, as pgbench's options."""
    parts = conninfo.conninfo_to_dict(url)
    named = [("-h", "host"), ("-p", "port"), ("-U", "user")]
    options = [text for flag, name in named if parts.get(name) for text in (flag, str(parts[name]))]
    return [*options, str(parts["dbname"])]


def in_threads(
    work: Callable[[], Any], *, threads: int, count: int, done: Callable[[], Any] | None = None
) -> float:
    """Operations per second of `count` calls of `work` shared by `threads`; `done` ends each thread."""
    left = iter(range(count))
    lock = threading.Lock()
    barrier = threading.Barrier(threads + 1)

    def loop() -> None:
        barrier.wait()
        while True:
            with lock:
                if next(left, None) is None:
                    break
            work()
        if done:
            done()

    workers = [threading.Thread(target=loop) for _ in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    start = time.perf_counter()
    for worker in workers:
        worker.join()
    return count / (time.perf_counter() - start)


def run_child(module: str, *arguments: str, environment: dict[str, str] | None = None) -> dict[str, float]:
    """Run a benchmark's child process; its last line is JSON of name and rate."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LOG_LEVEL": "ERROR", **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(
    title: str,
    rows: Sequence[tuple[str, Sequence[float]]],
    *,
    base: str,
    unit: str,
    aims: Mapping[str, float],
    note: str = "",
) -> None:
    """Medians, ranges, the ratio to the row named `base`, and what we aim at, row by row."""
    medians = {name: statistics.median(values) for name, values in rows}
    print(f"\n{title}\n")
    print(f"| {'':44} | {unit:>10} | {'range':>15} | times {base} | aim  |")
    print(f"|{'-' * 46}|{'-' * 11}:|{'-' * 16}:|{'-' * (len(base) + 7)}:|-----:|")
    for name, values in rows:
        spread = f"{min(values):.0f}..{max(values):.0f}"
        ratio = medians[name] / medians[base]
        aim = f"{aims[name]:.2f}" if name in aims else ""
        print(f"| {name:44} | {medians[name]:10.0f} | {spread:>15} | {ratio:{len(base) + 6}.2f} | {aim:>4} |")
    print(f"\n{note}\n" if note else "")


class CpuMeter:
    """CPU seconds that a server's processes and the backends of one database spend from here on.

    Read from /proc, so for a PostgreSQL on this machine alone. What the server does for everybody (writing the log
    and the pages out) belongs to no database and is left out.
    """

    def __init__(self, url: str, *roots: int) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._roots = roots
        self._before = self._read()

    def read(self) -> tuple[float, float]:
        """Of the processes, and of the backends."""
        now = self._read()
        self._connection.close()
        return tuple(
            sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())
            for before, after in zip(self._before, now, strict=True)
        )

    def _read(self) -> tuple[dict[int, float], dict[int, float]]:
        backends = self._connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return (
            {pid: cpu_seconds(pid) for root in self._roots for pid in [root, *find_children(root)]},
            {pid: cpu_seconds(pid) for (pid,) in backends},
        )


def cpu_seconds(pid: int) -> float:
    fields = _read_stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def find_children(parent: int) -> list[int]:
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in numbers if (fields := _read_stat(pid)) and int(fields[1]) == parent]


def _read_stat(pid: int) -> list[str]:
    """The fields behind the program's name: state, parent, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
