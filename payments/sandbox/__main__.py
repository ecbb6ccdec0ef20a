"""Run the gateway alone: `python -m payments.sandbox --port 0 --data DIR`."""

import argparse
import json
import os
import signal
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from .server import Sandbox


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=8420, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--data", type=Path, default=Path(".local/sandbox"), help="folder of the books")
    parser.add_argument("--webhook-url", help="where events are delivered")
    parser.add_argument("--webhook-secret", help="signs the deliveries (whsec_...)")
    parser.add_argument("--ready-file", type=Path, help="written as JSON, with the address, once it answers")


def run(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; 0, or 1 when the books or the port are taken."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        sandbox = Sandbox(
            options.data,
            port=options.port,
            webhook_url=options.webhook_url,
            webhook_secret=options.webhook_secret,
        )
    except (sqlite3.OperationalError, OSError) as error:
        print(f"The sandbox cannot start on port {options.port} with the books in {options.data}: {error}")
        return 1
    print(f"Sandbox gateway at {sandbox.url}, books in {options.data}", flush=True)
    if options.ready_file:
        write_ready_file(options.ready_file, sandbox.url)
    ended.wait()
    sandbox.stop()
    return 0


def write_ready_file(path: Path, url: str) -> None:
    """Whole or not at all, so that a reader never sees half of it."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(json.dumps({"url": url, "pid": os.getpid()}))
    draft.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="sandbox", description="A card gateway that runs on this machine.")
    add_arguments(parser)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
