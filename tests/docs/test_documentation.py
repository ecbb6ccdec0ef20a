"""The documentation is true: its examples run, its links lead somewhere, its commands and codes exist."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from django.core.management import get_commands
from pytest_django.live_server_helper import LiveServer

from config.processes import Process
from payments.api.errors import all_codes
from payments.sandbox import Sandbox, start
from tests.factories import ApiKeyFactory
from tests.factories.payments import ApiClientFactory, EventFactory, OrderFactory
from webhooks import outbound
from webhooks.endpoints import create_endpoint
from webhooks.models import Delivery, DeliveryState

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
)
# Tells which status each request got, in order, past whatever the example does with the body.
COUNTING = 'curl() { command curl -w \'%{stderr}%{http_code}\\n\' "$@" 2>>"$STATUSES"; }\n'


def read_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def sandbox(settings: Any) -> Iterator[Sandbox]:
    with start() as gateway:
        settings.STRIPE_API_BASE = gateway.url
        settings.STRIPE_API_KEY = "sk_test_sandbox"
        yield gateway


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["quickstart.md", "integrating.md"])
def test_every_request_of_the_page_is_answered_as_it_says(
    name: str, live_server: LiveServer, sandbox: Sandbox, tmp_path: Path
) -> None:
    script = "\n".join(read_blocks(ROOT / "docs" / name, "bash"))
    statuses = tmp_path / "statuses"
    key: Any = ApiKeyFactory.create()
    names = {"SHOP": live_server.url, "SANDBOX": sandbox.url, "KEY": key.secret}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", COUNTING + script],
        env=os.environ | names | {"STATUSES": str(statuses)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    promised = re.findall(r"# answers (\d{3})", script)
    assert promised
    assert statuses.read_text().split() == promised, done.stdout


@pytest.mark.django_db(transaction=True)
def test_the_receiver_takes_what_we_signed_and_refuses_the_rest(tmp_path: Path, settings: Any) -> None:
    settings.WEBHOOK_ALLOW_PRIVATE = True
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    client = ApiClientFactory.create()
    endpoint, secret = create_endpoint(client, url)
    script = tmp_path / "receiver.py"
    (source,) = read_blocks(ROOT / "docs" / "integrating.md", "python")
    script.write_text(source)
    env = os.environ | {"WEBHOOK_SECRET": secret, "PORT": str(port)}
    receiver = Process("receiver", [sys.executable, str(script)], log=tmp_path / "receiver.log", env=env)
    receiver.start()
    try:
        receiver.wait_until(lambda: listens(port), 30)
        order = OrderFactory.create(client=client, reference="1001")
        EventFactory.create(
            order=order, client=client, type="order.paid", data={"order": {"reference": "1001"}}
        )
        outbound.deliver_events()
        assert Delivery.objects.get(endpoint=endpoint).state == DeliveryState.DELIVERED
        forged = requests.post(
            url, data=json.dumps({"type": "order.paid"}), headers={"webhook-id": "x"}, timeout=10
        )
        assert forged.status_code == 400
    finally:
        receiver.stop()
    assert "order.paid 1001" in receiver.log.read_text()


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_the_error_table_says_what_the_api_says() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (\d{3}) \|", (ROOT / "docs" / "integrating.md").read_text(), re.MULTILINE
    )
    known = {code: str(status) for code, (status, _) in all_codes().items()}
    assert rows
    assert {code: known.get(code) for code, _ in rows} == dict(rows)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_targets_and_commands_exist(page: Path) -> None:
    text = page.read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [link for link in links if link and "://" not in link and not link.endswith(".png")]
    assert [link for link in local if not (page.parent / link).exists()] == []
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"\bmake ([a-z]+)`", text)) <= set(targets)
    assert set(re.findall(r"manage\.py ([a-z_]+)", text)) <= set(get_commands())
