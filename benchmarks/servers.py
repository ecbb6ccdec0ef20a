"""The servers that the HTTP benchmarks start: gunicorn with an application, and the sandbox gateway."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import ROOT


@dataclass(frozen=True)
class Server:
    """Where it listens, and the process that its workers are children of."""

    port: int
    pid: int


@contextmanager
def serving(
    application: str,
    environment: dict[str, str],
    *,
    python: str | Path = sys.executable,
    is_ready: Callable[[int], bool] | None = None,
) -> Iterator[Server]:
    """gunicorn (2 workers of 4 threads) with this application on a free port, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [python, "-m", "gunicorn", application, "--bind", f"127.0.0.1:{port}", "--log-level", "error"]
    process = subprocess.Popen(
        [*command, "--workers", "2", "--threads", "4", "--worker-class", "gthread", "--keep-alive", "30"],
        cwd=ROOT,
        env=environment,
    )
    try:
        wait_for(lambda: (is_ready or answers)(port))
        yield Server(port, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/")
    return connection.getresponse().status < 500


def wait_for(is_ready: Callable[[], bool], *, timeout: float = 180) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        try:
            if is_ready():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise TimeoutError("the server did not answer")


@contextmanager
def running_sandbox() -> Iterator[str]:
    """The sandbox gateway in a process of its own; its address."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        command = [sys.executable, "-m", "payments.sandbox", "--port", "0", "--data", f"{folder}/books"]
        process = subprocess.Popen(
            [*command, "--ready-file", str(ready)], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        try:
            wait_for(ready.exists, timeout=30)
            yield json.loads(ready.read_text())["url"]
        finally:
            process.terminate()
            process.wait(timeout=30)
