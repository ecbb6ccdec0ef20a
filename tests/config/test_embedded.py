"""The embedded servers: addresses without starting anything, one owner, no trace after the worst end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from cryptography.fernet import Fernet

from config import embedded

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import os, sys, time
from config import embedded
with embedded.running(fast=True) as servers:
    print(*(process.child.pid for process in servers.processes), flush=True)
    sys.stdin.read()
"""
needs_servers = pytest.mark.skipif(not embedded.redis_binary(), reason="no wheels for this platform")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout far from the root, whose servers are nobody else's."""
    deep = tmp_path.joinpath(*["a-folder-with-a-rather-long-name"] * 4)
    deep.mkdir(parents=True)
    monkeypatch.setattr(embedded, "CHECKOUT", deep)
    monkeypatch.setattr(embedded, "LOCAL", deep / ".local")
    yield deep
    shutil.rmtree(embedded.socket_dir(fast=True), ignore_errors=True)


@pytest.fixture
def copy(checkout: Path) -> Path:
    """The same with the code in it, for processes of their own."""
    (checkout / "config").mkdir()
    for name in ("__init__.py", "embedded.py", "processes.py"):
        source = "" if name == "__init__.py" else (ROOT / "config" / name).read_text()
        (checkout / "config" / name).write_text(source)
    return checkout


def start_holder(copy: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD],
        cwd=copy,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ask(servers: embedded.Servers) -> tuple[int, bool]:
    with psycopg.connect(servers.database_url) as connection:
        row = connection.execute("SELECT 41 + 1").fetchone()
    assert row is not None
    return int(row[0]), bool(redis.Redis.from_url(servers.redis_url).ping())


def start_refused(why: str) -> None:
    with pytest.raises(embedded.EmbeddedError, match=why), embedded.running(fast=True):
        pass


# --- addresses and secrets ----------------------------------------------------------------------------------
def test_addresses_start_nothing_and_fit_into_a_socket_name(checkout: Path) -> None:
    assert embedded.database_url().endswith(f"?host={embedded.socket_dir()}")
    assert len(f"{embedded.socket_dir(fast=True)}/.s.PGSQL.5432.lock") < 108
    assert not embedded.socket_dir().exists()
    assert not embedded.LOCAL.exists()


def test_two_checkouts_and_their_tests_do_not_share_sockets(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {embedded.socket_dir(), embedded.socket_dir(fast=True)}
    monkeypatch.setattr(embedded, "CHECKOUT", checkout / "other")
    assert len(here | {embedded.socket_dir(), embedded.socket_dir(fast=True)}) == 4


def test_a_secret_is_made_once_and_readable_by_its_owner_alone(checkout: Path) -> None:
    secret = embedded.local_secret("secret_key")
    assert len(secret) >= 64
    assert embedded.local_secret("secret_key") == secret
    assert embedded.local_secret("other") != secret
    path = embedded.LOCAL / "secrets" / "secret_key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir() if entry.name.startswith(".")] == []


def test_the_encryption_key_is_a_fernet_key(checkout: Path) -> None:
    fernet = Fernet(embedded.local_secret("encryption_key"))
    assert fernet.decrypt(fernet.encrypt(b"x")) == b"x"


@pytest.mark.parametrize(
    ("redis_url", "broker"),
    [
        ("redis://cache:6379/1", "redis://cache:6379/1"),
        ("rediss://cache:6379/1", "rediss://cache:6379/1"),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock"),
    ],
)
def test_celery_gets_its_own_spelling_of_a_redis_url(redis_url: str, broker: str) -> None:
    assert embedded.broker_url(redis_url) == broker
    assert embedded.broker_options(redis_url)["visibility_timeout"] == 120


def test_without_redis_celery_passes_messages_through_files(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "redis_binary", lambda: None)
    assert embedded.redis_url() == ""
    assert embedded.broker_url("") == "filesystem://"
    options = embedded.broker_options("")
    assert options["data_folder_in"] == options["data_folder_out"]
    assert Path(options["data_folder_in"]).is_relative_to(checkout / ".local" / "broker")


def test_production_is_never_given_an_embedded_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_ENV", "production")
    with pytest.raises(embedded.EmbeddedError, match="DATABASE_URL is not set"):
        embedded.database_url()
    with pytest.raises(embedded.EmbeddedError, match="REDIS_URL is not set"):
        embedded.redis_url()


def test_every_variable_of_the_settings_is_in_the_example() -> None:
    read = re.findall(r'env\.\w+\(\s*"([A-Z_]+)"', (ROOT / "config" / "settings.py").read_text())
    told = re.findall(r"^#? ?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert read
    assert sorted(set(read) - set(told)) == []


@pytest.mark.parametrize(("action", "starts"), [("capture", True), ("keep", False), ("", False)])
def test_a_hold_action_that_nobody_knows_stops_the_start(action: str, starts: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import config.settings"],
        cwd=ROOT,
        env=os.environ | {"HOLD_ACTION": action},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode == 0) == starts, done.stderr
    assert starts or f"HOLD_ACTION must be cancel or capture, not {action!r}" in done.stderr


# --- starting and stopping ----------------------------------------------------------------------------------
@needs_servers
def test_the_servers_answer_and_leave_nothing_behind(checkout: Path) -> None:
    with embedded.running(fast=True) as servers:
        assert ask(servers) == (42, True)
        assert stat.S_IMODE(embedded.socket_dir(fast=True).stat().st_mode) == 0o700
    assert [process.running() for process in servers.processes] == [False, False]
    assert not embedded.socket_dir(fast=True).exists()
    assert not (embedded.LOCAL / "pg-test" / "postmaster.pid").exists()


@needs_servers
def test_data_is_kept_for_the_next_start_until_it_is_reset(checkout: Path) -> None:
    with (
        embedded.running(fast=True, redis=False) as servers,
        psycopg.connect(servers.database_url) as connection,
    ):
        connection.execute("CREATE TABLE kept ()")
    with (
        embedded.running(fast=True, redis=False) as servers,
        psycopg.connect(servers.database_url) as connection,
    ):
        assert connection.execute("SELECT to_regclass('kept')::text").fetchone() == ("kept",)
    embedded.reset(fast=True)
    assert not (embedded.LOCAL / "pg-test").exists()


@needs_servers
def test_a_second_start_is_refused_with_the_number_of_the_first(copy: Path) -> None:
    with start_holder(copy) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip()
        with (
            pytest.raises(embedded.EmbeddedError, match=f"run already .process {holder.pid}."),
            embedded.running(fast=True),
        ):
            pass
        with pytest.raises(embedded.EmbeddedError, match="run already"):
            embedded.ensure_stopped(fast=True)
        with pytest.raises(embedded.EmbeddedError, match="run already"):
            embedded.reset(fast=True)
        holder.communicate("")
    assert holder.returncode == 0


@needs_servers
@pytest.mark.faults
@pytest.mark.parametrize("victim", ["starter", "postgres and starter"])
def test_servers_start_again_after_kill_9(copy: Path, victim: str) -> None:
    with start_holder(copy) as holder:
        assert holder.stdout is not None
        postgres = int(holder.stdout.readline().split()[0])
        if victim == "postgres and starter":
            os.kill(postgres, signal.SIGKILL)
        holder.kill()
        holder.wait()
    with embedded.running(fast=True) as servers:
        assert ask(servers) == (42, True)


@needs_servers
def test_a_number_that_went_to_a_stranger_does_not_stop_the_start(checkout: Path) -> None:
    with embedded.running(fast=True, redis=False):
        lines = (embedded.LOCAL / "pg-test" / "postmaster.pid").read_text().splitlines()
    (embedded.LOCAL / "pg-test" / "postmaster.pid").write_text("\n".join([str(os.getppid()), *lines[1:]]))
    with embedded.running(fast=True) as servers:
        assert ask(servers) == (42, True)


@needs_servers
def test_an_interrupted_initdb_is_done_again(checkout: Path) -> None:
    half = embedded.LOCAL / "pg-test.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with embedded.running(fast=True) as servers:
        assert ask(servers) == (42, True)


def test_a_socket_folder_that_others_may_enter_is_refused(checkout: Path) -> None:
    embedded.socket_dir(fast=True).mkdir()
    embedded.socket_dir(fast=True).chmod(0o755)
    start_refused("not a private folder")


def test_root_without_user_namespaces_is_told_what_to_do(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with (
        pytest.raises(embedded.EmbeddedError, match="normal user, or set DATABASE_URL"),
        embedded.running(fast=True),
    ):
        pass
    assert not (embedded.LOCAL / "pg-test").exists()
