"""Whatever an endpoint answers, or drips, or does not: fifteen seconds, eight KiB, and no memory beyond that."""

from __future__ import annotations

import itertools
import socket
import threading
import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from webhooks import addresses, transport
from webhooks.transport import MAX_ANSWER_BYTES, Answer, post

OK = b"HTTP/1.1 200 OK\r\n"
MIB = 1024 * 1024


@contextmanager
def answering(chunks: Iterable[bytes], *, pause: float = 0) -> Iterator[str]:
    """A server that sends the chunks to its one caller until it hangs up; its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(65536)
            try:
                for chunk in chunks:
                    if over.wait(pause):
                        return
                    sock.sendall(chunk)
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        over.set()
        thread.join(60)
        listener.close()
        assert not thread.is_alive()


def ask(url: str, *, seconds: float = 60) -> Answer:
    return post(url, body=b"{}", headers={}, allow_private=True, seconds=seconds)


def test_a_body_of_a_gibibyte_costs_eight_kib() -> None:
    block = b"x" * MIB
    body = itertools.repeat(block, 1024)
    with answering(itertools.chain([OK + b"Content-Length: 1073741824\r\n\r\n"], body)) as url:
        tracemalloc.start()
        answer = ask(url)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (answer.status, answer.body) == (200, b"x" * MAX_ANSWER_BYTES)
    assert peak < 4 * MIB


def test_a_chunked_body_without_end_costs_eight_kib() -> None:
    head = OK + b"Transfer-Encoding: chunked\r\n\r\n"
    with answering(itertools.chain([head], itertools.repeat(b"400\r\n" + b"x" * 1024 + b"\r\n"))) as url:
        answer = ask(url)
    assert (answer.status, len(answer.body)) == (200, MAX_ANSWER_BYTES)


def test_a_packed_body_is_not_unpacked() -> None:
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n"
    with answering([head + b"\x1f\x8b\x08\x00"]) as url:
        assert ask(url).body == b"\x1f\x8b\x08\x00"


@pytest.mark.parametrize(
    "head",
    [
        b"X: " + b"y" * 60_000 + b"\r\n",
        b"".join(b"X-%d: " % number + b"y" * 6_000 + b"\r\n" for number in range(99)),
        b"".join(b"X-%d: y\r\n" % number for number in range(5_000)),
    ],
    ids=["one header of 60 kB", "99 headers of 6 kB", "5,000 headers"],
)
def test_a_bomb_of_headers_is_left_unread(head: bytes) -> None:
    with answering([OK, head, head]) as url:
        tracemalloc.start()
        answer = ask(url)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert answer.status is None
    assert answer.error
    assert not answer.is_silent
    assert peak < 4 * MIB


@pytest.mark.parametrize(
    "words",
    [
        b"",
        b"\x00\xff\xfe" * 1000,
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/9.9 hello\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"HTTP/1.1 -200 OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"x" * 70_000 + b"\r\n",
    ],
    ids=["nothing", "bytes", "ssh", "version", "status", "negative", "no status", "a long line"],
)
def test_garbage_is_a_failure_with_a_reason(words: bytes) -> None:
    with answering([words]) as url:
        answer = ask(url)
    assert (answer.status, answer.is_success, answer.is_silent) == (None, False, False)
    assert answer.error


def test_no_body_length_that_can_be_said_raises() -> None:
    for length in (b"-1", b"abc", b"9" * 40):
        with answering([OK + b"Content-Length: " + length + b"\r\n\r\nbody"]) as url:
            answer = ask(url)
        assert (answer.status, answer.error) == (200, "")


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        itertools.repeat(b"H"),
        itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["nothing", "letters", "100 Continue"],
)
def test_what_drips_ends_with_the_time_and_counts_as_silence(chunks: Iterable[bytes]) -> None:
    waiting = itertools.chain(chunks, iter(lambda: b"", None)) if chunks == [] else chunks
    with answering(waiting, pause=0.02) as url:
        answer = ask(url, seconds=0.6)
    assert (answer.status, answer.is_silent, answer.error) == (None, True, "no answer within 0.6 s")


def test_headers_that_drip_end_with_the_time_and_the_status_counts() -> None:
    with answering(itertools.chain([OK], itertools.repeat(b"X-Slow: y\r\n")), pause=0.05) as url:
        answer = ask(url, seconds=3)
    assert (answer.status, answer.body, answer.is_silent) == (200, b"", False)


def test_a_resolver_that_does_not_answer_ends_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        over.wait(120)
        return []

    monkeypatch.setattr(addresses.socket, "getaddrinfo", hang)
    try:
        answer = ask("http://hooks.example/", seconds=0.2)
    finally:
        over.set()
    assert (answer.status, answer.is_silent) == (None, True)


def test_a_connection_that_is_refused_is_no_silence() -> None:
    answer = ask("http://127.0.0.1:1/")
    assert (answer.status, answer.is_silent) == (None, False)


def test_the_time_that_is_asked_for_comes_with_the_answer() -> None:
    with answering([b"HTTP/1.1 503 Busy\r\nRetry-After: 77\r\nContent-Length: 0\r\n\r\n"]) as url:
        answer = ask(url)
    assert (answer.status, answer.retry_after) == (503, 77)
    assert transport.TOTAL_SECONDS == 15


def test_a_closed_port_and_an_unknown_name_are_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert ask(f"http://127.0.0.1:{port}/").error == "no connection: Connection refused"

    def find_nothing(*args: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", find_nothing)
    error = ask("https://nowhere.example/").error
    assert error == "the host's name has no address: Name or service not known"
