"""Catches up on payments whose webhooks were lost: from the archive, then from the gateway's own list."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from payments.errors import PaymentError
from webhooks.management.commands.replay_webhooks import find_account
from webhooks.replay import replay_missed


class Command(BaseCommand):
    help = "Replays what the archive and the gateway's event list know of the named payments."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--account", required=True, help="Such as stripe/default.")
        parser.add_argument("--reference", action="append", default=[], help="The gateway's, such as pi_...")
        parser.add_argument("--operation", action="append", default=[], help="Ours: op_... or re_...")

    def handle(
        self, *args: Any, account: str, reference: list[str], operation: list[str], **options: Any
    ) -> None:
        found = find_account(account)
        try:
            report = replay_missed(found, references=reference, operation_ids=operation, actor="system")
        except PaymentError as error:
            raise CommandError(error.message) from None
        self.stdout.write(f"{len(report.replayed)} replayed from the archive, {len(report.fetched)} fetched")
        for silent in report.silent:
            self.stdout.write(f"{silent}: the gateway has no event of it")
