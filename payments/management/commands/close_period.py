"""`manage.py close_period`: closes a month, or any range of days, of one account's books."""

from __future__ import annotations

import argparse
from datetime import date, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from payments import services
from payments.errors import PaymentError
from payments.models import GatewayAccount


class Command(BaseCommand):
    help = "Close a period: refused while suspense is not zero, or the proof finds a difference in it."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--account", required=True, help="gateway/name, e.g. stripe/default.")
        days = parser.add_mutually_exclusive_group(required=True)
        days.add_argument("--month", type=read_month, help="A month, as 2026-01.")
        days.add_argument(
            "--days", nargs=2, type=date.fromisoformat, metavar=("FIRST", "LAST"), help="A range of days."
        )
        parser.add_argument("--by", required=True, help="The user who closes it; needs the permission.")
        parser.add_argument("--note", default="")

    def handle(self, *args: Any, account: str, by: str, note: str, **options: Any) -> None:
        first_day, last_day = options["days"] or options["month"]
        actor = name_closer(by, "close_ledgerperiod")
        try:
            period = services.close_period(
                find_account(account), first_day=first_day, last_day=last_day, actor=actor, note=note
            )
        except PaymentError as error:
            raise CommandError(error.message) from error
        self.stdout.write(self.style.SUCCESS(f"Closed {period}: {period.postings} postings."))


def read_month(text: str) -> tuple[date, date]:
    """`2026-01`: its first and its last day. Raises `ValueError`."""
    first_day = date.fromisoformat(f"{text}-01")
    return first_day, (first_day + timedelta(days=31)).replace(day=1) - timedelta(days=1)


def find_account(name: str) -> GatewayAccount:
    """By `gateway/name`. Raises `CommandError` when there is none."""
    gateway, _, slug = name.partition("/")
    account = GatewayAccount.objects.filter(gateway=gateway, name=slug).first()
    if account is None:
        raise CommandError(f"There is no gateway account {name}; nothing was changed.")
    return account


def name_closer(username: str, permission: str) -> str:
    """The actor for this user. Raises `CommandError` when he may not do it, or there is none."""
    user = get_user_model().objects.filter(username=username, is_active=True).first()
    if user is None or not user.has_perm(f"payments.{permission}"):
        raise CommandError(f"{username} may not do that; nothing was changed.")
    return f"user:{username}"
