"""Every check that reads the code: style, types, import contracts, migrations, the deployment settings."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from django.core.management.base import BaseCommand, CommandError

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ["config", "payments", "fraud", "reconciliation", "webhooks"]
MANAGE = [sys.executable, "-W", "ignore::RuntimeWarning", "manage.py"]  # no server is needed, none is missed


def production_env() -> dict[str, str]:
    """The least that production must be given."""
    return {
        "DJANGO_ENV": "production",
        "SECRET_KEY": secrets.token_urlsafe(64),
        "ENCRYPTION_KEYS": Fernet.generate_key().decode(),
        "ALLOWED_HOSTS": "countinghouse.example",
        "DATABASE_URL": "postgresql://countinghouse@db.example/countinghouse",
        "REDIS_URL": "redis://redis.example:6379/0",
        "SITE_URL": "https://countinghouse.example",
        "ONCALL_URL": "https://oncall.example/calls",
    }


def tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def checks() -> list[tuple[list[str], Mapping[str, str]]]:
    """Each command with what it needs beside the environment."""
    return [
        ([tool("ruff"), "check", "."], {}),
        ([tool("ruff"), "format", "--check", "."], {}),
        ([tool("mypy"), *PACKAGES], {}),
        ([tool("lint-imports")], {}),
        ([*MANAGE, "makemigrations", "--check", "--dry-run"], {}),
        ([*MANAGE, "check", "--deploy", "--fail-level", "WARNING"], production_env()),
    ]


class Command(BaseCommand):
    help = "Runs ruff, mypy, the import contracts, the migration check and the deployment check."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        failed = [self._title(command) for command, extra in checks() if not self._passes(command, extra)]
        if failed:
            raise CommandError("Failed: " + "; ".join(failed))
        self.stdout.write("All checks passed.")

    def _passes(self, command: list[str], extra: Mapping[str, str]) -> bool:
        self.stdout.write(f"== {self._title(command)}")
        self.stdout.flush()
        return subprocess.run(command, cwd=ROOT, env=os.environ | extra, check=False).returncode == 0

    def _title(self, command: list[str]) -> str:
        words = command[command.index("manage.py") :] if "manage.py" in command else command
        return " ".join([Path(words[0]).name, *words[1:]])
