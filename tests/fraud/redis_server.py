"""A redis-server of a test's own, to be killed, restarted and promoted."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from config import embedded


class RedisServer:
    """Listens on a port of its own; what it knows is only in memory unless `save` was called."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def client(self) -> Redis:
        return Redis.from_url(self.url, socket_timeout=10)

    def start(self) -> RedisServer:
        self.folder.mkdir(exist_ok=True)
        binary = shutil.which("redis-server") or str(embedded.redis_binary())
        where = ["--port", str(self.port), "--dir", str(self.folder), "--bind", "127.0.0.1"]
        self._process = subprocess.Popen(
            [binary, *where, "--save", "", "--repl-diskless-sync-delay", "0"], stdout=subprocess.DEVNULL
        )
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                self.client.ping()
            except RedisError:
                time.sleep(0.01)
            else:
                return self
        raise TimeoutError("redis-server did not start")

    def save(self) -> None:
        self.client.save()

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def follow(self, other: RedisServer) -> None:
        """Be its replica, and wait until all of it is here."""
        self.client.replicaof("127.0.0.1", other.port)
        end = time.monotonic() + 20
        while self.client.info("replication").get("master_link_status") != "up":
            if time.monotonic() > end:
                raise TimeoutError("the replica does not follow")
            time.sleep(0.01)

    def promote(self) -> None:
        self.client.replicaof("NO", "ONE")
