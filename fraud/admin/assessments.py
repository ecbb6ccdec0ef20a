"""The pages of screenings."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import TabularInline

from fraud.decision import Status
from fraud.models import Assessment, RuleSet, Verdict
from payments.admin.base import BackOfficeAdmin, age, column, link, show_json


class VerdictInline(TabularInline):  # type: ignore[misc]
    """Every rule that ran, with what it saw."""

    model = Verdict
    fields = ["rule_name", "status", "value", "threshold", "points", "outcome", "took"]
    readonly_fields = fields
    extra = 0
    can_delete = False

    @column("Took")
    def took(self, verdict: Verdict) -> str:
        return f"{verdict.nanoseconds / 1000:.1f} µs"

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class HitByFilter(admin.SimpleListFilter):
    """Screenings in which one rule, of whatever version, had something to say: a link of the rule's page."""

    title = "rule"
    parameter_name = "rule"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        live = RuleSet.objects.live()
        rules = list(live.rules.values_list("key", "name")) if live else []
        chosen = request.GET.get(self.parameter_name, "")
        return rules if not chosen or chosen in dict(rules) else [*rules, (chosen, chosen)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Assessment]) -> QuerySet[Assessment]:
        if not self.value():
            return queryset
        said = Verdict.objects.filter(assessment=OuterRef("pk"), rule_key=self.value())
        return queryset.filter(Exists(said.exclude(status=Status.MISS)))


@admin.register(Assessment)
class AssessmentAdmin(BackOfficeAdmin):
    """Every screening, as it was."""

    list_display = ["stage_text", "order_text", "decision_badge", "score", "took_text", "created_text"]
    list_display_links = ["stage_text"]
    list_title = "Screenings"
    list_filter = ["decision", "stage", HitByFilter, "created_at"]
    list_select_related = ["order"]
    search_fields = ["id", "order__id", "order__reference"]
    search_help_text = "Search by screening, order, reference"
    fields = ["order", "stage_text", "ruleset", "decision_badge", "score", "took_text", "at_text", "facts"]
    readonly_fields = fields
    inlines = [VerdictInline]

    @column(
        "Decision",
        ordering="decision",
        label={"Approve": "success", "Challenge": "info", "Review": "warning", "Block": "danger"},
    )
    def decision_badge(self, assessment: Assessment) -> str:
        return str(assessment.get_decision_display())

    @column("Order", ordering="order__reference")
    def order_text(self, assessment: Assessment) -> SafeString:
        return link("payments_order", assessment.order_id, assessment.order.reference)

    @column("Screening", ordering="stage")
    def stage_text(self, assessment: Assessment) -> str:
        return f"{assessment.stage.capitalize()} the authorization"

    @column("Took", ordering="microseconds")
    def took_text(self, assessment: Assessment) -> str:
        return f"{assessment.microseconds / 1000:.1f} ms"

    @column("Screened", ordering="id")
    def created_text(self, assessment: Assessment) -> SafeString:
        return age(assessment.created_at)

    @column("At")
    def at_text(self, assessment: Assessment) -> str:
        return f"{assessment.created_at:%Y-%m-%d %H:%M:%S} UTC"

    @column("Facts as they were")
    def facts(self, assessment: Assessment) -> SafeString:
        return format_html("<details><summary>Data</summary>{}</details>", show_json(assessment.context))
