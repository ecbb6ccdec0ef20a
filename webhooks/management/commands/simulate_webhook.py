"""Sends this site a webhook as the gateway would: signed, and if wanted twice, late, forged or disordered."""

from __future__ import annotations

from typing import Any

import requests
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from payments.errors import PaymentError
from payments.models import Payment
from webhooks.simulation import OUTSIDE, SIMULATORS, SimulatedDelivery, list_events, simulate_deliveries

TIMEOUT_SECONDS = 30


class Command(BaseCommand):
    help = "Sends this site a webhook of a payment as its gateway would, and prints each answer."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--gateway", choices=sorted(SIMULATORS))
        parser.add_argument("--event", help="One of --list; of Adyen several, joined by +.")
        parser.add_argument("--payment", help="pay_...")
        parser.add_argument("--list", action="store_true", help="Print what can be sent, and send nothing.")
        parser.add_argument(
            "--operation",
            default="",
            metavar="ID",
            help="The capture, void or refund that it is about: op_... or re_...; the newest by default. "
            f"{OUTSIDE}: one that was made at the gateway's own pages.",
        )
        parser.add_argument(
            "--amount", type=int, metavar="N", help="Minor units; the operation's by default."
        )
        parser.add_argument("--duplicate", type=int, default=0, metavar="N", help="Deliver it N more times.")
        parser.add_argument("--late", type=int, default=0, metavar="S", help="Sign it S seconds ago.")
        parser.add_argument("--bad-signature", action="store_true", help="Sign it with a wrong secret.")
        parser.add_argument(
            "--out-of-order",
            action="store_true",
            help="Deliver after it the event that should have come before.",
        )
        parser.add_argument("--url", help="Of the site; settings.SITE_URL by default.")

    def handle(self, *args: Any, gateway: str | None, **options: Any) -> None:
        if options["list"]:
            self._list([gateway] if gateway else sorted(SIMULATORS))
            return
        for name, value in (
            ("gateway", gateway),
            ("event", options["event"]),
            ("payment", options["payment"]),
        ):
            if not value:
                raise CommandError(f"--{name} is missing; nothing was sent.")
        try:
            deliveries = simulate_deliveries(
                find_payment(options["payment"], gateway),
                options["event"],
                operation_id=options["operation"],
                amount=options["amount"],
                duplicates=options["duplicate"],
                late_seconds=options["late"],
                is_badly_signed=options["bad_signature"],
                is_out_of_order=options["out_of_order"],
            )
        except PaymentError as error:
            raise CommandError(error.message) from None
        for delivery in deliveries:
            self.stdout.write(send(options["url"] or settings.SITE_URL, delivery))

    def _list(self, gateways: list[str]) -> None:
        for gateway in gateways:
            for name, says in list_events(gateway):
                self.stdout.write(f"{gateway:10} {name:46} {says}")


def find_payment(payment_id: str, gateway: str | None) -> Payment:
    """Raises `CommandError`."""
    payments = Payment.objects.select_related("account", "order")
    found = payments.filter(pk=payment_id, account__gateway=gateway).first()
    if found is None:
        raise CommandError(f"There is no payment {payment_id} at {gateway}; nothing was sent.")
    return found


def send(site: str, delivery: SimulatedDelivery) -> str:
    """The status and body of the site's answer. Raises `CommandError` when the site does not answer."""
    url = site.rstrip("/") + delivery.path
    try:
        answer = requests.post(
            url, data=delivery.body, headers=dict(delivery.headers), timeout=TIMEOUT_SECONDS
        )
    except requests.RequestException as error:
        raise CommandError(f"{url} did not answer: {error}") from None
    return f"{answer.status_code} {answer.text}"
