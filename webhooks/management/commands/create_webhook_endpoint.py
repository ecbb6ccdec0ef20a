"""Makes a storefront's webhook endpoint and prints its signing secret: the only time that it can be read."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from payments.errors import PaymentError
from payments.models import ApiClient
from webhooks.endpoints import create_endpoint


class Command(BaseCommand):
    help = "Makes a webhook endpoint for an API client and prints its signing secret once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("client", help="The API client's name.")
        parser.add_argument("url", help="Where its events go.")
        parser.add_argument(
            "--event", action="append", default=[], help="Only this event type; may be repeated."
        )
        parser.add_argument("--description", default="")

    def handle(self, *args: Any, client: str, url: str, **options: Any) -> None:
        found = ApiClient.objects.filter(name=client).first()
        if found is None:
            raise CommandError(f"There is no API client called {client}; no endpoint was made.")
        try:
            endpoint, secret = create_endpoint(
                found, url, event_types=options["event"], description=options["description"]
            )
        except PaymentError as error:
            raise CommandError(f"{error.message}; no endpoint was made.") from None
        self.stderr.write(f"{endpoint.pk}. The secret is shown this once:")
        self.stdout.write(secret)
