"""How the measures are said: shares with what they can be trusted, amounts by currency, charts with their numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from fraud.measures import TOO_FEW, DayMeasure, Drift, Overall, Proportion, QueueMeasure, RuleMeasure
from fraud.models import LabelSource
from fraud.scores.drift import ScoreDrift
from payments.admin.base import age, describe_span, money, state_badge
from payments.admin.words import tell_actor

_NOTES = {
    "review": "orders that a person had to look at",
    "block": "orders that a rule refused",
    "challenge": "orders sent to 3-D Secure",
    "approved after review": "of the cases that were decided: reviews that were not needed",
    "overturned": "of the cases that were decided: a later word says the contrary",
    "chargebacks": "of the captured orders",
}


@dataclass(frozen=True, slots=True)
class Card:
    """One rate: by count with its interval, and by money in each currency."""

    label: str
    value: SafeString
    note: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart for the theme's canvas, and the same numbers as a table."""

    title: str
    kind: str
    data: str
    options: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    empty: str


def percent(value: float) -> str:
    """`12.5 %`; small shares with two digits, as a hundredth of a percent is money."""
    return f"{value:.2%}" if 0 < value < 0.1 else f"{value:.1%}"


def show_share(share: Proportion) -> SafeString:
    """The share with its interval and its n; of fewer than ten only the numbers."""
    if not share.n:
        return show_interval("–", "")
    if share.is_too_few:
        return show_interval(f"{share.hits} of {share.n}", "too few")
    low, high = share.interval
    value = share.value or 0.0
    return show_interval(percent(value), f"{percent(low)} to {percent(high)}, n = {share.n}")


def show_interval(value: str, note: str) -> SafeString:
    small = format_html('<small class="bo-quiet">{}</small>', note) if note else ""
    return format_html('<span class="fm-share"><b>{}</b>{}</span>', value, small)


def label_badge(is_fraud: bool | None, source: str = "") -> SafeString:
    """`Fraud`, `Genuine` or `Not known`, each in its colour; with who says so, where that is given."""
    if is_fraud is None:
        return state_badge("Not known", "default")
    by = f": {source.replace('_', ' ')}" if source else ""
    return state_badge(f"Fraud{by}", "danger") if is_fraud else state_badge(f"Genuine{by}", "success")


def show_money(sums: Mapping[str, tuple[int, int]]) -> SafeString:
    """A line for each currency: they are never added up."""
    lines = [(money(amount, currency), _orders(orders)) for currency, (orders, amount) in sums.items()]
    if not lines:
        return SafeString("–")
    return format_html_join(
        "",
        '<span class="fm-share"><span class="bo-money">{}</span><small class="bo-quiet">{}</small></span>',
        lines,
    )


def _orders(count: int) -> str:
    return f"{count} order{'' if count == 1 else 's'}"


def tell_rates(overall: Overall) -> list[Card]:
    return [
        Card(
            rate.name.capitalize(), show_share(rate.share), _NOTES[rate.name], tuple(_tell_parts(rate.money))
        )
        for rate in overall.rates
    ]


def _tell_parts(sums: Mapping[str, tuple[int, int]]) -> list[str]:
    return [
        f"{money(part, currency)} of {money(whole, currency)} ({percent(part / whole)})"
        for currency, (part, whole) in sums.items()
        if whole
    ]


def tell_sources(overall: Overall) -> list[dict[str, Any]]:
    return [
        {
            "source": LabelSource(source.source).label,
            "orders": source.orders,
            "fraud": source.fraud,
            "delay": describe_span(source.delay),
            "newest": age(source.newest),
        }
        for source in overall.sources
    ]


def tell_money_cards(rule: RuleMeasure) -> list[dict[str, Any]]:
    """What became of the money of the orders that it hit."""
    told = (
        ("Fraud, stopped", rule.saved, "what it saved, alone or with others"),
        ("Genuine, stopped", rule.blocked_wrongly, "blocked wrongly"),
        (
            "Not known, stopped",
            rule.blocked_unknown,
            "a blocked order has no label unless somebody gives it one",
        ),
        ("Fraud, went on", rule.let_through, "in shadow: what it would have caught"),
        ("Genuine, went on", rule.good_let_through, "in shadow: what it would have hit wrongly"),
    )
    return [{"label": label, "sums": show_money(sums), "note": note} for label, sums, note in told]


# --- the queue ----------------------------------------------------------------------------------------------


def tell_queue(queue: QueueMeasure) -> list[tuple[str, Any]]:
    return [
        ("Open now", queue.open),
        ("Late now", queue.late),
        ("The oldest", age(queue.oldest, is_open=True)),
        ("Decided in time", show_share(queue.in_time)),
    ]


def tell_analysts(queue: QueueMeasure) -> list[dict[str, Any]]:
    return [
        {
            "name": tell_actor(analyst.actor),
            "decided": analyst.decided,
            "approved": show_share(analyst.approved),
            "overturned": show_share(analyst.overturned),
            "median": describe_span(analyst.median),
            "slow": describe_span(analyst.slow),
        }
        for analyst in queue.analysts
    ]


# --- drift --------------------------------------------------------------------------------------------------

DRIFT_HEAD = ("Rule", "Last 7 days", "28 days before", "Change", "By chance", "")


def show_drift(drift: Drift, names: Mapping[str, str]) -> list[Any]:
    """The cells of a line."""
    change = f"{drift.change:+.0%}" if drift.change is not None else "new" if drift.recent.value else "–"
    chance = "too little to tell" if drift.chance is None else f"{max(drift.chance, 0.0001):.4f}"
    if drift.chance is not None and drift.chance < 0.0001:
        chance = "under 0.0001"
    badge = state_badge("Drifts", "danger") if drift.is_flagged else ""
    name = names.get(drift.rule, drift.rule)
    return [name, show_share(drift.recent), show_share(drift.before), change, chance, badge]


def tell_model_drift(drift: ScoreDrift | None) -> str:
    """How the model's scores are spread beside those of its training; empty without a model."""
    if drift is None:
        return ""
    if drift.index is None:
        return f"The model's scores: too little to tell ({drift.scores} in 7 days, or a model without its training's)."
    return (
        f"The model's scores of 7 days beside those of its training: {drift.reading} "
        f"(stability index {drift.index:.3f}, n = {drift.scores}; it has shifted from 0.25 on)."
    )


# --- charts -------------------------------------------------------------------------------------------------

_FRAUD, _GENUINE, _UNKNOWN = "var(--color-red-500)", "var(--color-primary-500)", "var(--color-base-400)"


def chart_labels(rules: Sequence[RuleMeasure], names: Mapping[str, str]) -> Chart:
    """What the orders were that each rule hit."""
    shown = [
        names.get(rule.rule, rule.rule) + (" (shadow)" if rule.mode == "shadow" else "") for rule in rules
    ]
    series = {
        "Fraud": ([rule.fraud for rule in rules], _FRAUD),
        "Genuine": ([rule.labelled - rule.fraud for rule in rules], _GENUINE),
        "Not known": ([rule.hits - rule.labelled for rule in rules], _UNKNOWN),
    }
    return _stack("What the orders were that each rule hit", "Rule", shown, series, is_lying=True)


def chart_daily_labels(days: Sequence[DayMeasure]) -> Chart:
    series = {
        "Fraud": ([day.fraud for day in days], _FRAUD),
        "Genuine": ([day.labelled - day.fraud for day in days], _GENUINE),
        "Not known": ([day.hits - day.labelled for day in days], _UNKNOWN),
    }
    chart = _stack("Orders hit per day, by what they were", "Day", [tell_day(d.day) for d in days], series)
    shares = [_tell_precision(day) for day in days]
    rows = [[*row, share] for row, share in zip(chart.rows, shares, strict=True)]
    return Chart(
        chart.title, chart.kind, chart.data, chart.options, [*chart.head, "Precision"], rows, chart.empty
    )


def _tell_precision(day: DayMeasure) -> str:
    if day.labelled < TOO_FEW:
        return f"{day.fraud} of {day.labelled}" if day.labelled else "–"
    return percent(day.fraud / day.labelled)


def chart_daily_hits(days: Sequence[DayMeasure]) -> Chart:
    """The hit rate in percent."""
    rates = [round(100 * day.hits / day.judged, 3) if day.judged else None for day in days]
    rows = [
        [
            tell_day(day.day),
            str(day.judged),
            str(day.hits),
            percent(day.hits / day.judged) if day.judged else "–",
        ]
        for day in days
    ]
    return chart_lines(
        "Hit rate per day, in percent",
        [tell_day(day.day) for day in days],
        {"Hit rate, %": (rates, _GENUINE)},
        ["Day", "Judged", "Hit", "Hit rate"],
        rows if any(day.judged for day in days) else [],
        "The rule judged no order in these days.",
    )


def chart_sweep(rule: str, parameter: str, points: Sequence[Mapping[str, Any]]) -> Chart:
    """Caught fraud and stopped genuine orders over the values that a back-test tried."""
    keys = {"Fraud stopped": "caught", "Genuine stopped": "bothered", "Hits of the rule": "hits"}
    series = {
        name: ([point[key] for point in points], colour)
        for (name, key), colour in zip(keys.items(), (_FRAUD, _GENUINE, _UNKNOWN), strict=True)
    }
    told = ("value", *keys.values(), "missed", "stopped")
    return chart_lines(
        f"{rule}: {parameter}",
        [str(point["value"]) for point in points],
        series,
        [parameter, *keys, "Fraud let pass", "Orders stopped"],
        [[str(point[key]) for key in told] for point in points],
        "No value was tried.",
    )


def chart_lines(
    title: str,
    names: Sequence[str],
    series: Mapping[str, tuple[Sequence[float | None], str]],
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    empty: str,
) -> Chart:
    """A line for each series, values with their colour; `rows` are the numbers as a table."""
    datasets = [
        {"label": label, "data": values, "borderColor": colour, "pointRadius": 2, "tension": 0}
        for label, (values, colour) in series.items()
    ]
    data = json.dumps({"labels": list(names), "datasets": datasets})
    return Chart(
        title, "line", data, _options(is_stacked=False, has_legend=len(series) > 1), head, rows, empty
    )


def _stack(
    title: str,
    what: str,
    names: Sequence[str],
    series: Mapping[str, tuple[list[int], str]],
    *,
    is_lying: bool = False,
) -> Chart:
    datasets = [
        {"label": label, "data": values, "backgroundColor": colour, "maxBarThickness": 28, "borderRadius": 2}
        for label, (values, colour) in series.items()
    ]
    rows = [
        [name, *(str(values[number]) for values, _ in series.values())] for number, name in enumerate(names)
    ]
    has_any = any(any(values) for values, _ in series.values())
    return Chart(
        title,
        "bar",
        json.dumps({"labels": list(names), "datasets": datasets}),
        _options(is_stacked=True, is_lying=is_lying),
        [what, *series],
        rows if has_any else [],
        "No rule hit an order in these days.",
    )


def _options(*, is_stacked: bool, has_legend: bool = True, is_lying: bool = False) -> str:
    axis = {"stacked": is_stacked, "beginAtZero": True, "ticks": {"color": "#7b8794"}, "grid": {}}
    legend = {"display": has_legend, "position": "bottom", "labels": {"boxWidth": 10, "color": "#7b8794"}}
    return json.dumps(
        {
            "animation": False,
            "responsive": True,
            "maintainAspectRatio": False,
            "indexAxis": "y" if is_lying else "x",
            "plugins": {"legend": legend},
            "scales": {"x": axis, "y": axis},
        }
    )


def tell_day(day: date) -> str:
    return f"{day:%-d %b}"
