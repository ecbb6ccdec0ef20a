"""The dashboard: what happened today, what waits for whom, and two weeks in two charts."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.db.models import Count, Sum
from django.db.models.functions import TruncDate
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from config.metrics import measure_queue_ages
from fraud import policy
from fraud.models import Review
from payments.admin.saga import money_at_risk
from payments.admin.words import describe_age, describe_span, money
from payments.gateways.resilience import breaker_states
from payments.models import Operation, OperationState, Order, OrderState, Payment, SagaRun
from payments.money import Money
from reconciliation.models import Discrepancy, Run

DAYS = 14
LONGEST_SETTLEMENT = timedelta(days=30)  # an operation that ends later is not in a day's sums
LATE_WEBHOOK = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Tile:
    """One number with its words; a click opens the list behind it."""

    label: str
    value: str
    note: str = ""
    tone: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart for the theme's canvas, and the same numbers as a table."""

    title: str
    data: str
    options: str
    head: list[str]
    rows: list[list[str]]
    empty: str


def show_dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add the tiles and charts that this user may see."""
    may = request.user.has_perm
    groups = {
        title: [tile for permission, build in builders if may(permission) for tile in build()]
        for title, builders in _groups().items()
    }
    tiles = [tile for group in groups.values() for tile in group]
    charts = []
    if may("payments.view_operation"):
        charts.append(chart_captured())
    if may("payments.view_order"):
        charts.append(chart_outcomes())
    more = {"groups": groups, "tiles": tiles, "charts": charts, "now": timezone.now()}
    return {**context, "title": "Dashboard", **more}


def _groups() -> dict[str, list[tuple[str, Callable[[], Iterable[Tile]]]]]:
    """What waits for a person first, then money, then whether the machinery runs."""
    return {
        "Waits for somebody": [
            ("fraud.view_review", tell_reviews),
            ("reconciliation.view_discrepancy", tell_discrepancies),
            ("payments.view_sagarun", tell_sagas),
            ("payments.view_operation", tell_unknown),
        ],
        "Money": [("payments.view_operation", tell_today)],
        "Machinery": [
            ("webhooks.view_inboundwebhook", tell_webhooks),
            ("payments.view_gatewayaccount", tell_breakers),
            ("reconciliation.view_run", tell_reconciliation),
        ],
    }


def _list_url(model: str, **query: object) -> str:
    url = reverse(f"admin:{model}_changelist")
    return f"{url}?{urlencode(query)}" if query else url


def _midnight() -> datetime:
    return timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)


def _tell_amounts(sums: dict[str, int]) -> str:
    return " + ".join(money(minor, currency) for currency, minor in sorted(sums.items()) if minor)


# --- tiles ------------------------------------------------------------------------------------------------------


def tell_today() -> list[Tile]:
    """Captured, declined and refunded since midnight UTC, by currency."""
    since = _midnight()
    rows = (
        Operation.objects.filter(created_at__gte=since - LONGEST_SETTLEMENT, resolved_at__gte=since)
        .values_list("kind", "state", "currency")
        .annotate(sum=Sum("amount"), count=Count("pk"))
        .order_by()
    )
    wanted = {
        "Captured today": ("capture", OperationState.SUCCEEDED),
        "Declined today": ("authorize", OperationState.DECLINED),
        "Refunded today": ("refund", OperationState.SUCCEEDED),
    }
    found: dict[tuple[str, str], dict[str, tuple[int, int]]] = defaultdict(dict)
    for kind, state, currency, total, count in rows:
        found[kind, state][currency] = (total, count)
    return [
        _tell_kind(label, kind, state, found[kind, state], since) for label, (kind, state) in wanted.items()
    ]


def _tell_kind(label: str, kind: str, state: str, sums: dict[str, tuple[int, int]], since: datetime) -> Tile:
    amounts = _tell_amounts({currency: total for currency, (total, _) in sums.items()})
    count = sum(number for _, number in sums.values())
    url = _list_url(
        "payments_operation",
        view="all",
        kind__exact=kind,
        state__exact=state,
        resolved_at__gte=since.isoformat(" "),
    )
    return Tile(label, amounts or "nothing yet", _count(count, "operation"), url=url)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def tell_reviews() -> list[Tile]:
    reviews = Review.objects.open()
    total = reviews.count()
    next_due = reviews.urgent_first().values_list("expires_at", flat=True).first()
    if next_due is None:
        return [
            Tile("Open reviews", "none", "Nothing is held for review.", "success", _list_url("fraud_review"))
        ]
    left, late = next_due - timezone.now(), reviews.awake().late(policy.sla()).count()
    note = f"the next expires in {describe_span(left)}" if left > timedelta(0) else "the next has expired"
    note = f"{late} late, {note}" if late else note
    return [Tile("Open reviews", str(total), note, "warning", _list_url("fraud_review"))]


def tell_discrepancies() -> list[Tile]:
    sums = (
        Discrepancy.objects.unsettled()
        .order_by()
        .values_list("currency")
        .annotate(Sum("amount"), Count("pk"))
    )
    rows = list(sums)
    total = sum(count for _, _, count in rows)
    if not total:
        url = _list_url("reconciliation_discrepancy")
        return [Tile("Open discrepancies", "none", "Both sides agree.", "success", url)]
    note = f"{_tell_amounts({currency: amount for currency, amount, _ in rows})} at stake"
    url = _list_url("reconciliation_discrepancy", view="all")
    return [Tile("Open discrepancies", str(total), note, "danger", url)]


def tell_sagas() -> list[Tile]:
    stuck = list(SagaRun.objects.stuck().select_related("order__payment")[:500])
    url = _list_url("payments_sagarun")
    if not stuck:
        return [Tile("Stuck sagas", "none", "Every saga moves by itself.", "success", url)]
    most: dict[Payment, int] = defaultdict(int)  # two sagas of a payment do not put it at risk twice
    for run in stuck:
        if run.order:
            payment = run.order.payment
            most[payment] = max(most[payment], money_at_risk(run.kind, payment))
    risk: dict[str, int] = defaultdict(int)
    for payment, minor in most.items():
        risk[payment.currency] += minor
    amounts = _tell_amounts(risk)
    note = f"{amounts} at risk" if amounts else "no money at risk"
    return [Tile("Stuck sagas", str(len(stuck)), note, "danger", _list_url("payments_sagarun", view="stuck"))]


def tell_unknown() -> list[Tile]:
    """Movements that the gateway was asked for and whose outcome is not known."""
    sums = (
        Operation.objects.doubtful().order_by().values_list("currency").annotate(Sum("amount"), Count("pk"))
    )
    rows = list(sums)
    url = _list_url("payments_operation")
    if not rows:
        return [Tile("Unknown outcomes", "none", "The gateway has answered for all.", "success", url)]
    total = sum(count for _, _, count in rows)
    note = f"{_tell_amounts({currency: amount for currency, amount, _ in rows})} asked for"
    return [Tile("Unknown outcomes", str(total), note, "warning", url)]


def tell_webhooks() -> list[Tile]:
    """How long the oldest webhook that is due has waited."""
    ages = measure_queue_ages()
    tiles = []
    for label, queue, model in (
        ("Webhooks in", "gateway_webhooks", "webhooks_inboundwebhook"),
        ("Webhooks out", "storefront_webhooks", "webhooks_delivery"),
    ):
        waited = ages.get(queue)
        url = _list_url(model)
        if waited is None:
            tiles.append(Tile(label, "no lag", "Nothing is due.", "success", url))
        else:
            tone = "danger" if waited > LATE_WEBHOOK else ""
            tiles.append(
                Tile(label, describe_span(timedelta(seconds=waited)), "the oldest that is due", tone, url)
            )
    return tiles


def tell_breakers() -> list[Tile]:
    states = breaker_states()
    url = _list_url("payments_gatewayaccount")
    if not states:
        return [Tile("Gateways", "not asked yet", "No breaker has counted a call.", url=url)]
    troubled = [state for state in states if state.state != "closed"]
    if not troubled:
        calls = sum(state.calls for state in states)
        return [Tile("Gateways", "all answer", f"{_count(calls, 'call')} in the last minute", "success", url)]
    names = ", ".join(
        f"{state.name} {state.state.replace('_', ' ')}{f' by {state.by}' if state.by else ''}"
        for state in troubled
    )
    return [Tile("Gateways", f"{len(troubled)} of {len(states)} cut off", names, "danger", url)]


def tell_reconciliation() -> list[Tile]:
    run = Run.objects.completed().select_related("account").order_by("-finished_at").first()
    if run is None or run.finished_at is None:
        return [
            Tile("Last reconciliation", "never", "It runs every night.", url=_list_url("reconciliation_run"))
        ]
    note = f"{run.account}, {run.day:%-d %b}, {describe_age(timezone.now() - run.finished_at)} ago"
    url = reverse("admin:reconciliation_run_change", args=[run.pk])
    tone = "warning" if run.discrepancies else "success"
    return [Tile("Last reconciliation", f"{run.matched} of {run.total} matched", note, tone, url)]


# --- charts -----------------------------------------------------------------------------------------------------

_COLOURS = [f"var(--color-primary-{weight})" for weight in (600, 400, 300, 800)]
_OUTCOMES = {
    "Paid": ([OrderState.PAID, OrderState.FULFILLED], "var(--color-primary-600)"),
    "Under way": (
        [OrderState.PLACED, OrderState.PROCESSING, OrderState.REVIEW, OrderState.AWAITING_CUSTOMER],
        "var(--color-primary-300)",
    ),
    "Declined": ([OrderState.DECLINED], "var(--color-orange-500)"),
    "Blocked": ([OrderState.BLOCKED], "var(--color-red-500)"),
    "Canceled or expired": ([OrderState.CANCELED, OrderState.EXPIRED], "var(--color-base-400)"),
}


def _days() -> list[date]:
    today = timezone.now().date()
    return [today - timedelta(days=back) for back in range(DAYS - 1, -1, -1)]


def _options(*, is_stacked: bool, has_legend: bool = True) -> str:
    axis = {"stacked": is_stacked, "ticks": {"color": "#7b8794"}}
    legend = {"display": has_legend, "position": "bottom", "labels": {"boxWidth": 10, "color": "#7b8794"}}
    return json.dumps(
        {
            "animation": False,
            "responsive": True,
            "maintainAspectRatio": False,
            "plugins": {"legend": legend},
            "scales": {
                "x": {**axis, "grid": {"display": False}},
                "y": {**axis, "beginAtZero": True, "grid": {}},
            },
        }
    )


def chart_captured() -> Chart:
    """Captured per day and currency. The canvas gets exact decimals as text, never floats."""
    days = _days()
    rows = (
        Operation.objects.filter(
            kind="capture", state=OperationState.SUCCEEDED, created_at__date__gte=days[0]
        )
        .annotate(day=TruncDate("created_at"))
        .values_list("currency", "day")
        .annotate(sum=Sum("amount"))
        .order_by("currency")
    )
    sums: dict[str, dict[date, int]] = defaultdict(dict)
    for currency, day, total in rows:
        sums[currency][day] = total
    main = max(sums, key=lambda currency: len(sums[currency]), default="")  # one axis holds one currency
    series = {main: [str(Money(sums[main].get(day, 0), main).amount) for day in days]} if main else {}
    table = [
        [f"{day:%a %-d %b}", *(money(sums[currency].get(day, 0), currency) for currency in sums)]
        for day in days
    ]
    return Chart(
        f"Captured per day, {main}" if main else "Captured per day",
        _chart_data(days, series, _COLOURS),
        _options(is_stacked=False, has_legend=False),
        ["Day", *sums],
        table if sums else [],
        "Nothing was captured in the last 14 days. Captured payments show here within seconds.",
    )


def chart_outcomes() -> Chart:
    """What became of the orders placed each day."""
    days = _days()
    rows = (
        Order.objects.filter(created_at__date__gte=days[0])
        .annotate(day=TruncDate("created_at"))
        .values_list("state", "day")
        .annotate(count=Count("pk"))
        .order_by()
    )
    counts: dict[tuple[str, date], int] = {(state, day): count for state, day, count in rows}
    series = {
        label: [str(sum(counts.get((state, day), 0) for state in states)) for day in days]
        for label, (states, _) in _OUTCOMES.items()
    }
    table = [
        [f"{day:%a %-d %b}", *(values[number] for values in series.values())]
        for number, day in enumerate(days)
    ]
    return Chart(
        "Orders by outcome",
        _chart_data(days, series, [colour for _, colour in _OUTCOMES.values()]),
        _options(is_stacked=True),
        ["Day", *series],
        table if counts else [],
        "No order was placed in the last 14 days. Place one with the curl of the quickstart.",
    )


def _chart_data(days: list[date], series: dict[str, list[str]], colours: list[str]) -> str:
    datasets = [
        {
            "label": label,
            "data": values,
            "backgroundColor": colours[number % len(colours)],
            "maxBarThickness": 34,
            "borderRadius": 3,
        }
        for number, (label, values) in enumerate(series.items())
    ]
    return json.dumps({"labels": [f"{day:%-d %b}" for day in days], "datasets": datasets})
