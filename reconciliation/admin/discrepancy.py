"""The discrepancies: a list that opens on open work, and a page with both sides beside each other."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import URLPattern, path
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget

from payments.admin.base import Action, ActionForm, BackOfficeAdmin, OperatorAction, TabFilter
from payments.admin.words import age, column, link, money, state_badge, tell_actor
from reconciliation import services
from reconciliation.admin.export import iter_csv
from reconciliation.kinds import DiscrepancyType
from reconciliation.models import Discrepancy, DiscrepancyQuerySet, DiscrepancyState, ReasonCode

STATE_TONES = {"open": "warning", "assigned": "info", "resolved": "success", "closed": "success"}


# What is wrong, and what finance does about it.
STORIES = {
    DiscrepancyType.MISSING_INTERNAL: "The gateway reports a movement of money that our books do not have: a webhook "
    "was missed, or it was made at the gateway by hand. Replay the webhook, and it closes by itself.",
    DiscrepancyType.MISSING_GATEWAY: "Our books have a movement of money that no report of the gateway lists. Look "
    "for it at the gateway; when a later report lists it, this closes by itself.",
    DiscrepancyType.CURRENCY_MISMATCH: "Both sides have it, in different currencies. Ask the gateway which is right.",
    DiscrepancyType.AMOUNT_MISMATCH: "Both sides have it, with different amounts. Compare the operations with the "
    "rows of the report below.",
    DiscrepancyType.STATUS_MISMATCH: "Both sides have it, and disagree about what became of it.",
    DiscrepancyType.DUPLICATE_INTERNAL: "Our books have it more than once, the gateway only once.",
    DiscrepancyType.DUPLICATE_GATEWAY: "The gateway lists it more than once: the customer may have been charged "
    "twice. Refund one of them at the gateway when it is so.",
    DiscrepancyType.UNKNOWN_ROW_TYPE: "The report has a kind of row that nobody here has a rule for.",
}


class WorkFilter(TabFilter):
    """Opens on what is mine or nobody's."""

    title = "work"
    tabs = {
        "mine": "Mine and unassigned",
        "open": "All open",
        "resolved": "Resolved",
        "closed": "Closed by itself",
        "all": "Everything",
    }

    def queryset(self, request: HttpRequest, queryset: DiscrepancyQuerySet) -> QuerySet[Any]:  # type: ignore[override]
        self.user = request.user
        return super().queryset(request, queryset)

    def narrow(self, tab: str, queryset: DiscrepancyQuerySet) -> DiscrepancyQuerySet:  # type: ignore[override]
        match tab:
            case "mine":
                return queryset.mine_or_free(self.user)
            case "open":
                return queryset.unsettled()
            case "resolved" | "closed":
                return queryset.filter(state=tab)
            case _:
                return queryset


class ResolveForm(ActionForm):
    reason = forms.ChoiceField(choices=ReasonCode.choices, widget=UnfoldAdminSelectWidget)
    note = forms.CharField(
        required=False, max_length=2000, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3})
    )


class ReopenForm(ActionForm):
    note = forms.CharField(label="Why", max_length=2000, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}))


def assign_to_me(item: Discrepancy, wish: Action) -> str:
    user = get_user_model().objects.get_by_natural_key(wish.actor.removeprefix("user:"))
    services.assign(item, to=user, actor=wish.actor)
    return f"{item.pk} is yours now."


def give_back(item: Discrepancy, wish: Action) -> str:
    services.assign(item, to=None, actor=wish.actor)
    return f"{item.pk} is free again."


def resolve(item: Discrepancy, wish: Action) -> str:
    services.resolve(item, reason=wish.data["reason"], note=wish.data["note"], actor=wish.actor)
    return f"{item.pk} is resolved."


def reopen(item: Discrepancy, wish: Action) -> str:
    services.reopen(item, note=wish.data["note"], actor=wish.actor)
    return f"{item.pk} is open again."


def refuse_settled(item: Discrepancy) -> str:
    return "" if item.is_unsettled else f"It is {item.get_state_display().lower()}."


def refuse_free(item: Discrepancy) -> str:
    return "" if item.state == DiscrepancyState.ASSIGNED else "Nobody has it."


def refuse_unresolved(item: Discrepancy) -> str:
    return "" if item.state == DiscrepancyState.RESOLVED else "It is not resolved by hand."


@admin.register(Discrepancy)
class DiscrepancyAdmin(BackOfficeAdmin):
    list_display = ("kind", "key", "stake", "found", "status", "order_link", "account", "assignee")
    list_display_links = ("kind", "key")
    list_filter = (WorkFilter, "kind", "account", "currency")
    list_select_related = ("account", "order", "assigned_to")
    list_before_template = "admin/reconciliation/discrepancy/tabs.html"
    search_fields = ("id", "key", "order__reference", "order__id", "payment__id")
    search_help_text = "Any id or reference, of ours or the gateway's"
    ordering = ("first_seen", "id")
    empty_text = "Nothing is open: both sides agree, or their difference is explained."
    page_template = "admin/reconciliation/discrepancy/page.html"
    operator_actions = (
        OperatorAction(
            "resolve",
            "Resolve",
            "resolve_discrepancy",
            resolve,
            explanation="It stays resolved until one of the two sides changes. No money moves.",
            form=ResolveForm,
            why_not=refuse_settled,
        ),
        OperatorAction(
            "assign",
            "Assign to me",
            "assign_discrepancy",
            assign_to_me,
            explanation="It moves to your list, and the others see that you have it.",
            tone="default",
            why_not=refuse_settled,
        ),
        OperatorAction(
            "release",
            "Give back",
            "assign_discrepancy",
            give_back,
            explanation="It is nobody's again.",
            tone="default",
            why_not=refuse_free,
        ),
        OperatorAction(
            "reopen",
            "Open again",
            "resolve_discrepancy",
            reopen,
            explanation="It goes back to the open ones.",
            form=ReopenForm,
            tone="default",
            why_not=refuse_unresolved,
        ),
    )

    # --- the list -------------------------------------------------------------------------------------------
    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {
            "kind_tabs": list_kind_tabs(request),
            "can_export": self.allows(request, "export_discrepancy"),
        }
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup == "sightings__run" or bool(super().lookup_allowed(lookup, value, request))

    @column("At stake", ordering="amount")
    def stake(self, item: Discrepancy) -> str:
        return money(item.amount, item.currency)

    @column("Found", ordering="first_seen")
    def found(self, item: Discrepancy) -> SafeString:
        return age(item.first_seen, is_open=item.is_unsettled)

    @column("State", ordering="state")
    def status(self, item: Discrepancy) -> SafeString:
        return state_badge(item.get_state_display(), STATE_TONES[item.state])

    @column("Order")
    def order_link(self, item: Discrepancy) -> str:
        return link("payments_order", item.order_id, item.order.reference) if item.order else "–"

    @column("Assigned to", ordering="assigned_to__username")
    def assignee(self, item: Discrepancy) -> str:
        return item.assigned_to.get_username() if item.assigned_to else "nobody"

    # --- the page -------------------------------------------------------------------------------------------
    def get_queryset(self, request: HttpRequest) -> QuerySet[Discrepancy]:
        queryset: QuerySet[Discrepancy] = super().get_queryset(request)
        return queryset.select_related("account", "order", "assigned_to")

    def list_facts(self, row: Discrepancy) -> list[tuple[str, Any]]:
        order = link("payments_order", row.order_id, row.order.reference) if row.order else "–"
        return [
            ("Reference", row.key),
            ("Found", self.found(row)),
            ("Account", row.account),
            ("Order", order),
            ("Assigned to", self.assignee(row)),
            *_list_end(row),
        ]

    def page_context(self, request: HttpRequest, row: Discrepancy) -> dict[str, Any]:
        return {
            "title": row.get_kind_display(),
            "badges": [self.status(row)],
            "amount": self.stake(row),
            "story": STORIES[DiscrepancyType(row.kind)],
            "sides": compare_sides(row),
            "operations": [
                {**part, "amount": money(part["amount"], part["currency"])}
                for part in row.ours.get("operations", [])
            ],
            "report_rows": [format_report_row(part) for part in row.theirs.get("rows", [])],
            "sightings": [
                (link("reconciliation_run", seen.run_id, seen.run), age(seen.seen_at))
                for seen in row.sightings.select_related("run__account")[:20]
            ],
            "history": [(event, age(event.at), tell_actor(event.actor)) for event in row.events.all()[:50]],
        }

    # --- the export -----------------------------------------------------------------------------------------
    def get_urls(self) -> list[URLPattern]:
        export = self.admin_site.admin_view(self.export_view)
        return [path("export/", export, name="reconciliation_discrepancy_export"), *super().get_urls()]

    def export_view(self, request: HttpRequest) -> StreamingHttpResponse:
        """What the list shows under these filters, as CSV."""
        if not self.has_view_permission(request) or not self.allows(request, "export_discrepancy"):
            raise PermissionDenied
        queryset = self.get_changelist_instance(request).get_queryset(request)
        response = StreamingHttpResponse(iter_csv(queryset), content_type="text/csv; charset=utf-8")
        response["Content-Disposition"] = 'attachment; filename="discrepancies.csv"'
        return response


def _list_end(item: Discrepancy) -> list[tuple[str, Any]]:
    """How it was settled, when it was."""
    if item.state == DiscrepancyState.RESOLVED:
        reason = f"{item.get_reason_display()}. {item.note}".strip()
        return [
            ("Resolved by", tell_actor(item.resolved_by)),
            ("Resolved", age(item.resolved_at)),
            ("Reason", reason),
        ]
    if item.state == DiscrepancyState.CLOSED:
        return [("Closed by itself", age(item.closed_at)), ("Because", item.get_closed_cause_display())]
    return []


def list_kind_tabs(request: HttpRequest) -> list[dict[str, Any]]:
    """One per kind that has open ones, with their number; the other filters stay as they are."""
    counts = dict(Discrepancy.objects.unsettled().values_list("kind").annotate(Count("id")).order_by("kind"))
    query = request.GET.copy()
    chosen = query.pop("kind__exact", [""])[0]
    query.pop("p", None)
    tabs = [("", "All kinds", sum(counts.values()))]
    tabs += [(kind.value, kind.label, counts.get(kind.value, 0)) for kind in DiscrepancyType]
    shown = []
    for kind, label, count in tabs:
        if kind and not count and kind != chosen:
            continue
        if kind:
            query["kind__exact"] = kind
        shown.append({"label": label, "count": count, "query": query.urlencode(), "on": kind == chosen})
    return shown


def compare_sides(item: Discrepancy) -> list[dict[str, Any]]:
    """Field by field, ours beside theirs, with what differs marked."""
    return [
        {
            "name": name,
            "ours": _format_side(item.ours, name),
            "theirs": _format_side(item.theirs, name),
            "differs": name in item.fields or bool(item.ours) != bool(item.theirs),
        }
        for name in ("amount", "currency", "status")
    ]


def _format_side(side: dict[str, Any], name: str) -> str:
    if not side:
        return "nothing"
    return money(side["amount"], side["currency"]) if name == "amount" else str(side[name])


def format_report_row(row: dict[str, Any]) -> dict[str, Any]:
    """A kept row of the gateway with its amounts for people."""
    settled = {name: money(row[name], row["settlement_currency"]) for name in ("gross", "fee", "net")}
    return {**row, **settled, "amount": money(row["amount"], row["currency"])}
