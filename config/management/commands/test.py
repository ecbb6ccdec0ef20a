"""Every check, then every test, on the embedded servers unless DATABASE_URL and REDIS_URL name others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser

ROOT = Path(__file__).resolve().parents[3]


class Command(BaseCommand):
    help = "Runs `check_all`, then pytest over everything. For a part: .venv/bin/pytest tests/payments"
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--no-checks", action="store_true", help="Go to the tests at once.")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["no_checks"]:
            call_command("check_all")
        # pytest finds its own settings; the variable would overrule them.
        env = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        sys.exit(subprocess.run([sys.executable, "-m", "pytest"], cwd=ROOT, env=env, check=False).returncode)
