"""The sidebar: who sees which pages, and how much work waits behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.core.cache import cache
from django.db.models import CharField, Count, QuerySet, Value
from django.http import HttpRequest
from django.urls import reverse

from fraud.models import Review
from payments.models import Dispute, ForceRequest, OnCallPage, Operation, SagaRun
from reconciliation.models import Discrepancy
from webhooks.models import InboundState, InboundWebhook

COUNTS_KEY, COUNTS_SECONDS = "navigation-counts", 5
MOST = 99


@dataclass(frozen=True, slots=True)
class Item:
    """One line: the page of a model, shown to who may view it, with the count of a queue."""

    title: str
    icon: str
    model: str
    query: str = ""
    queue: str = ""
    page: str = "changelist"

    @property
    def permission(self) -> str:
        app, _, name = self.model.partition("_")
        if self.model.startswith("django_celery_beat"):
            app, name = "django_celery_beat", self.model.removeprefix("django_celery_beat_")
        return f"{app}.view_{name}"

    @property
    def link(self) -> str:
        return reverse(f"admin:{self.model}_{self.page}") + self.query


NAVIGATION: dict[str, list[Item]] = {
    "Orders": [
        Item("Orders", "receipt_long", "payments_order"),
        Item("Payments", "credit_card", "payments_payment"),
        Item("Customers", "person_search", "payments_customer"),
        Item("Operations", "swap_horiz", "payments_operation", queue="unknown"),
    ],
    "Fraud": [
        Item("Review queue", "policy", "fraud_review", queue="reviews"),
        Item("Review history", "history", "fraud_reviewevent"),
        Item("Screenings", "fact_check", "fraud_assessment"),
        Item("Labels", "label", "fraud_label"),
        Item("Lists", "list_alt", "fraud_listentry"),
        Item("List imports", "upload_file", "fraud_listimport"),
        Item("List history", "history", "fraud_listchange"),
        Item("Links", "hub", "fraud_entitylink"),
        Item("Counted events", "speed", "fraud_velocityevent"),
    ],
    "Fraud rules": [
        Item("Fraud measures", "query_stats", "fraud_label", page="measures"),
        Item("Rule sets", "rule", "fraud_ruleset"),
        Item("Back-tests", "history_toggle_off", "fraud_backtest"),
    ],
    "Finance": [
        Item("Disputes", "feedback", "payments_dispute", queue="disputes"),
        Item("Discrepancies", "difference", "reconciliation_discrepancy", queue="discrepancies"),
        Item("Reconciliation runs", "sync_alt", "reconciliation_run"),
        Item("Tolerances", "straighten", "reconciliation_tolerance"),
        Item("Ledger entries", "menu_book", "payments_ledgerentry"),
        Item("Trial balance", "balance", "payments_ledgeraccount", page="trial"),
        Item("Periods", "event_available", "payments_ledgerperiod"),
    ],
    "On-call": [
        Item("Sagas", "account_tree", "payments_sagarun", queue="stuck"),
        Item("Forced ends", "gavel", "payments_forcerequest", queue="forced"),
        Item("Calls", "campaign", "payments_oncallpage", queue="untaken"),
        Item("Webhooks in", "call_received", "webhooks_inboundwebhook", queue="quarantined"),
        Item("Webhook health", "monitor_heart", "webhooks_inboundwebhook", page="health"),
        Item("Refused deliveries", "gpp_bad", "webhooks_rejecteddelivery"),
        Item("Webhooks out", "call_made", "webhooks_delivery"),
        Item("Stock", "inventory_2", "payments_stockitem"),
    ],
    "Integration": [
        Item("API clients", "storefront", "payments_apiclient"),
        Item("API keys", "key", "payments_apikey"),
        Item("Webhook endpoints", "webhook", "webhooks_endpoint"),
        Item("Event types", "category", "webhooks_endpoint", page="types"),
        Item("Events", "event_note", "payments_event"),
        Item("Idempotency keys", "fingerprint", "payments_idempotencykey"),
    ],
    "House": [
        Item("Gateway accounts", "account_balance_wallet", "payments_gatewayaccount"),
        Item("Routing rules", "alt_route", "payments_routingrule"),
        Item("Users", "person", "auth_user"),
        Item("Roles", "group", "auth_group"),
        Item("Schedule", "schedule", "django_celery_beat_periodictask"),
    ],
}


def build_navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The groups and pages that this user may open; counts belong to the pages, so nobody sees another's."""
    counts = count_queues()
    here = find_here(request.path)
    home = {"title": "Dashboard", "icon": "dashboard", "link": reverse("admin:index")}
    groups: list[dict[str, Any]] = [{"title": "", "items": [home]}]
    for title, items in NAVIGATION.items():
        shown = [_show(item, counts, here) for item in items if request.user.has_perm(item.permission)]
        if shown:
            groups.append({"title": title, "separator": True, "items": shown})
    return groups


def name_page(link: str) -> str:
    """What the sidebar calls the page of a list; nothing for another page."""
    items = (item for items in NAVIGATION.values() for item in items)
    return next((item.title for item in items if item.link.partition("?")[0] == link), "")


def find_here(path: str) -> str:
    """The link of the page that the path is, or lies below; the nearest, as one page may lie below another."""
    links = [item.link for items in NAVIGATION.values() for item in items]
    return max((link for link in links if path.startswith(link.partition("?")[0])), key=len, default="")


def _show(item: Item, counts: dict[str, int], here: str) -> dict[str, Any]:
    line: dict[str, Any] = {
        "title": item.title,
        "icon": item.icon,
        "link": item.link,
        "active": item.link == here,
    }
    if count := counts.get(item.queue):
        line |= {"badge": f"{MOST}+" if count > MOST else str(count), "badge_variant": "danger"}
    return line


def count_queues() -> dict[str, int]:
    """How many rows wait for a person, by queue: one query, at most every 5 seconds in a process."""
    counts: dict[str, int] | None = cache.get(COUNTS_KEY)
    if counts is None:
        counts = _count_queues()
        cache.set(COUNTS_KEY, counts, COUNTS_SECONDS)
    return counts


def _count_queues() -> dict[str, int]:
    queues: dict[str, QuerySet[Any]] = {
        "reviews": Review.objects.open(),
        "disputes": Dispute.objects.unanswered(),
        "discrepancies": Discrepancy.objects.unsettled(),
        "stuck": SagaRun.objects.stuck(),
        "forced": ForceRequest.objects.filter(state=ForceRequest.State.OPEN),
        "untaken": OnCallPage.objects.filter(sent_at__isnull=True).exclude(error="", mail_error=""),
        "unknown": Operation.objects.doubtful(),
        "quarantined": InboundWebhook.objects.filter(state=InboundState.QUARANTINED),
    }
    first, *rest = (
        queryset.order_by()
        .annotate(queue=Value(name, output_field=CharField()))
        .values("queue")
        .annotate(count=Count("pk"))
        .values_list("queue", "count")
        for name, queryset in queues.items()
    )
    return dict(first.union(*rest, all=True))
