"""Storefronts that listen on this machine: healthy, broken, gone, busy, or silent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Storefront:
    """A real HTTP server; counts what it gets and how much of it is under way at once."""

    def __init__(self, status: int | None = 200, headers: dict[str, str] | None = None) -> None:
        self.status = status  # None: it never answers
        self.headers = headers or {}
        self.ids: list[str] = []
        self.under_way = 0
        self.most_under_way = 0
        self.url = ""
        self.closed = threading.Event()
        self._lock = threading.Lock()

    @contextmanager
    def counted(self, message_id: str) -> Iterator[None]:
        with self._lock:
            self.ids.append(message_id)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            yield
        finally:
            with self._lock:
                self.under_way -= 1


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        return  # who hung up is no news


@contextmanager
def opened(storefront: Storefront) -> Iterator[Storefront]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with storefront.counted(self.headers["webhook-id"]):
                if storefront.status is None:
                    wait_for_hang_up(self.connection, storefront.closed)
                    return
            self.send_response(storefront.status)
            for name, value in storefront.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = _Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    storefront.url = f"http://127.0.0.1:{server.server_address[1]}/"
    try:
        yield storefront
    finally:
        storefront.closed.set()
        server.shutdown()
        server.server_close()


def wait_for_hang_up(connection: socket.socket, closed: threading.Event) -> None:
    """Say nothing until the other side has gone, or the test is over."""
    connection.settimeout(0.1)
    while not closed.is_set():
        try:
            if not connection.recv(1):
                return
        except TimeoutError:
            continue
        except OSError:
            return
