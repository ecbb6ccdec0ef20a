"""How the inbox is narrowed and searched: each way in is bounded by an index, however long the archive."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from payments.admin.search import find_orders
from payments.ids import lowest_id
from payments.models import GatewayAccount
from webhooks.models import DONE_STATES, UNFINISHED_STATES, InboundState, InboundWebhook

UNFINISHED_TABS = [(state.value, state.label) for state in UNFINISHED_STATES]
MOST_FOUND = 200
NEWEST = 1_000  # rows whose event types may be chosen
USUAL_DAYS = 30


class ConflictTab:
    """Deliveries with a known event id and other content; the constraint's partial index holds no others."""

    name, label = "conflicts", "Conflicts"


class InboxFilter(admin.SimpleListFilter):
    """Which part of the inbox; what is not finished unless something else is asked or searched for."""

    title = "state"
    parameter_name = "box"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        states = [(str(value), str(label)) for value, label in InboundState.choices]
        return [*states, (ConflictTab.name, ConflictTab.label), ("all", "All")]

    def choices(self, changelist: Any) -> Any:
        first, *rest = super().choices(changelist)
        yield {**first, "display": "Not finished"}
        yield from rest

    def queryset(self, request: HttpRequest, queryset: QuerySet[InboundWebhook]) -> QuerySet[InboundWebhook]:
        wanted = self.value()
        if wanted == "all" or (wanted is None and request.GET.get("q")):
            return queryset
        if wanted == ConflictTab.name:
            return queryset.filter(conflict_of__isnull=False)
        return queryset.filter(state=wanted) if wanted else queryset.filter(state__in=UNFINISHED_STATES)


class ReceivedFilter(admin.SimpleListFilter):
    """How far back, by the id, which is time-ordered: what is done is shown for 30 days unless asked for more."""

    title = "received"
    parameter_name = "received"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("1", "Last 24 hours"), ("7", "Last 7 days"), ("any", "Any time")]

    def choices(self, changelist: Any) -> Any:
        first, *rest = super().choices(changelist)
        yield {**first, "display": f"Last {USUAL_DAYS} days, and all that is not finished"}
        yield from rest

    def queryset(self, request: HttpRequest, queryset: QuerySet[InboundWebhook]) -> QuerySet[InboundWebhook]:
        days = self._count_days(request)
        if days is None:
            return queryset
        return queryset.filter(pk__gte=lowest_id("inb", timezone.now() - timedelta(days=days)))

    def _count_days(self, request: HttpRequest) -> int | None:
        if self.value() is not None:
            return None if self.value() == "any" else int(str(self.value()))
        is_history = request.GET.get("box") in ("all", *DONE_STATES)
        return USUAL_DAYS if is_history and not request.GET.get("q") else None


class TypeFilter(admin.SimpleListFilter):
    """The event types that came lately; Django's own filter would read the archive to find all of them."""

    title = "event type"
    parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        newest = InboundWebhook.objects.order_by("-pk").values_list("event_type", flat=True)[:NEWEST]
        return [(name, name) for name in sorted({*newest, *filter(None, [request.GET.get("type")])})]

    def queryset(self, request: HttpRequest, queryset: QuerySet[InboundWebhook]) -> QuerySet[InboundWebhook]:
        return queryset.filter(event_type=self.value()) if self.value() else queryset


def find_webhooks(term: str) -> set[str]:
    """The newest webhooks that a search term means: an id, an event, a payment's reference, or an order."""
    term = term.strip()
    accounts = list(GatewayAccount.objects.values_list("pk", flat=True))
    orders = [order.pk for order in find_orders(term, limit=50)]
    ways = (
        Q(pk=term),
        Q(account__in=accounts, event_id=term, conflict_of__isnull=True),
        Q(account__in=accounts, event_id=term, conflict_of__isnull=False),
        Q(account__in=accounts, subject=term) & ~Q(subject=""),
        Q(order__in=orders),
    )
    found: set[str] = set()
    for way in ways:
        found.update(
            InboundWebhook.objects.filter(way).order_by("-pk").values_list("pk", flat=True)[:MOST_FOUND]
        )
    return found
