"""The demo shop's receiver: it takes what the site signs for it, and nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from config import demo_receiver
from config.management.commands import demo
from webhooks.signatures import generate_secret
from webhooks.transport import post

ROOT = Path(__file__).resolve().parents[2]
BODY = '{"type":"order.paid","timestamp":"2026-05-04T10:00:00Z","data":{}}'


@dataclass
class Shop:
    url: str
    secret: str
    log: Path

    def tell(self, *, secret: str, body: str = BODY, at: datetime | None = None) -> int | None:
        """Send it as the site does, signed by somebody else's implementation of the specification."""
        at = at or datetime.now(UTC)
        headers = {
            "webhook-id": "msg_1",
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(secret).sign("msg_1", at, BODY),
        }
        return post(self.url, body=body.encode(), headers=headers, allow_private=True).status


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    port, secret = demo.free_port(0), generate_secret()
    log = tmp_path_factory.mktemp("receiver") / "log"
    command = [sys.executable, "-m", "config.demo_receiver", "--port", str(port)]
    env = os.environ | {demo_receiver.SECRETS: f"{generate_secret()} {secret}"}
    with log.open("wb") as output, subprocess.Popen(command, cwd=ROOT, env=env, stdout=output) as process:
        deadline = time.monotonic() + 120
        while not listens(port):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield Shop(f"http://127.0.0.1:{port}{demo_receiver.PATH}", secret, log)
        process.terminate()


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_a_signed_message_is_taken_and_told_in_one_line(shop: Shop) -> None:
    assert shop.tell(secret=shop.secret) == 204
    assert shop.log.read_text().splitlines()[-1] == "2026-05-04T10:00:00Z order.paid msg_1"


def test_another_secret_is_refused(shop: Shop) -> None:
    assert shop.tell(secret=generate_secret()) == 400


def test_a_changed_body_is_refused(shop: Shop) -> None:
    assert shop.tell(secret=shop.secret, body=BODY.replace("paid", "void")) == 400


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_message_from_another_time_is_refused(shop: Shop, minutes: int) -> None:
    assert shop.tell(secret=shop.secret, at=datetime.now(UTC) + timedelta(minutes=minutes)) == 400


@pytest.mark.parametrize("headers", [{}, {"webhook-timestamp": "soon"}, {"Content-Length": "9999999999"}])
def test_what_is_no_webhook_is_refused(shop: Shop, headers: dict[str, str]) -> None:
    assert post(shop.url, body=b"{}", headers=headers, allow_private=True).status == 400
    assert shop.log.read_text().splitlines()[-1] == "refused: not signed for this shop"
