"""The pages of back-tests: progress, what would have changed, the sweep, examples and downloads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from fraud.admin.measure_words import Chart, chart_sweep, show_share
from fraud.backtest import running
from fraud.backtest.running import Sweep
from fraud.decision import Mode
from fraud.measures import Proportion
from fraud.models import BackTest, BackTestState, RuleSet
from fraud.rulesets import name_rules
from payments.admin.base import (
    Action,
    ActionForm,
    BackOfficeAdmin,
    Fact,
    OperatorAction,
    age,
    column,
    link,
    money,
)
from payments.admin.exports import Cell, stream_csv
from payments.admin.words import tell_actor
from payments.models import Order

RELOAD_SECONDS = 3
PERIODS = [(28, "28 days"), (7, "7 days"), (90, "90 days"), (396, "13 months")]
DECISION_WORDS = {"approve": "approved", "challenge": "challenged", "review": "reviewed", "block": "blocked"}
NO_SWEEP = ""


class BackTestForm(ActionForm):
    """The period, the set to compare with, and what to vary."""

    days = forms.TypedChoiceField(
        label="Orders of the last", coerce=int, choices=PERIODS, widget=UnfoldAdminSelectWidget
    )
    beside = forms.ModelChoiceField(
        label="Beside",
        queryset=RuleSet.objects.none(),
        required=False,
        empty_label="what was decided then",
        widget=UnfoldAdminSelectWidget,
        help_text="The other set is tried on the same orders.",
    )
    vary = forms.ChoiceField(label="Try several values of", required=False, widget=UnfoldAdminSelectWidget)
    values = forms.CharField(
        required=False,
        max_length=500,
        widget=UnfoldAdminTextInputWidget,
        help_text="Numbers such as 2, 3, 5 or a range with its step such as 2-20/2. At most 50.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        beside, vary = self.fields["beside"], self.fields["vary"]
        assert isinstance(beside, forms.ModelChoiceField)
        assert isinstance(vary, forms.ChoiceField)
        beside.queryset = RuleSet.objects.exclude(pk=self.row.pk).exclude(state="discarded")
        beside.initial = RuleSet.objects.live()
        vary.choices = [(NO_SWEEP, "nothing"), *_find_parameters(self.row)]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if cleaned.get("vary"):
            try:
                cleaned["values"] = read_values(cleaned.get("values", ""))
            except ValueError as error:
                self.add_error("values", str(error))
        return cleaned


def _find_parameters(ruleset: RuleSet) -> Iterable[tuple[str, str]]:
    """Every number that a rule of the set is given, unless it is off."""
    for rule in ruleset.rules.exclude(mode=Mode.OFF):
        for name, value in rule.parameters.items():
            if isinstance(value, int | float):
                yield f"{rule.key}/{name}", f"{rule.name}: {name} (now {value})"


def read_values(text: str) -> list[int | float]:
    """`2, 3, 5` or `2-20/2`, both bounds included. Raises `ValueError` in words for people."""
    values: list[int | float] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        values += _read_range(part) if "-" in part[1:] and "e-" not in part else [_read_number(part)]
    if not 1 <= len(values) <= running.MAX_SWEEP:
        raise ValueError(f"Give 1 to {running.MAX_SWEEP} values; these are {len(values)}.")
    return values


def _read_range(text: str) -> list[int | float]:
    bounds, _, step_text = text.partition("/")
    step_text = step_text or "1"
    low_text, _, high_text = bounds.partition("-")
    low, high, step = _read_number(low_text), _read_number(high_text), _read_number(step_text)
    if step <= 0 or high < low:
        raise ValueError(f"“{text}” is no range: the first bound is the lower one, and the step is above 0.")
    count = min(int((high - low) / step), running.MAX_SWEEP) + 1
    return [low + number * step for number in range(count)]


def _read_number(text: str) -> int | float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"“{text.strip()}” is not a number.") from None
    if abs(number) > 1e12 or number != number:
        raise ValueError(f"“{text.strip()}” is out of range.")
    return int(number) if number.is_integer() else number


def start(ruleset: RuleSet, action: Action) -> str:
    wish, now = action.data, timezone.now()
    rule, _, parameter = str(wish["vary"]).partition("/")
    backtest = running.start(
        ruleset,
        actor=action.actor,
        since=now - timedelta(days=wish["days"]),
        until=now,
        beside=wish["beside"],
        sweep=Sweep(rule, parameter, wish["values"]) if rule else None,
    )
    return f"{backtest} was started; it is in the list of back-tests."


START = OperatorAction(
    "backtest",
    "Back-test",
    permission="run_backtest",
    perform=start,
    form=BackTestForm,
    explanation="Decides past orders again by this set, in a worker. It changes nothing.",
    tone="default",
)


def cancel(backtest: BackTest, action: Action) -> str:
    running.cancel(backtest.pk)
    return "The back-test was canceled."


@admin.register(BackTest)
class BackTestAdmin(BackOfficeAdmin):
    """Every back-test, the newest first. A new one is started on the page of its rule set."""

    list_display = ["title", "beside_text", "period_text", "state_badge", "actor_text", "created_text"]
    list_display_links = ["title"]
    list_filter = ["state"]
    list_select_related = ["ruleset", "beside"]
    empty_text = "No back-test yet. Start one on the page of a rule set."
    page_template = "admin/fraud/backtest/page.html"
    operator_actions = (
        OperatorAction(
            "cancel",
            "Cancel",
            permission="run_backtest",
            perform=cancel,
            explanation="The worker stops at its next step; nothing of it is kept.",
            tone="danger",
            why_not=lambda backtest: "It has ended." if backtest.has_ended else "",
        ),
    )

    class Media:
        css = {"all": ["fraud/measures.css"]}

    def get_urls(self) -> list[URLPattern]:
        export = self.admin_site.admin_view(self.export_view)
        return [path("<str:object_id>/export/", export, name="fraud_backtest_export"), *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """While it runs the page comes again by itself, without a script."""
        response = super().change_view(request, object_id, form_url, extra_context)
        if not self.find_row(request, object_id).has_ended:
            response["Refresh"] = str(RELOAD_SECONDS)
        return response

    def export_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Every figure of the page, a line each."""
        backtest = self.find_row(request, object_id)
        columns = ["table", "row", "figure", "value"]
        return stream_csv(f"{backtest.pk}.csv", columns, list_figures(backtest.result))

    def list_facts(self, row: BackTest) -> list[Fact]:
        return [
            ("Rule set", link("fraud_ruleset", row.ruleset_id, str(row.ruleset))),
            ("Beside", str(row.beside or "what was decided then")),
            ("Orders screened", f"{row.since:%Y-%m-%d %H:%M} to {row.until:%Y-%m-%d %H:%M} UTC"),
            ("Asked by", tell_actor(row.created_by)),
            ("State", row.get_state_display()),
        ]

    def page_context(self, request: HttpRequest, row: BackTest) -> dict[str, Any]:
        result = row.result
        shown = {"backtest": row, "is_running": not row.has_ended, "media": self.media}
        if row.state != BackTestState.DONE:
            return shown
        names = _name_orders(result)
        return {
            **shown,
            "sets": [
                tell_set(str(row.ruleset), result["set"]),
                *([tell_set(str(row.beside), result["beside"])] if row.beside else []),
            ],
            "changes": [tell_change(change, names) for change in result.get("changes", result["as_decided"])],
            "changes_title": f"What {row.ruleset} changes beside {row.beside or 'what was decided'}",
            "rules": [tell_rule(rule, names) for rule in result["rules"]],
            "sweep": _chart_sweep(row) if row.sweep else None,
        }

    @column("Back-test")
    def title(self, backtest: BackTest) -> str:
        return str(backtest)

    @column("Beside")
    def beside_text(self, backtest: BackTest) -> str:
        return str(backtest.beside or "what was decided")

    @column("Orders screened", ordering="since")
    def period_text(self, backtest: BackTest) -> str:
        return f"{backtest.since:%Y-%m-%d} to {backtest.until:%Y-%m-%d}"

    @column(
        "State",
        ordering="state",
        label={"Done": "success", "Failed": "danger", "Running": "info", "Waiting": "warning"},
    )
    def state_badge(self, backtest: BackTest) -> str:
        return str(backtest.get_state_display())

    @column("Asked by", ordering="created_by")
    def actor_text(self, backtest: BackTest) -> str:
        return tell_actor(backtest.created_by)

    @column("Asked", ordering="id")
    def created_text(self, backtest: BackTest) -> SafeString:
        return age(backtest.created_at)


# --- words --------------------------------------------------------------------------------------------------


def tell_set(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """One column of the comparison: decisions, money, and how far they fit what is known of the orders."""
    decisions = found["decisions"]
    orders = found["orders"]
    return {
        "name": name,
        "decisions": [
            (DECISION_WORDS[decision], show_share(Proportion(decisions.get(decision, 0), orders)))
            for decision in DECISION_WORDS
        ],
        "precision": show_share(Proportion(found["caught"], found["caught"] + found["bothered"])),
        "recall": show_share(Proportion(found["caught"], found["caught"] + found["missed"])),
        "unlabelled": orders - found["labelled"],
        "orders": orders,
    }


def tell_change(change: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    before, after = DECISION_WORDS[change["before"]], DECISION_WORDS[change["after"]]
    unknown = change["orders"] - change["fraud"] - change["genuine"]
    return {
        **change,
        "words": f"{before}, now {after}",
        "unknown": unknown,
        "money": tell_money(change["money"]),
        "examples": link_orders(change["examples"], names),
    }


def tell_rule(rule: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    labelled = rule["hit_fraud"] + rule["hit_genuine"]
    return {
        **rule,
        "precision": show_share(Proportion(rule["hit_fraud"], labelled)),
        "money": tell_money(rule["money"]),
        "examples": link_orders(rule["examples"][:5], names),
    }


def tell_money(sums: Mapping[str, int]) -> str:
    """A sum for each currency: they are never added up."""
    return ", ".join(money(minor, currency) for currency, minor in sums.items()) or "–"


def link_orders(order_ids: Sequence[str], names: Mapping[str, str]) -> SafeString:
    links = (
        (link("payments_order", order_id, names[order_id]),) for order_id in order_ids if order_id in names
    )
    return format_html_join(", ", "{}", links)


def _name_orders(result: Mapping[str, Any]) -> dict[str, str]:
    """The references of all examples, in one query."""
    rows = [*result["rules"], *result["as_decided"], *result.get("changes", [])]
    wanted = {order_id for row in rows for order_id in row["examples"]}
    return dict(Order.objects.filter(pk__in=wanted).values_list("pk", "reference"))


def _chart_sweep(row: BackTest) -> Chart:
    key = row.sweep["rule"]
    return chart_sweep(name_rules().get(key, key), row.sweep["parameter"], row.result["sweep"])


def list_figures(result: Mapping[str, Any]) -> Iterable[Sequence[Cell]]:
    """`table, row, figure, value` for every number that the back-test found; examples are order ids."""
    for table in ("set", "beside"):
        yield from _list_row(table, table, result.get(table, {}))
    for table, name in (("rules", "key"), ("as_decided", "after"), ("changes", "after"), ("sweep", "value")):
        for row in result.get(table, []):
            label = f"{row['before']} to {row['after']}" if "before" in row else str(row[name])
            yield from _list_row(table, label, row)


def _list_row(table: str, label: str, row: Mapping[str, Any], prefix: str = "") -> Iterable[Sequence[Cell]]:
    for figure, value in row.items():
        if isinstance(value, Mapping):
            yield from _list_row(table, label, value, f"{prefix}{figure} ")
        elif isinstance(value, list):
            yield table, label, f"{prefix}{figure}", " ".join(map(str, value))
        else:
            yield table, label, f"{prefix}{figure}", value if isinstance(value, int) else str(value)
