"""Run the benchmarks in an environment that also has the peers they are measured beside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from config import embedded

ROOT = Path(__file__).resolve().parents[3]
VENV = embedded.LOCAL / "bench-venv"
LOCK = ROOT / "requirements" / "bench.txt"


class Command(BaseCommand):
    help = "Runs benchmarks/run.py with requirements/bench.txt installed, on the embedded servers by default."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("names", nargs="*", help="Of benchmarks, such as receipt; all of them without.")
        parser.add_argument("--orders", type=int, help="Of scale's large database; a million without.")

    def handle(self, *args: Any, **options: Any) -> None:
        python = VENV / "bin" / "python"
        install_locked(VENV, LOCK)
        database, redis = os.environ.get("DATABASE_URL"), os.environ.get("REDIS_URL")
        with embedded.running(postgres=not database, redis=not redis) as servers:
            urls = {"DATABASE_URL": database or servers.database_url, "REDIS_URL": redis or servers.redis_url}
            command = [python, "benchmarks/run.py", *options["names"]]
            if options["orders"]:
                command += ["--orders", str(options["orders"])]
            done = subprocess.run(command, cwd=ROOT, env=os.environ | urls, check=False)
        sys.exit(done.returncode)


def install_locked(venv: Path, lock: Path) -> None:
    """An environment with exactly what the lock names, made anew when the lock has changed.

    Raises `CommandError` when that fails.
    """
    stamp = venv / "lock.txt"
    if stamp.exists() and stamp.read_bytes() == lock.read_bytes():
        return
    print(f"Installing requirements/{lock.name} into .local/{venv.name} (once) ...", flush=True)
    python = str(venv / "bin" / "python")
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(venv)],
        [python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(lock)],
    ):
        if subprocess.run(command, check=False).returncode:
            raise CommandError(f"`{' '.join(command)}` failed; no benchmark was run.")
    stamp.write_bytes(lock.read_bytes())
