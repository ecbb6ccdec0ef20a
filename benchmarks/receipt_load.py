"""Child of the receipt benchmark: signs and builds every request beforehand, then does little but send and wait.

Plain sockets and one thread, so that it takes as little as it can of the processors that the server needs. Without
`--rate` each connection sends its next request as soon as it has its answer. With it requests are due at random
moments (Poisson) whether or not the server keeps up, and a latency counts from the moment a request was due.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import random
import selectors
import socket
import statistics
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

END_OF_HEAD = b"\r\n\r\n"


def sign(body: bytes, secret: str) -> str:
    """The value of Stripe-Signature, of this moment."""
    stamp = str(int(time.time()))
    digest = hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={stamp},v1={digest}"


def build_request(body: bytes, *, secret: str, path: str) -> bytes:
    """One POST as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\n"
        f"Accept: */*\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        f"Stripe-Signature: {sign(body, secret)}\r\n\r\n"
    )
    return head.encode() + body


class Connection:
    """A keep-alive connection with at most one request under way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._answer = b""

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self._answer = b""
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Whether the answer is whole. Raises `RuntimeError` for any but a 200."""
        data = self.socket.recv(65536)
        self._answer += data
        if not data or not self._answer.startswith(b"HTTP/1.1 200"[: len(self._answer)]):
            raise RuntimeError(f"answered {self._answer[:500]!r}")
        return is_whole(self._answer)


def is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(END_OF_HEAD)
    if not end:
        return False
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b": ")
        if name == b"content-length":
            return len(body) >= int(value)
        if name == b"transfer-encoding":
            return body.endswith(b"0\r\n\r\n")
    raise RuntimeError(f"the answer does not say where it ends: {head!r}")


def drive(
    connections: Sequence[Connection], requests: Sequence[bytes], *, seconds: float, rate: float | None
) -> list[float]:
    """Send until the time or the requests are over; the latency of each answer in seconds."""
    free = deque(connections)
    latencies: list[float] = []
    clock = time.perf_counter
    moments = random.Random(1)
    # select() rather than epoll: its timeout is not rounded to milliseconds.
    with selectors.SelectSelector() as selector:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        start = due = clock()
        end, sent = start + seconds, 0
        while True:
            now = clock()
            while free and due <= now and due < end and sent < len(requests):
                free.popleft().send(requests[sent], due if rate else clock())
                sent += 1
                due = due + moments.expovariate(rate) if rate else clock()
            is_over = due >= end or sent == len(requests)
            if is_over and len(free) == len(connections):
                return latencies
            wait = max(due - now, 0) if free and not is_over else 10.0
            for key, _ in selector.select(wait):
                connection = key.data
                if connection.receive():
                    latencies.append(clock() - connection.due)
                    free.append(connection)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bodies", type=Path, help="one JSON document per line")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--secret", required=True)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rate", type=float)
    options = parser.parse_args()
    bodies = options.bodies.read_bytes().splitlines()
    requests = [build_request(body, secret=options.secret, path=options.path) for body in bodies]
    connections = [Connection(options.port) for _ in range(options.connections)]
    started, start, cpu = time.time(), time.perf_counter(), time.process_time()
    latencies = drive(connections, requests, seconds=options.seconds, rate=options.rate)
    spent, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(
        json.dumps(
            {
                "started": started,
                "done": len(latencies),
                "seconds": spent,
                "cpu": cpu,
                "p50": statistics.median(latencies),
                "p99": statistics.quantiles(latencies, n=100)[98],
            }
        )
    )


if __name__ == "__main__":
    main()
