"""Makes an API client, or one more key for it, and prints the key: the only time that it can be read."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from django.utils import timezone

from payments.models import ApiClient, ApiKey
from payments.models.client import Scope


class Command(BaseCommand):
    help = "Makes an API client, or one more key for an existing one, and prints the key once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="The storefront's name.")
        parser.add_argument(
            "--scope",
            action="append",
            required=True,
            choices=Scope.values,
            help="What the key may do; give it several times.",
        )
        parser.add_argument("--expires-in-days", type=int, help="Without it, the key does not expire.")

    def handle(self, *args: Any, name: str, scope: list[str], **options: Any) -> None:
        days: int | None = options["expires_in_days"]
        if days is not None and days < 1:
            raise CommandError("--expires-in-days is at least 1; no key was made.")
        _, secret = create_key(name, scopes=scope, days=days)
        self.stderr.write("The key is shown this once. Send it as: Authorization: Bearer <key>")
        self.stdout.write(secret)


def create_key(name: str, *, scopes: list[str], days: int | None = None) -> tuple[ApiKey, str]:
    """The new key of the client called `name` and its secret; `days` is its life."""
    with transaction.atomic():
        client, _ = ApiClient.objects.get_or_create(name=name)
        expiry = timezone.now() + timedelta(days=days) if days else None
        key, secret = ApiKey.objects.create_key(
            name=name[:50], client=client, scopes=sorted(set(scopes)), expiry_date=expiry
        )
    return cast(ApiKey, key), secret
