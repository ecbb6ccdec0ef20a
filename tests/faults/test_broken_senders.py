"""Senders that lie about lengths, stop in the middle or drip over a real socket: none breaks the receipt."""

from __future__ import annotations

import json
import random
import socket
import time
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from tests.journeys.shop import WEB_THREADS, WEBHOOK_PATH, Shop
from webhooks.verifiers import stripe

pytestmark = pytest.mark.faults

SECONDS = 120
FUZZED = 150


def make_body(event_id: str) -> bytes:
    event = {"id": event_id, "type": "customer.updated", "created": 1_800_000_000, "data": {"object": {}}}
    return json.dumps(event).encode()


def make_head(shop: Shop, body: bytes, *lines: str) -> bytes:
    signature = stripe.sign(body, secret=shop.webhook_secret, timestamp=int(time.time()))
    head = [
        f"POST {WEBHOOK_PATH} HTTP/1.1",
        f"Host: {urlsplit(shop.url).netloc}",
        "Connection: close",
        f"Stripe-Signature: {signature}",
        *lines,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n"


def open_socket(shop: Shop) -> socket.socket:
    address = urlsplit(shop.url)
    assert address.hostname
    assert address.port
    return socket.create_connection((address.hostname, address.port), timeout=SECONDS)


def talk(shop: Shop, *pieces: bytes, hang_up: bool = True) -> int:
    """Send the pieces and read the status; 0 when the server only closed the connection."""
    with open_socket(shop) as sender:
        for piece in pieces:
            try:
                sender.sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                break
        if hang_up:
            sender.shutdown(socket.SHUT_WR)
        return read_status(sender)


def read_status(sender: socket.socket) -> int:
    try:
        answer = sender.recv(65536)
    except ConnectionResetError:
        return 0
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def in_chunks(body: bytes, size: int = 7) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])


def count_kept(shop: Shop) -> int:
    [(kept,)] = shop.sql("SELECT count(*) FROM webhooks_inboundwebhook WHERE event_id LIKE 'evt_socket%'")
    return int(kept)


def test_a_body_in_chunks_is_taken(shop: Shop) -> None:
    body = make_body("evt_socket_chunks")
    before = count_kept(shop)
    assert talk(shop, make_head(shop, body, "Transfer-Encoding: chunked"), in_chunks(body)) == 200
    assert count_kept(shop) == before + 1


def test_chunks_without_an_end_are_cut_off(shop: Shop) -> None:
    body = b"x" * 10_000_000
    head = make_head(shop, body, "Transfer-Encoding: chunked")
    assert talk(shop, head, in_chunks(body[:400_000], 4096), hang_up=False) == 413


def test_ten_megabytes_are_refused(shop: Shop) -> None:
    body = b"x" * 10_000_000
    head = make_head(shop, body, f"Content-Length: {len(body)}")
    assert talk(shop, head, body[:400_000], hang_up=False) == 413


@pytest.mark.parametrize(
    "broken",
    [
        b"zz\r\nabc\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"-5\r\nabc",
        b"5\r\nab",
        b"5;x=" + b"y" * 50_000 + b"\r\nabcde\r\n0\r\n\r\n",
        b"",
    ],
)
def test_broken_chunks_are_refused(shop: Shop, broken: bytes) -> None:
    before = count_kept(shop)
    head = make_head(shop, b"", "Transfer-Encoding: chunked")
    assert talk(shop, head, broken) in (0, 400, 413)
    assert count_kept(shop) == before


@pytest.mark.parametrize(
    ("lines", "statuses"),
    [
        (["Content-Length: 40"], (0, 400)),  # less than there is
        (["Content-Length: 100000"], (0, 400)),  # and then it hangs up
        (["Content-Length: -1"], (0, 400)),
        (["Content-Length: many"], (0, 400)),
        (["Content-Length: 40", "Content-Length: 41"], (0, 400)),
        (["Content-Length: 40", "Transfer-Encoding: chunked"], (0, 400)),
        (["Transfer-Encoding: gzip, chunked"], (0, 400, 501)),
        ([], (0, 400)),
    ],
)
def test_a_length_that_lies_is_refused(shop: Shop, lines: list[str], statuses: tuple[int, ...]) -> None:
    body = make_body("evt_socket_lies")
    before = count_kept(shop)
    status = talk(shop, make_head(shop, body, *lines), body[:-1])
    assert status in statuses
    assert count_kept(shop) == before


def test_senders_that_stop_in_the_middle_keep_nobody_else_waiting(shop: Shop) -> None:
    """One thread fewer than there are: the last one serves everybody meanwhile."""
    body = make_body("evt_socket_slow")
    head = make_head(shop, body, f"Content-Length: {len(body)}")
    with ExitStack() as stack:
        stuck = [stack.enter_context(open_socket(shop)) for _ in range(WEB_THREADS - 1)]
        for sender in stuck:
            sender.sendall(head + body[:10])
        other = make_body("evt_socket_other")
        assert talk(shop, make_head(shop, other, f"Content-Length: {len(other)}"), other) == 200
        for byte in body[10:]:
            stuck[0].sendall(bytes([byte]))
        assert read_status(stuck[0]) == 200, "slow and whole is taken"


def test_garbage_on_the_wire_never_breaks_the_receipt(shop: Shop) -> None:
    chance = random.Random("socket")
    before = count_kept(shop)
    statuses = set()
    for _ in range(FUZZED):
        body = make_body("evt_socket_garbage")
        whole = bytearray(make_head(shop, body, f"Content-Length: {len(body)}") + body)
        for _ in range(chance.randrange(1, 6)):
            whole[chance.randrange(len(whole))] = chance.randrange(256)
        cut = chance.randrange(len(whole)) if chance.random() < 0.3 else len(whole)
        statuses.add(talk(shop, bytes(whole[:cut])))
    assert max(statuses) < 500, statuses
    assert count_kept(shop) <= before + 1, "at most the event itself, when the damage was harmless"
    assert "Traceback" not in (shop.folder / "web.log").read_text()
