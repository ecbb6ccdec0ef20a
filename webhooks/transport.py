"""Sends one signed POST: to a pinned public address, without redirects, within a time and a size."""

from __future__ import annotations

import io
import math
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import certifi
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError
from urllib3.response import BaseHTTPResponse
from urllib3.util.ssl_match_hostname import CertificateError

from payments.errors import InvalidRequestError
from webhooks.addresses import LOOKUP_SECONDS, check_url, resolve_host

TOTAL_SECONDS = 15.0
CONNECT_SECONDS = 5.0
MAX_ANSWER_BYTES = 8 * 1024
MAX_READ_BYTES = 64 * 1024  # of the whole answer, its headers included


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint said; `status` is None when it said nothing, and then `error` says why."""

    status: int | None
    body: bytes = b""
    error: str = ""
    retry_after: int | None = None  # seconds
    duration_ms: int = 0
    is_silent: bool = False  # nothing came in time; a refusal, or an answer of any kind, is no silence

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
    except (OSError, HTTPError, HTTPException, ValueError, InvalidRequestError) as error:
        late = time.monotonic() - started >= seconds
        reason = f"no answer within {seconds:g} s" if late else _describe(error)
        duration = _milliseconds_since(started)
        return Answer(None, error=reason[:300], duration_ms=duration, is_silent=late or _is_timeout(error))
    return Answer(status, answer, retry_after=retry_after, duration_ms=_milliseconds_since(started))


def _describe(error: Exception) -> str:
    """In words where the cause is a usual one: whoever runs the endpoint reads it, and knows none of our classes."""
    if isinstance(error, InvalidRequestError):
        return error.message
    if isinstance(error, socket.gaierror):
        return f"the host's name has no address: {error.strerror}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.verify_message}"
    if isinstance(error, CertificateError):
        return f"the certificate is not valid: {error}"
    if isinstance(error, NewConnectionError) and isinstance(error.__cause__, OSError):
        return f"no connection: {error.__cause__.strerror}"
    return f"{type(error).__name__}: {error}"


def _is_timeout(error: Exception) -> bool:
    # The library calls a refused connection a timeout too.
    is_refused = isinstance(error, NewConnectionError)
    return isinstance(error, (TimeoutError, ConnectTimeoutError)) and not is_refused


def _exchange(
    url: str, body: bytes, headers: Mapping[str, str], allow_private: bool, deadline: float
) -> tuple[int, bytes, int | None]:
    scheme, host, port = check_url(url, allow_private=allow_private)
    left = deadline - time.monotonic()
    addresses = resolve_host(host, port, allow_private=allow_private, seconds=min(LOOKUP_SECONDS, left))
    connection = _connect(scheme, host, port, addresses, deadline)
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
        connection.response_class = _BoundedResponse
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


class _BoundedResponse(HTTPResponse):
    """Stops reading after 64 KiB, whatever the headers are: the library would keep 100 of 64 KiB each."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Bounded(self.fp))


class _Bounded(io.RawIOBase):
    def __init__(self, source: io.BufferedReader) -> None:
        self._source = source
        self._left = MAX_READ_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left <= 0:
            raise OSError(f"the answer has more than {MAX_READ_BYTES} bytes before its body ends")
        read = self._source.readinto1(memoryview(buffer)[: self._left])
        self._left -= read
        return read

    def close(self) -> None:
        self._source.close()
        super().close()


def _read_start(response: BaseHTTPResponse) -> bytes:
    try:
        return response.read(MAX_ANSWER_BYTES, decode_content=False)
    except (OSError, HTTPError):  # the status has come, and the status alone decides
        return b""


def _read_retry_after(value: str) -> int | None:
    """Seconds from now, of either form that RFC 9110 knows; None for anything else, and for the past."""
    if value.isascii() and value.isdecimal():
        return int(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    seconds = math.ceil(aware.timestamp() - time.time())
    return seconds if seconds > 0 else None


def _target(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _milliseconds_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
