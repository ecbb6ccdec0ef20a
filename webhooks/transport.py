"""Sends one signed POST: to a pinned public address, without redirects, within a time and a size."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import certifi
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from payments.errors import InvalidRequestError
from webhooks.addresses import check_url, resolve_host

TOTAL_SECONDS = 15.0
CONNECT_SECONDS = 5.0
MAX_ANSWER_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint said; `status` is None when it said nothing, and then `error` says why."""

    status: int | None
    body: bytes = b""
    error: str = ""
    retry_after: int | None = None  # seconds
    duration_ms: int = 0

    @property
    def is_success(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def post(
    url: str, *, body: bytes, headers: Mapping[str, str], allow_private: bool, seconds: float = TOTAL_SECONDS
) -> Answer:
    """POST the body and read up to 8 KiB of the answer. Never raises for anything that an endpoint does."""
    started = time.monotonic()
    try:
        status, answer, retry_after = _exchange(url, body, headers, allow_private, started + seconds)
    except (OSError, HTTPError, ValueError, InvalidRequestError) as error:
        late = time.monotonic() - started >= seconds
        reason = f"no answer within {seconds:g} s" if late else f"{type(error).__name__}: {error}"
        return Answer(None, error=reason[:300], duration_ms=_milliseconds_since(started))
    return Answer(status, answer, retry_after=retry_after, duration_ms=_milliseconds_since(started))


def _exchange(
    url: str, body: bytes, headers: Mapping[str, str], allow_private: bool, deadline: float
) -> tuple[int, bytes, int | None]:
    scheme, host, port = check_url(url, allow_private=allow_private)
    connection = _connect(scheme, host, port, resolve_host(host, port, allow_private=allow_private), deadline)
    with _cut_off(connection, deadline):
        named = {"Host": urlsplit(url).netloc, **headers}
        connection.request("POST", _target(url), body=body, headers=named, preload_content=False)
        response = connection.getresponse()
        return (
            response.status,
            _read_start(response),
            _read_retry_after(response.headers.get("Retry-After", "")),
        )


def _connect(scheme: str, host: str, port: int, addresses: list[str], deadline: float) -> HTTPConnection:
    """A connection to the first address that takes one; the certificate is checked against the name."""
    failure: Exception = OSError(f"{host} has no address")
    for address in addresses:
        connection = _make_connection(scheme, host, port, address)
        connection.timeout = max(0.001, min(CONNECT_SECONDS, deadline - time.monotonic()))
        try:
            connection.connect()
        except (OSError, HTTPError) as error:
            failure = error
            connection.close()
        else:
            return connection
    raise failure


def _make_connection(scheme: str, host: str, port: int, address: str) -> HTTPConnection:
    if scheme == "http":
        return HTTPConnection(address, port)
    return HTTPSConnection(
        address,
        port,
        cert_reqs="CERT_REQUIRED",
        ca_certs=certifi.where(),
        server_hostname=host,
        assert_hostname=host,
    )


@contextmanager
def _cut_off(connection: HTTPConnection, deadline: float) -> Iterator[None]:
    """Ends the exchange at the deadline: a socket's own timeout begins anew with every byte that drips in."""
    seconds = max(0.001, deadline - time.monotonic())
    sock = connection.sock
    assert sock is not None
    sock.settimeout(seconds)
    timer = threading.Timer(seconds, _shut_down, [sock])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        connection.close()


def _shut_down(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:  # it has ended by itself
        return


def _read_start(response: BaseHTTPResponse) -> bytes:
    try:
        return response.read(MAX_ANSWER_BYTES, decode_content=False)
    except (OSError, HTTPError):  # the status has come, and the status alone decides
        return b""


def _read_retry_after(value: str) -> int | None:
    """Seconds; the date form is rare enough to be left to the schedule."""
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 10 else None


def _target(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _milliseconds_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
