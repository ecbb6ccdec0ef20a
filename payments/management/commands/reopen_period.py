"""`manage.py reopen_period`: opens a closed period again; who and why stay on record."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from payments import services
from payments.errors import PaymentError
from payments.management.commands.close_period import name_closer
from payments.models import LedgerPeriod


class Command(BaseCommand):
    help = "Reopen a closed period, by its number in the admin."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("period", type=int)
        parser.add_argument("--by", required=True, help="The user who reopens it; needs the permission.")
        parser.add_argument("--reason", required=True)

    def handle(self, *args: Any, period: int, by: str, reason: str, **options: Any) -> None:
        try:
            reopened = services.reopen_period(
                period, reason=reason, actor=name_closer(by, "reopen_ledgerperiod")
            )
        except LedgerPeriod.DoesNotExist:
            raise CommandError(f"There is no period {period}; nothing was changed.") from None
        except PaymentError as error:
            raise CommandError(error.message) from error
        self.stdout.write(self.style.SUCCESS(f"Reopened {reopened}."))
