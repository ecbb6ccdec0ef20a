"""The fraud measures: the page of all rules, the page of one, and their download."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString

from fraud.admin.measure_words import (
    DRIFT_HEAD,
    chart_daily_hits,
    chart_daily_labels,
    chart_labels,
    label_badge,
    show_drift,
    show_interval,
    show_money,
    show_share,
    tell_analysts,
    tell_model_drift,
    tell_money_cards,
    tell_queue,
    tell_rates,
    tell_sources,
)
from fraud.measures import (
    Drift,
    Overall,
    Period,
    RuleMeasure,
    find_drift,
    find_examples,
    measure_days,
    measure_overall,
    measure_queue,
    measure_rules,
)
from fraud.measures.scores import ScoreMeasure, measure_scores
from fraud.measures.statistics import Proportion
from fraud.rulesets import name_rules
from fraud.scores.drift import find_model_drift
from payments.admin.base import BackOfficeAdmin, age, link, money, state_badge
from payments.admin.exports import Cell, stream_csv, to_major

DAYS = (28, 7, 90)  # the first is where the page opens
MODES = {"": "All rules", "on": "On", "shadow": "Shadow"}
PAGE, RULE, EXPORT = "fraud_label_measures", "fraud_label_rule", "fraud_label_export"

_Key = Callable[[RuleMeasure], Any]
SORTS: dict[str, tuple[str, _Key]] = {
    "rule": ("Rule", lambda rule: rule.rule.casefold()),
    "hits": ("Orders hit", lambda rule: rule.hits),
    "rate": ("Hit rate", lambda rule: rule.hit_rate.value or 0),
    "labelled": ("Labelled", lambda rule: rule.labelled),
    "precision": ("Precision", lambda rule: -1 if rule.precision.is_too_few else rule.precision.value),
    "recall": ("Recall", lambda rule: -1 if rule.recall.is_too_few else rule.recall.value),
    "unique": ("Caught alone", lambda rule: rule.unique),
    "saved": ("Fraud stopped", lambda rule: sum(orders for orders, _ in rule.saved.values())),
    "wrong": ("Blocked wrongly", lambda rule: sum(orders for orders, _ in rule.blocked_wrongly.values())),
}


class MeasurePages(BackOfficeAdmin):
    """Three pages beside the labels; who may see labels may see them."""

    class Media:
        css = {"all": ["fraud/measures.css"]}

    def get_urls(self) -> list[URLPattern]:
        own = {
            "measures/": (self.measures_view, PAGE),
            "measures/export/": (self.export_view, EXPORT),
            "measures/rule/": (self.rule_view, RULE),
        }
        views = [
            path(route, self.admin_site.admin_view(view), name=name) for route, (view, name) in own.items()
        ]
        return [*views, *super().get_urls()]

    def measures_view(self, request: HttpRequest) -> HttpResponse:
        """Rates, labels, rules and queue of the last days."""
        if refusal := self._refuse(request):
            return refusal
        days, mode = read_days(request), read_mode(request)
        period = Period.last(days)
        overall, rules, drifts = measure_overall(period), measure_rules(period, mode=mode), find_drift()
        names = name_rules()
        context = {
            "days": days,
            "mode": mode,
            "tabs": list_tabs(PAGE, days, mode),
            "mode_tabs": list_modes(days, mode),
            "export_url": f"{reverse(f'admin:{EXPORT}')}?{urlencode({'days': days, 'mode': mode})}",
            "cards": tell_rates(overall),
            "unknown": tell_unknown(overall),
            "sources": tell_sources(overall),
            "head": list_head(request, days, mode),
            "rules": list_rules(rules, drifts, read_sort(request), days, names),
            "charts": [chart_labels(rules, names)],
            "drifts": [show_drift(drift, names) for drift in drifts],
            "drift_head": DRIFT_HEAD,
            "scores": [tell_score(measure) for measure in measure_scores(period)],
            "model_drift": tell_model_drift(find_model_drift()),
            **self._queue(period),
        }
        return self._render(request, "admin/fraud/measures/page.html", "Fraud measures", context)

    def rule_view(self, request: HttpRequest) -> HttpResponse:
        """One rule in both modes: its days, what hits with it, and orders to look at."""
        if refusal := self._refuse(request):
            return refusal
        name, days = request.GET.get("rule", ""), read_days(request)
        period = Period.last(days)
        found = [rule for rule in measure_rules(period) if rule.rule == name]
        if not found:
            raise Http404(f"No rule {name} has judged an order in {days} days.")
        series, names = measure_days(period, name), name_rules()
        context = {
            "days": days,
            "tabs": list_tabs(RULE, days, rule=name),
            "back_url": f"{reverse(f'admin:{PAGE}')}?{urlencode({'days': days})}",
            "modes": [tell_mode(rule, names) for rule in found],
            "charts": [chart_daily_hits(series), chart_daily_labels(series)],
            "drifts": [show_drift(drift, names) for drift in find_drift() if drift.rule == name],
            "drift_head": DRIFT_HEAD,
            "examples": [show_example(example) for example in find_examples(period, name)],
        }
        return self._render(request, "admin/fraud/measures/rule.html", names.get(name, name), context)

    def export_view(self, request: HttpRequest) -> HttpResponseBase:
        """A line for each rule, mode and currency."""
        if refusal := self._refuse(request):
            return refusal
        days = read_days(request)
        rules = measure_rules(Period.last(days), mode=read_mode(request))
        return stream_csv(f"fraud-rules-{days}-days.csv", EXPORTED, iter_exported(rules))

    def _queue(self, period: Period) -> dict[str, Any]:
        queue = measure_queue(period)
        return {"queue": tell_queue(queue), "analysts": tell_analysts(queue)}

    def _refuse(self, request: HttpRequest) -> HttpResponse | None:
        if not self.has_view_permission(request):
            raise PermissionDenied
        return None if request.method in ("GET", "HEAD") else HttpResponseNotAllowed(["GET"])

    def _render(
        self, request: HttpRequest, template: str, title: str, context: dict[str, Any]
    ) -> HttpResponse:
        return self.render_page(request, template, title=title, context={**context, "media": self.media})


# --- what was asked for -------------------------------------------------------------------------------------


def read_days(request: HttpRequest) -> int:
    """One of `DAYS`, whatever was typed."""
    asked = request.GET.get("days", "")
    return next((days for days in DAYS if str(days) == asked), DAYS[0])


def read_mode(request: HttpRequest) -> str:
    asked = request.GET.get("mode", "")
    return asked if asked in MODES else ""


def read_sort(request: HttpRequest) -> str:
    """A key of `SORTS`, with `-` before it from the largest down."""
    asked = request.GET.get("sort", "")
    return asked if asked.removeprefix("-") in SORTS else "-hits"


def list_tabs(page: str, days: int, mode: str = "", **query: str) -> list[dict[str, Any]]:
    more = {**query, **({"mode": mode} if mode else {})}
    return [
        {
            "label": f"{number} days",
            "url": f"?{urlencode({'days': number, **more})}",
            "is_current": number == days,
        }
        for number in sorted(DAYS)
    ]


def list_modes(days: int, mode: str) -> list[dict[str, Any]]:
    return [
        {"label": label, "url": f"?{urlencode({'days': days, 'mode': name})}", "is_current": name == mode}
        for name, label in MODES.items()
    ]


def list_head(request: HttpRequest, days: int, mode: str) -> list[dict[str, Any]]:
    """The sortable columns; a click on the one that sorts turns it round."""
    sort = read_sort(request)
    head = []
    for name, (label, _) in SORTS.items():
        is_here, is_down = sort.removeprefix("-") == name, sort.startswith("-")
        wanted = name if (is_here and is_down) or (name == "rule" and not is_here) else f"-{name}"
        direction = ("descending" if is_down else "ascending") if is_here else "none"
        url = f"?{urlencode({'days': days, 'mode': mode, 'sort': wanted})}#rules"
        head.append({"label": label, "url": url, "direction": direction})
    return head


# --- what is told -------------------------------------------------------------------------------------------


def link_rule(name: str, days: int) -> str:
    return f"{reverse(f'admin:{RULE}')}?{urlencode({'rule': name, 'days': days})}"


def list_rules(
    rules: Iterable[RuleMeasure],
    drifts: Iterable[Drift],
    sort: str,
    days: int,
    names: Mapping[str, str],
) -> list[dict[str, Any]]:
    flagged = {drift.rule for drift in drifts if drift.is_flagged}
    by = SORTS[sort.removeprefix("-")][1]
    ordered = sorted(rules, key=lambda rule: (by(rule), rule.rule), reverse=sort.startswith("-"))
    return [_show_rule(rule, days, names, is_flagged=rule.rule in flagged) for rule in ordered]


def _show_rule(rule: RuleMeasure, days: int, names: Mapping[str, str], *, is_flagged: bool) -> dict[str, Any]:
    return {
        "measure": rule,
        "name": names.get(rule.rule, rule.rule),
        "url": link_rule(rule.rule, days),
        "badges": [
            *([state_badge("Shadow", "warning")] if rule.mode == "shadow" else []),
            *([state_badge("Drifts", "danger")] if is_flagged else []),
        ],
        "hit_rate": show_share(rule.hit_rate),
        "precision": show_share(rule.precision),
        "recall": show_share(rule.recall),
        "saved": show_money(rule.saved),
        "wrong": show_money(rule.blocked_wrongly),
    }


def tell_unknown(overall: Overall) -> list[tuple[str, SafeString]]:
    """How much of what follows rests on labels, and how much is not known."""
    return [
        ("Orders screened", show_interval(str(overall.screened), "")),
        ("With a label", show_share(overall.labelled)),
        ("Fraud, of the labelled", show_share(overall.fraud)),
        ("Blocked by a rule, with a label", show_share(overall.blocked_labelled)),
    ]


def tell_score(measure: ScoreMeasure) -> dict[str, Any]:
    """A line for each threshold: what it would flag, and how much of that was fraud."""
    lines = [
        (
            f"{point.threshold:.1f}",
            show_share(Proportion(point.flagged, point.labelled)),
            show_share(Proportion(point.caught, point.flagged)),
            show_share(Proportion(point.caught, point.fraud)),
        )
        for point in measure.points
    ]
    return {"name": measure.name, "orders": measure.orders, "lines": lines}


def tell_mode(rule: RuleMeasure, names: Mapping[str, str]) -> dict[str, Any]:
    """All that is told of a rule in one mode."""
    return {
        "measure": rule,
        "title": "In shadow: what it would have done" if rule.mode == "shadow" else "On",
        "facts": [
            ("Orders hit", rule.hits),
            ("Hit rate", show_share(rule.hit_rate)),
            ("Hits with a label", rule.labelled),
            ("Precision", show_share(rule.precision)),
            ("Recall", show_share(rule.recall)),
            ("Fraud that no other rule hit", rule.unique),
        ],
        "money": tell_money_cards(rule),
        "overlaps": [
            {
                "rule": names.get(other.rule, other.rule),
                "badge": state_badge("Shadow", "warning") if other.mode == "shadow" else "",
                "share": show_share(other.share),
                "orders": other.share.hits,
            }
            for other in rule.overlaps
        ],
    }


def show_example(example: Any) -> dict[str, Any]:
    return {
        "order": link("payments_order", example.order_id, example.reference),
        "case": link("fraud_review", example.review_id, "case") if example.review_id else "",
        "amount": money(example.amount, example.currency),
        "mode": "on" if example.is_on else "shadow",
        "end": "stopped" if example.is_stopped else "went on",
        "label": label_badge(example.is_fraud, example.source),
        "placed": age(example.created_at),
    }


# --- the download -------------------------------------------------------------------------------------------

_SHARES = ("hit_rate", "precision", "recall")
_SUMS = ("saved", "blocked_wrongly", "blocked_unknown", "let_through", "good_let_through")
EXPORTED = [
    *("rule", "mode", "judged", "hits", "labelled", "fraud", "caught_alone"),
    *(f"{name}{end}" for name in _SHARES for end in ("", "_n", "_low", "_high")),
    "currency",
    *(f"{name}_{what}" for name in _SUMS for what in ("orders", "amount")),
]


def iter_exported(rules: Iterable[RuleMeasure]) -> Iterator[Sequence[Cell]]:
    """Counts are of all currencies and repeated on each line; amounts are of the line's own."""
    for rule in rules:
        counts: list[Cell] = [
            *(rule.rule, rule.mode, rule.judged, rule.hits, rule.labelled, rule.fraud, rule.unique),
            *(cell for name in _SHARES for cell in _export_share(rule, name)),
        ]
        for currency in sorted({cell.currency for cell in rule.cells}) or [""]:
            yield [*counts, currency, *_export_sums(rule, currency)]


def _export_share(rule: RuleMeasure, name: str) -> list[Cell]:
    share = getattr(rule, name)
    if share.value is None:
        return ["", share.n, "", ""]
    low, high = share.interval
    return [f"{share.value:.4f}", share.n, f"{low:.4f}", f"{high:.4f}"]


def _export_sums(rule: RuleMeasure, currency: str) -> Iterator[Cell]:
    for name in _SUMS:
        orders, amount = getattr(rule, name).get(currency, (0, 0))
        yield orders
        yield to_major(amount, currency) if currency else ""
