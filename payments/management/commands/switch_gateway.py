"""The kill switch from a shell: stop new payments on a gateway account, or allow them again."""

from __future__ import annotations

import getpass
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from payments.errors import PaymentError
from payments.gateways.resilience import switch_off, switch_on
from payments.models import GatewayAccount


class Command(BaseCommand):
    help = "Stop new payments on a gateway account (off), or allow them again (on)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("account", help="Such as stripe/default.")
        parser.add_argument("position", choices=["off", "on"])
        parser.add_argument("--reason", required=True, help="Kept with the switch.")
        parser.add_argument("--by", help="Who does it; else the user of this shell.")

    def handle(
        self, *args: Any, account: str, position: str, reason: str, by: str | None, **options: Any
    ) -> None:
        switch = switch_off if position == "off" else switch_on
        try:
            switch(find_account(account), by=f"user:{by or getpass.getuser()}", reason=reason[:200])
        except PaymentError as error:
            raise CommandError(error.message) from error
        words = "takes no new payments" if position == "off" else "takes new payments"
        self.stdout.write(f"{account} {words} from now on.")


def find_account(text: str) -> GatewayAccount:
    """Raises `CommandError` naming the accounts that there are."""
    gateway, _, name = text.partition("/")
    account = GatewayAccount.objects.filter(gateway=gateway, name=name).first()
    if account is None:
        known = ", ".join(map(str, GatewayAccount.objects.all()))
        raise CommandError(f"There is no gateway account {text}, only {known}; nothing was changed.")
    return account
