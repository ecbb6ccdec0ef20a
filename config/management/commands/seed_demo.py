"""Fill the demo with two weeks of a shop's life, through the services that the shop itself uses."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.test import override_settings
from django.utils import timezone

from config import demo_access, demo_site, embedded
from config.demo_clock import Bank, is_superuser
from config.demo_history import Calendar, History
from payments.models import ApiClient


class Command(BaseCommand):
    help = "Fills in the past of the demo: orders, refunds, reviews, mishaps, nightly runs. Once; never in production."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--days", type=int, default=14, help="How many days, today included.")
        parser.add_argument("--sandbox-url", help="Of the sandbox gateway; otherwise STRIPE_API_BASE.")

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError("The history is made up: it is not seeded with DJANGO_ENV=production.")
        if options["days"] < 1:
            raise CommandError("--days must be at least 1; nothing was seeded.")
        url = options["sandbox_url"] or settings.STRIPE_API_BASE
        with seeding(url), quiet():
            self._refuse(url)
            self._fill(url, days=options["days"])

    def _refuse(self, url: str) -> None:
        if not Bank(url).is_sandbox():
            raise CommandError(
                f"{url} is not the sandbox gateway; nothing was seeded. Name it with --sandbox-url."
            )
        if not is_superuser():
            raise CommandError(
                "Only a superuser of the database may move what its clock has stamped; nothing was seeded. "
                "The embedded server's role is one: unset DATABASE_URL."
            )

    def _fill(self, url: str, *, days: int) -> None:
        if not ApiClient.objects.filter(name=demo_access.CLIENT).exists():
            demo_access.demo_api_key()
        client = ApiClient.objects.get(name=demo_access.CLIENT)
        now, began = timezone.now(), time.monotonic()
        calendar = Calendar.read(client, days=days, now=now)
        if not calendar.left():
            self.stdout.write("The history is there already; nothing was added. Begin anew with --reset.")
            return
        history = History(calendar, bank=Bank(url), now=now, say=self._say)
        history.fill()
        for line in history.failed:
            self._say(f"not played: {line}")
        states = Counter(client.orders.values_list("state", flat=True))
        told = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
        self._say(f"{states.total()} orders in {time.monotonic() - began:.0f} s: {told}")

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


@contextmanager
def seeding(url: str) -> Iterator[None]:
    """This process alone: the adapter that names the past, the sandbox, and no Redis.

    What the site keeps in Redis (breakers, limits, counts) goes by the clock of who writes it. Without Redis they
    are this process's own, and the counts PostgreSQL's, from which Redis is filled again.
    """
    with override_settings(
        REDIS_URL="",
        PAYMENT_GATEWAYS={"stripe": "config.demo_clock.PastStripeGateway"},
        STRIPE_API_BASE=url,
        REVIEW_FOUR_EYES=settings.REVIEW_FOUR_EYES or demo_site.FOUR_EYES,
        STRIPE_API_KEY=settings.STRIPE_API_KEY or "sk_test_sandbox",
        STRIPE_WEBHOOK_SECRET=settings.STRIPE_WEBHOOK_SECRET
        or "whsec_" + embedded.local_secret("stripe_webhook_secret"),
    ):
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """The mishaps are meant: the log need not tell of them."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
