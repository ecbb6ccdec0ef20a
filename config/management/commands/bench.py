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

    def handle(self, *args: Any, **options: Any) -> None:
        python = VENV / "bin" / "python"
        self._install(python)
        database, redis = os.environ.get("DATABASE_URL"), os.environ.get("REDIS_URL")
        with embedded.running(postgres=not database, redis=not redis) as servers:
            urls = {"DATABASE_URL": database or servers.database_url, "REDIS_URL": redis or servers.redis_url}
            command = [python, "benchmarks/run.py", *options["names"]]
            done = subprocess.run(command, cwd=ROOT, env=os.environ | urls, check=False)
        sys.exit(done.returncode)

    def _install(self, python: Path) -> None:
        stamp = VENV / "lock.txt"
        if stamp.exists() and stamp.read_bytes() == LOCK.read_bytes():
            return
        self.stdout.write("Installing requirements/bench.txt into .local/bench-venv (once) ...")
        self.stdout.flush()
        self._run(sys.executable, "-m", "venv", "--clear", str(VENV))
        self._run(str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(LOCK))
        stamp.write_bytes(LOCK.read_bytes())

    def _run(self, *command: str) -> None:
        if subprocess.run(command, check=False).returncode:
            raise CommandError(f"`{' '.join(command)}` failed; no benchmark was run.")
