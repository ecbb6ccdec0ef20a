"""The HTTP side of the gateway: a threaded server on loopback, and the ways in which it refuses to answer."""

import hashlib
import json
import re
import select
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from .books import new_id
from .gateway import Gateway, Response, json_response
from .webhooks import set_endpoint
from .wire import ApiError, Doc, Request, invalid, parse_form, parse_multipart

MAX_BODY = 6 << 20
HANG_SECONDS = 60
GRACE_SECONDS = 5


def find_boundary(content_type: str) -> str:
    """Of a multipart form; "" for any other content."""
    found = re.match(r"multipart/form-data; *boundary=\"?([^ ;\"]+)", content_type)
    return found[1] if found else ""


class Answering(Protocol):
    """Whoever has an answer to every request."""

    def handle(self, request: Request) -> Response: ...


class Server(ThreadingHTTPServer):
    """Holds the gateway that its handlers answer with."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self, address: tuple[str, int], gateway: Answering) -> None:
        super().__init__(address, Handler)
        self.gateway = gateway
        self.stopping = threading.Event()
        self.silences = 0  # the requests that were left without an answer, each after all that it did
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._open.add(request)
        try:
            super().finish_request(request, client_address)
        finally:
            with self._changed:
                self._open.discard(request)
                self._changed.notify_all()

    def fall_silent(self) -> None:
        with self._changed:
            self.silences += 1
            self._changed.notify_all()

    def await_silence(self, number: int, *, seconds: float) -> bool:
        """Whether so many requests have been left without an answer by then: a client may give up before."""
        with self._changed:
            return self._changed.wait_for(lambda: self.silences >= number, timeout=seconds)

    def end_connections(self) -> None:
        """Let answers that are being made be sent, and take no further request on any connection."""
        self.stopping.set()
        with self._changed:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
            self._changed.wait_for(lambda: not self._open, timeout=GRACE_SECONDS)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing to report; all else is."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "Sandbox"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = 75
    server: Server

    def do_GET(self) -> None:
        request_id = new_id("req")
        try:
            request = self.read_request(request_id)
        except ApiError as error:
            self.close_connection = True
            return self.reply(json_response(error.status, error.body), request_id)
        response = self.server.gateway.handle(request)
        if response.ending:
            return self.hang() if response.ending == "hang" else self.reset()
        if request.idempotency_key:
            response.headers["Idempotency-Key"] = request.idempotency_key
        return self.reply(response, request_id)

    do_POST = do_DELETE = do_GET

    def read_request(self, request_id: str) -> Request:
        """Raises ApiError 400 for what cannot be read."""
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY or "Transfer-Encoding" in self.headers:
            raise invalid(f"A body needs a Content-Length of at most {MAX_BODY} bytes.")
        body = self.rfile.read(int(length))
        parts = urlsplit(self.path)
        key = self.headers.get("Idempotency-Key")
        if key is not None and not 0 < len(key) <= 255:
            raise invalid("Idempotency keys have 1 to 255 characters.")
        now = self.headers.get("X-Sandbox-Now")
        if now is not None and not now.isdecimal():
            raise invalid("X-Sandbox-Now is a time in Unix seconds.")
        return Request(
            method=self.command,
            path=parts.path,
            params=self.parse_params(parts.query, body),
            headers={name.lower(): value for name, value in self.headers.items()},
            base_url=f"http://{self.headers.get('Host', 'localhost')}",
            id=request_id,
            idempotency_key=key,
            fingerprint=self.take_fingerprint(body),
            now=int(now) if now else None,
        )

    def take_fingerprint(self, body: bytes) -> str:
        """The same for the same parameters: the boundary of a multipart body is another one each time."""
        if boundary := find_boundary(self.headers.get("Content-Type", "")):
            body = body.replace(boundary.encode(), b"")
        return hashlib.sha256(f"{self.command} {self.path}\n".encode() + body).hexdigest()

    def parse_params(self, query: str, body: bytes) -> Doc:
        params = parse_form(query)
        kind = self.headers.get("Content-Type", "")
        try:
            if boundary := find_boundary(kind):
                return params | parse_multipart(body, boundary)
            text = body.decode()
            if "json" not in kind:
                return params | parse_form(text)
            document = json.loads(text or "{}")
        except ValueError:
            raise invalid("The body could not be read.") from None
        if not isinstance(document, dict):
            raise invalid("The body must be a JSON object.")
        return params | document

    def reply(self, response: Response, request_id: str) -> None:
        body = response.body.encode() if isinstance(response.body, str) else response.body
        self.send_response(response.status)
        headers = {"Content-Type": "application/json", "Request-Id": request_id, **response.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def hang(self) -> None:
        """Say nothing until the client gives up, at most a minute."""
        self.close_connection = True
        self.server.fall_silent()
        deadline = time.monotonic() + HANG_SECONDS
        while time.monotonic() < deadline and not self.server.stopping.is_set():
            readable, _, _ = select.select([self.connection], [], [], 0.2)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                return

    def reset(self) -> None:
        """End the connection with a TCP reset: a linger time of zero sends RST instead of FIN."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: the books are the log."""


class Books(Answering, Protocol):
    """A gateway that can be closed."""

    def close(self) -> None: ...


class Running:
    """A gateway that answers on loopback, whichever it is: its address and its end."""

    def __init__(
        self, gateway: Books, *, port: int, handler: type[Handler] = Handler, name: str = "sandbox"
    ) -> None:
        self._books = gateway
        self.server = Server(("127.0.0.1", port), gateway)
        self.server.RequestHandlerClass = handler
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(
            target=self.server.serve_forever, args=(0.05,), name=name, daemon=True
        )

    def serve(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End it; to end it twice does nothing more."""
        if self.server.stopping.is_set():
            return
        self.server.shutdown()
        self.server.server_close()
        self.server.end_connections()
        self._books.close()
        self._thread.join()


class Sandbox(Running):
    """A running gateway that speaks Stripe's protocol."""

    def __init__(
        self, data: Path, *, port: int = 0, webhook_url: str | None = None, webhook_secret: str | None = None
    ) -> None:
        self.gateway = Gateway(data)
        super().__init__(self.gateway, port=port)
        if webhook_url:
            with self.gateway.books.session() as session:
                set_endpoint(session, webhook_url, webhook_secret)
        self.gateway.deliverer.start()
        self.serve()


AnyRunning = TypeVar("AnyRunning", bound=Running)


@contextmanager
def run_for_a_block(
    open_gateway: Callable[..., AnyRunning], data: Path | str | None, **options: Any
) -> Iterator[AnyRunning]:
    """A gateway of this process for the length of a block; without `data` its books vanish afterwards."""
    with tempfile.TemporaryDirectory() as temporary:
        running = open_gateway(Path(data or temporary), **options)
        try:
            yield running
        finally:
            running.stop()


def start(
    data: Path | str | None = None,
    *,
    port: int = 0,
    webhook_url: str | None = None,
    webhook_secret: str | None = None,
) -> AbstractContextManager[Sandbox]:
    """Run a gateway in this process for the length of a block; without `data` its books vanish afterwards."""
    return run_for_a_block(Sandbox, data, port=port, webhook_url=webhook_url, webhook_secret=webhook_secret)
