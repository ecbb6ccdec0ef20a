"""Runs one gateway alone until it is told to end, whichever of them it is."""

import argparse
import json
import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from .server import Running


def add_place(parser: argparse.ArgumentParser, *, port: int, data: str) -> None:
    """Where it answers, and where its books lie."""
    parser.add_argument("--port", type=int, default=port, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--data", type=Path, default=Path(data), help="folder of the books")
    parser.add_argument("--ready-file", type=Path, help="written as JSON, with the address, once it answers")


def serve_until_told(open_gateway: Callable[[], Running], options: argparse.Namespace, *, name: str) -> int:
    """Serve until SIGINT or SIGTERM; 0, or 1 when the books or the port are taken."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        running = open_gateway()
    except (sqlite3.OperationalError, OSError) as error:
        print(f"{name} cannot start on port {options.port} with the books in {options.data}: {error}")
        return 1
    print(f"{name} at {running.url}, books in {options.data}", flush=True)
    if options.ready_file:
        write_ready_file(options.ready_file, running.url)
    ended.wait()
    running.stop()
    return 0


def write_ready_file(path: Path, url: str) -> None:
    """Whole or not at all, so that a reader never sees half of it."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(json.dumps({"url": url, "pid": os.getpid()}))
    draft.replace(path)
