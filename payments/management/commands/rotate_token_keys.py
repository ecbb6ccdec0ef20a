"""Makes the next key that signs access tokens; the last one verifies until its tokens are dead."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from payments import services
from payments.errors import BusyError


class Command(BaseCommand):
    help = "Rotates the keys that sign access tokens; beat does so every TOKEN_KEY_DAYS."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--compromised",
            action="store_true",
            help="The old keys have leaked: every token that lives ends now, the new key signs at once.",
        )

    def handle(self, *args: Any, compromised: bool, **options: Any) -> None:
        try:
            key = services.rotate_token_keys(are_compromised=compromised)
        except BusyError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"{key.pk} signs from {key.signs_from.isoformat(timespec='seconds')}")
