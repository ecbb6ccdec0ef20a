"""How the queue and the case page say things: how long is left, whose card, which countries, who else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from fraud import policy
from fraud.cases import Case, HistoryLine
from fraud.links import LinkCount
from fraud.lists import mask_email
from fraud.models import Review
from payments.admin.base import describe_span
from payments.admin.words import tell_actor

SOON = timedelta(hours=24)
SLA_SOON = timedelta(hours=1)


def show_due(review: Review, *, now: datetime | None = None) -> SafeString:
    """How long is left until it expires, in words and colour, with the exact time at hand."""
    if not review.is_open:
        return format_html('<span class="fraud-quiet">{}</span>', "ended")
    exact = f"Ended by policy at {review.expires_at:%Y-%m-%d %H:%M} UTC"
    return _countdown(review.expires_at - (now or timezone.now()), SOON, "left", exact)


def show_sla(review: Review) -> SafeString:
    """How long until it should be decided, or how late it is."""
    if not review.is_open:
        return SafeString("")
    promised = review.created_at + policy.sla()
    exact = f"To be decided by {promised:%Y-%m-%d %H:%M} UTC"
    return _countdown(promised - timezone.now(), SLA_SOON, "to decide", exact)


def _countdown(left: timedelta, soon: timedelta, word: str, exact: str) -> SafeString:
    words = f"{describe_span(abs(left))} {word if left > timedelta(0) else 'late'}"
    urgency = "late" if left <= timedelta(0) else "soon" if left < soon else "fine"
    return format_html('<span class="fraud-due fraud-due-{}" title="{}">{}</span>', urgency, exact, words)


def show_hold(review: Review) -> SafeString:
    """When the bank lets the money go."""
    until = review.payment.authorization_expires_at
    if until is None:
        return format_html('<span class="fraud-quiet">{}</span>', "not known")
    left = until - timezone.now()
    words = f"in {describe_span(left)}" if left > timedelta(0) else "has ended"
    exact = f"{until:%Y-%m-%d %H:%M} UTC"
    return format_html('<span class="fraud-nowrap" title="{}">{}</span>', exact, words)


def show_links(links: LinkCount | None) -> SafeString:
    """`4 orders, 1 fraud`, in red where there is fraud."""
    if links is None or not links.orders:
        return format_html('<span class="fraud-quiet">{}</span>', "none")
    words = f"{links.orders} order{'' if links.orders == 1 else 's'}"
    if not links.fraud:
        return format_html('<span class="fraud-nowrap">{}</span>', words)
    return format_html('<span class="fraud-due fraud-due-late">{}, {} fraud</span>', words, links.fraud)


def show_countries(review: Review) -> SafeString:
    """Billing, shipping and IP country; those that differ from the card's, or the first known, stand out."""
    order = review.order
    found = {
        "card": review.payment.card.get("country"),
        "billing": order.billing.get("country"),
        "shipping": order.shipping.get("country"),
        "IP": order.context.get("ip_country"),
    }
    known = {label: str(country).upper() for label, country in found.items() if country}
    anchor = next(iter(known.values()), "")
    known.pop("card", "")
    rows = [("fraud-odd" if code != anchor else "", label, code) for label, code in known.items()]
    return format_html_join(" ", '<span class="{}" title="{}">{}</span>', rows)


def tell_history(case: Case) -> list[HistoryLine]:
    """The lines with people's names."""
    return [replace(line, who=tell_actor(line.who)) for line in case.history]


def name_customer(review: Review) -> str:
    return mask_email(review.order.customer_email) or review.order.customer_id or "guest"


def describe_card(review: Review) -> str:
    """`Visa ·4242 US`, as far as it is known."""
    card = review.payment.card
    last4 = f"·{card['last4']}" if card.get("last4") else ""
    parts = [str(card.get("brand", "")).title(), last4, str(card.get("country", ""))]
    return " ".join(filter(None, parts)) or "not known"


def tell_kinds(kinds: Iterable[tuple[str, int]]) -> str:
    """`3 done, 1 lost`."""
    return ", ".join(f"{count} {kind}" for kind, count in kinds if count)
