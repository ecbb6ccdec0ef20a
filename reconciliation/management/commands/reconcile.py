"""Reconciles one account and day: exits 0 when balanced, 3 with open discrepancies, 1 on an error."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from payments.errors import PaymentError
from payments.models import GatewayAccount
from reconciliation.models import Run, RunState, RunTrigger
from reconciliation.services import execute_run, start_run

EXIT_DISCREPANCIES = 3


class Command(BaseCommand):
    help = __doc__ or ""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--account", required=True, help="stripe/default, default, or an account's id.")
        parser.add_argument(
            "--date", required=True, type=date.fromisoformat, help="The UTC day, as 2026-01-31."
        )
        parser.add_argument("--report", type=Path, help="A report file, instead of asking the gateway.")

    def handle(self, *args: Any, account: str, date: date, report: Path | None, **options: Any) -> None:
        try:
            started = start_run(
                find_account(account),
                day=date,
                trigger=RunTrigger.COMMAND,
                actor="system",
                report=_read_bytes(report) if report else None,
                report_name=report.name if report else "",
            )
            run = execute_run(started.pk)
        except (PaymentError, OSError) as error:
            raise CommandError(str(error)) from error
        self._report(run)

    def _report(self, run: Run) -> None:
        if run.state != RunState.COMPLETED:
            raise CommandError(f"The run of {run} is {run.get_state_display().lower()}: {run.error}")
        if run.file and run.file.bad_rows:
            self.stderr.write(
                f"{run.file.bad_rows} lines of the report could not be read; see {run.pk} in the admin."
            )
        self.stdout.write(run.summarize())
        if run.discrepancies:
            sys.exit(EXIT_DISCREPANCIES)


def find_account(name: str) -> GatewayAccount:
    """By `gateway/name`, by name, or by id. Raises `CommandError` when there is none, or more than one."""
    gateway, slash, rest = name.rpartition("/")
    filters = {"gateway": gateway, "name": rest} if slash else {"name": name}
    found = list(GatewayAccount.objects.filter(**filters)) or list(GatewayAccount.objects.filter(pk=name))
    if len(found) != 1:
        known = ", ".join(str(account) for account in GatewayAccount.objects.all())
        raise CommandError(
            f"There is {'no' if not found else 'more than one'} account {name!r}. Known: {known}"
        )
    return found[0]


def _read_bytes(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk
