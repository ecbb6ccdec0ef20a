"""The demo: it refuses where it must, hands out working keys, and comes and goes without a trace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.core.management.base import CommandError
from pytest_django import Settings

from config import demo_access, demo_receiver, embedded
from config.management.commands import demo
from payments.models import ApiKey
from webhooks.endpoints import rotate_secret, switch_off_endpoint
from webhooks.models import Endpoint

ROOT = Path(__file__).resolve().parents[2]
RECEIVER_LOG = Path(".local", "log", "receiver.log")
NOT_CODE = shutil.ignore_patterns(".venv", ".local", ".git", ".*_cache", ".hypothesis", "__pycache__", ".env")


def test_the_demo_refuses_to_run_in_production(settings: Settings) -> None:
    settings.PRODUCTION = True
    with pytest.raises(CommandError, match="does not run with DJANGO_ENV=production"):
        call_command("demo")


def test_the_demo_does_not_empty_a_database_that_is_not_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://somewhere/else")
    with pytest.raises(CommandError, match="--reset forgets embedded data only"):
        call_command("demo", "--reset", "--no-history")


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=f"Port {port} is taken"):
            demo.free_port(port)


def test_port_0_is_a_free_one() -> None:
    with socket.create_server(("127.0.0.1", demo.free_port(0))):
        pass


# --- logins and keys ----------------------------------------------------------------------------------------
@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(embedded, "LOCAL", tmp_path)
    monkeypatch.setattr(demo_access, "KEY_FILE", tmp_path / "secrets" / "demo_api_key")
    return tmp_path


def grant(local: Path) -> demo_access.Access:
    file = local / "demo.json"
    return demo_access.grant(
        url="http://site", sandbox_url="http://bank", webhook_secret="whsec_x", file=file
    )


@pytest.mark.django_db
def test_there_is_a_login_for_every_role_and_it_works(local: Path) -> None:
    access = grant(local)
    assert set(access.users) >= {"admin"}
    assert len(access.users) >= Group.objects.count()
    for login in access.users.values():
        user = authenticate(username=login.username, password=login.password)
        assert user is not None
        assert user.is_staff


@pytest.mark.django_db
def test_the_file_has_what_scripts_expect_and_only_its_owner_reads_it(local: Path) -> None:
    grant(local)
    file = local / "demo.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    content = json.loads(file.read_text())
    assert set(content) == {"url", "sandbox_url", "api_key", "webhook_path", "webhook_secret", "users"}
    assert set(content["users"]["admin"]) == {"username", "password", "totp_secret"}


@pytest.mark.django_db
def test_the_keys_are_the_same_at_the_next_start(local: Path) -> None:
    assert grant(local) == grant(local)


@pytest.mark.django_db
def test_a_key_that_the_database_does_not_know_is_replaced(local: Path) -> None:
    old = grant(local).api_key
    ApiKey.objects.all().delete()
    new = grant(local).api_key
    assert new != old
    assert ApiKey.objects.is_valid(new)


# --- the shop's webhook endpoint ----------------------------------------------------------------------------
def move_receiver(port: int) -> list[str]:
    return demo_access.endpoint_secrets(f"http://127.0.0.1:{port}{demo_receiver.PATH}")


@pytest.mark.django_db
def test_the_endpoint_moves_with_the_receiver_and_keeps_its_secret(local: Path) -> None:
    assert move_receiver(4001) == move_receiver(4002)
    endpoint = Endpoint.objects.get()
    assert endpoint.client.name == demo_access.CLIENT
    assert ":4002/" in endpoint.url


@pytest.mark.django_db
def test_while_a_secret_is_rotated_the_receiver_knows_both(local: Path) -> None:
    [old] = move_receiver(4001)
    new = rotate_secret(Endpoint.objects.get())
    assert move_receiver(4001) == [new, old]


@pytest.mark.django_db
def test_an_endpoint_that_was_switched_off_stays_so(local: Path) -> None:
    move_receiver(4001)
    switch_off_endpoint(Endpoint.objects.get(), actor="user:integrator")
    move_receiver(4002)
    assert not Endpoint.objects.get().is_enabled


# --- all of it ----------------------------------------------------------------------------------------------
@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT, copy, ignore=NOT_CODE, symlinks=True)
    yield copy
    for pid in processes_of(copy):
        os.kill(pid, signal.SIGKILL)
    monkeypatch.setattr(embedded, "CHECKOUT", copy)
    shutil.rmtree(embedded.socket_dir(), ignore_errors=True)


def start_demo(checkout: Path) -> subprocess.Popen[bytes]:
    ours = ("DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE")
    env = {name: value for name, value in os.environ.items() if name not in ours}
    command = [sys.executable, str(checkout / "manage.py"), "demo", "--no-history", "--port", "0"]
    with (checkout / "demo.out").open("wb") as output:
        return subprocess.Popen(command, cwd=checkout, env=env, stdout=output, stderr=subprocess.STDOUT)


def wait_for(condition: Callable[[], bool], running: subprocess.Popen[bytes], checkout: Path) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        said = (checkout / "demo.out").read_text()
        assert running.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(0.1)


def processes_of(checkout: Path) -> list[int]:
    """Every process with this checkout in its environment or on its command line."""
    mark, found = os.fsencode(checkout), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def place_order(access: dict[str, str]) -> dict[str, object]:
    body = {
        "reference": "first",
        "amount": 12950,
        "currency": "EUR",
        "payment_method": "pm_card_visa",
        "capture": "automatic",
        "customer": {"id": "cus_42", "email": "buyer@example.com"},
        "billing": {"country": "DE", "postal_code": "10115"},
        "shipping": {"country": "DE"},
        "lines": [{"sku": "MUG-1", "quantity": 2, "unit_amount": 6475}],
    }
    headers = {
        "Authorization": f"Bearer {access['api_key']}",
        "Idempotency-Key": "first-order-of-the-demo",
        "Content-Type": "application/json",
    }
    url = f"{access['url']}/api/v1/orders"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return dict(json.load(response))


@pytest.mark.journey
@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_demo_serves_ends_on_sigterm_and_survives_kill_9(checkout: Path) -> None:
    file = checkout / ".local" / "demo.json"

    first = start_demo(checkout)
    wait_for(file.exists, first, checkout)
    access = json.loads(file.read_text())
    with urllib.request.urlopen(f"{access['url']}/admin/login/", timeout=60) as page:
        assert page.status == 200
    assert place_order(access)["state"] == "paid"
    wait_for(lambda: " order.paid " in (checkout / RECEIVER_LOG).read_text(), first, checkout)
    first.kill()
    first.wait()
    wait_until_gone(checkout)

    second = start_demo(checkout)
    wait_for(lambda: file.exists() and json.loads(file.read_text())["url"] != access["url"], second, checkout)
    assert json.loads(file.read_text())["api_key"] == access["api_key"]
    second.terminate()
    assert second.wait(180) == 0
    assert processes_of(checkout) == []
    assert not file.exists()


def wait_until_gone(checkout: Path) -> None:
    deadline = time.monotonic() + 180
    while left := processes_of(checkout):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.1)
