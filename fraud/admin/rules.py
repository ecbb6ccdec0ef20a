"""The pages of lists and assessments."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Exists, OuterRef, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import TabularInline

from fraud.models import Assessment, Verdict
from payments.admin.base import BackOfficeAdmin, age, column, link, show_json
from fraud import services
from fraud.admin.forms import NewListEntryForm
from fraud.decision import Status
from fraud.models import Assessment, ListEntry, RuleSet, Verdict
from payments.admin.base import BackOfficeAdmin, age, column, link, name_actor, show_json
from payments.admin.words import tell_actor


@admin.register(ListEntry)
class ListEntryAdmin(ModelAdmin):  # type: ignore[misc]
    """Values come in the clear and are kept as keyed hashes; later only reason and expiry can change."""

    list_display = [
        "value_masked",
        "kind",
        "list_badge",
        "reason",
        "expires_text",
        "author_text",
        "created_text",
    ]
    list_filter = ["list", "kind", ("expires_at", admin.EmptyFieldListFilter)]
    search_fields = ["value_hash", "value_masked", "reason"]
    search_help_text = "Search by the whole value (it is hashed), its masked form, or the reason"

    def get_fields(self, request: HttpRequest, obj: ListEntry | None = None) -> list[str]:
        if obj is None:
            return ["list", "kind", "value", "reason", "expires_at"]
        return ["list", "kind", "value_masked", "reason", "expires_at", "created_by", "created_at"]

    def get_readonly_fields(self, request: HttpRequest, obj: ListEntry | None = None) -> list[str]:
        return ["list", "kind", "value_masked", "created_by", "created_at"] if obj else []

    def get_form(
        self, request: HttpRequest, obj: ListEntry | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        if obj is None:
            kwargs["form"] = NewListEntryForm
        return super().get_form(request, obj, change=change, **kwargs)

    def save_model(
        self, request: HttpRequest, obj: ListEntry, form: ModelForm[ListEntry], change: bool
    ) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        wish = form.cleaned_data
        entry = services.add_to_list(
            wish["list"],
            wish["kind"],
            wish["value"],
            reason=wish["reason"],
            created_by=name_actor(request),
            expires_at=wish["expires_at"],
        )
        obj.pk, obj.value_masked, obj.value_hash = entry.pk, entry.value_masked, entry.value_hash
        obj._state.adding = False

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ListEntry], search_term: str
    ) -> tuple[QuerySet[ListEntry], bool]:
        found, may_have_duplicates = super().get_search_results(request, queryset, search_term)
        return found | queryset.filter(
            value_hash__in=services.possible_hashes(search_term)
        ), may_have_duplicates

    @column("Ends", ordering="expires_at")
    def expires_text(self, entry: ListEntry) -> SafeString | str:
        return age(entry.expires_at) if entry.expires_at else "never"

    @column("Made by", ordering="created_by")
    def author_text(self, entry: ListEntry) -> str:
        return tell_actor(entry.created_by)

    @column("Made", ordering="created_at")
    def created_text(self, entry: ListEntry) -> SafeString:
        return age(entry.created_at)

    @column(
        "List",
        ordering="list",
        label={"Block": "danger", "Allow": "success", "Review": "warning"},
    )
    def list_badge(self, entry: ListEntry) -> str:
        return str(entry.get_list_display())


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
    list_filter = ["decision", "stage", HitByFilter, "created_at"]
    list_select_related = ["order"]
    search_fields = ["id", "order__id", "order__reference"]
    fields = ["order", "stage", "decision", "score", "microseconds", "created_at", "facts"]
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

    @column("When", ordering="stage")
    def stage_text(self, assessment: Assessment) -> str:
        return f"{assessment.stage.capitalize()} the authorization"

    @column("Took", ordering="microseconds")
    def took_text(self, assessment: Assessment) -> str:
        return f"{assessment.microseconds / 1000:.1f} ms"

    @column("Screened", ordering="id")
    def created_text(self, assessment: Assessment) -> SafeString:
        return age(assessment.created_at)

    @column("Facts as they were")
    def facts(self, assessment: Assessment) -> SafeString:
        return format_html("<details><summary>Data</summary>{}</details>", show_json(assessment.context))
