"""Applies what the archive holds since a moment once more, or says what that would change."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from payments.errors import ConflictError
from payments.models import GatewayAccount
from webhooks import replay
from webhooks.preview import preview


class Command(BaseCommand):
    help = "Replays what came since a moment and did not succeed; payments sees that nothing happens twice."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--since", required=True, help="Such as 2026-03-01T08:00+00:00; UTC without a zone."
        )
        parser.add_argument("--account", help="Such as stripe/default; all without it.")
        parser.add_argument("--all", action="store_true", help="Also what was applied or ignored.")
        parser.add_argument("--dry-run", action="store_true", help="Only say what would change.")

    def handle(self, *args: Any, since: str, account: str | None, **options: Any) -> None:
        moment = read_moment(since)
        found = find_account(account) if account else None
        if options["dry_run"]:
            chosen = replay.find_since(moment, account=found, with_done=options["all"])
            for inbound_id in chosen.order_by("pk").values_list("pk", flat=True)[: replay.MOST_AT_ONCE]:
                self._tell(inbound_id)
            return
        count = replay.replay_since(moment, actor="system", account=found, with_done=options["all"])
        self.stdout.write(f"{count} are due again; a worker takes them now.")
        if count == replay.MOST_AT_ONCE:
            self.stdout.write("There may be more: run it again.")

    def _tell(self, inbound_id: str) -> None:
        self.stdout.write(inbound_id)
        for line in tell_preview(inbound_id):
            self.stdout.write(f"  {line}")


def tell_preview(inbound_id: str) -> list[str]:
    """What a replay would do, line by line."""
    try:
        would = preview(inbound_id)
    except ConflictError as error:
        return [error.message]
    if would.error:
        return [f"it would fail: {would.error}"]
    return [*would.outcomes, *map(str, would.changes)] or ["it says nothing of a payment"]


def read_moment(text: str) -> datetime:
    """Raises `CommandError` for what is no moment."""
    try:
        moment = parse_datetime(text)
    except ValueError:
        moment = None
    if moment is None:
        raise CommandError(f"{text} is no moment such as 2026-03-01T08:00+00:00; nothing was replayed.")
    return timezone.make_aware(moment) if timezone.is_naive(moment) else moment


def find_account(text: str) -> GatewayAccount:
    """Raises `CommandError` for an unknown account."""
    gateway, _, name = text.partition("/")
    found = GatewayAccount.objects.filter(gateway=gateway, name=name).first()
    if found is None:
        raise CommandError(f"There is no gateway account {text}; nothing was replayed.")
    return found
