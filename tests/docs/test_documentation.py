"""The documentation is true: its examples run, its links lead somewhere, its commands and codes exist."""

from __future__ import annotations

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
from django.utils import timezone
from pytest_django.live_server_helper import LiveServer

from config.processes import Process
from payments.api.errors import all_codes
from payments.events import CATALOGUE
from payments.models import Event
from payments.runbook import make_slug
from payments.sandbox import Sandbox, start
from tests.factories import ApiKeyFactory
from tests.factories.payments import ApiClientFactory, OrderFactory
from webhooks import outbound
from webhooks.endpoints import create_endpoint, resend_delivery, send_test
from webhooks.models import Delivery, DeliveryAttempt, DeliveryState, Endpoint

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
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    promised = re.findall(r"# answers (\d{3})", script)
    assert promised
    assert statuses.read_text().split() == promised, done.stdout


@pytest.fixture
def receiver(tmp_path: Path, settings: Any) -> Iterator[tuple[Process, Endpoint]]:
    """The page's receiver, running as it stands, with an endpoint that leads there."""
    settings.WEBHOOK_ALLOW_PRIVATE = True
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint, secret = create_endpoint(ApiClientFactory.create(), f"http://127.0.0.1:{port}/")
    script = tmp_path / "receiver.py"
    (source,) = read_blocks(ROOT / "docs" / "integrating.md", "python")
    script.write_text(source)
    env = os.environ | {"WEBHOOK_SECRET": secret, "PORT": str(port), "INBOX": str(tmp_path / "inbox.db")}
    process = Process("receiver", [sys.executable, str(script)], log=tmp_path / "receiver.log", env=env)
    process.start()
    try:
        process.wait_until(lambda: listens(port), 120)
        yield process, endpoint
    finally:
        process.stop()


@pytest.mark.django_db(transaction=True)
def test_the_receiver_takes_each_message_once_and_the_newest_last(
    receiver: tuple[Process, Endpoint],
) -> None:
    process, endpoint = receiver
    order = OrderFactory.create(client=endpoint.client, reference="1001")
    placed, paid = (
        Event.objects.record(order, kind, data={"order": {"id": order.pk, "reference": "1001"}})
        for kind in ("order.placed", "order.paid")
    )
    Delivery.objects.create(endpoint=endpoint, event=paid, next_try_at=timezone.now())
    outbound.deliver_due()
    outbound.deliver_events()  # the earlier event comes later
    for delivery in Delivery.objects.all():
        assert delivery.state == DeliveryState.DELIVERED
        resend_delivery(delivery)
    outbound.deliver_due()
    assert Delivery.objects.filter(state=DeliveryState.DELIVERED).count() == 2
    assert {one.delivery.event_id for one in DeliveryAttempt.objects.filter(status=204)} == {
        placed.pk,
        paid.pk,
    }
    assert DeliveryAttempt.objects.filter(status=204).count() == 4
    told = [line for line in process.log.read_text().splitlines() if line.startswith("order.")]
    assert told == ["order.paid 1001 2"]


@pytest.mark.django_db(transaction=True)
def test_the_receiver_refuses_what_was_tampered_with(receiver: tuple[Process, Endpoint]) -> None:
    _, endpoint = receiver
    delivery = send_test(endpoint)
    message = outbound.make_message(delivery, [endpoint.secrets.get().value])
    later = str(int(message.headers["webhook-timestamp"]) + 1)
    for body, changed in (
        (message.body.replace(b"endpoint.test", b"endpoint.tests"), {}),
        (message.body, {"webhook-id": "msg_other"}),
        (message.body, {"webhook-timestamp": later}),
        (message.body, {"webhook-signature": "v1,AAAA"}),
        (b"{}", {"webhook-id": "", "webhook-timestamp": "soon"}),
    ):
        answer = requests.post(endpoint.url, data=body, headers=message.headers | changed, timeout=60)
        assert answer.status_code == 400
    whole = requests.post(endpoint.url, data=message.body, headers=message.headers, timeout=60)
    assert whole.status_code == 204


def test_the_table_of_events_is_the_catalogue() -> None:
    rows = re.findall(
        r"^\| `(\w+\.\w+)` \| (.+) \|$", (ROOT / "docs" / "integrating.md").read_text(), re.MULTILINE
    )
    assert rows == [(kind.name, kind.description) for kind in CATALOGUE.values()]


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


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_into_a_page_meets_a_heading(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s#:]*)#([^)\s]+)\)", page.read_text())
    dead = [
        f"{name}#{slug}"
        for name, slug in links
        if slug not in read_slugs(page.parent / name if name else page)
    ]
    assert dead == []


def read_slugs(page: Path) -> set[str]:
    return {make_slug(heading) for heading in re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)}
