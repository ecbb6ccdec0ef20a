"""The calls for on-call: what nobody has taken yet comes first, with why each channel failed."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments import oncall
from payments.admin.base import BackOfficeAdmin, Fact, TabFilter, age, column, link, money, state_badge
from payments.models import OnCallPage


class CallView(TabFilter):
    tabs = {"untaken": "Not taken yet", "all": "All"}

    def narrow(self, tab: str, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset if tab == "all" else queryset.filter(sent_at__isnull=True)


@admin.register(OnCallPage)
class OnCallPageAdmin(BackOfficeAdmin):
    list_display = ["text_text", "count", "state_text", "trouble_text", "tries", "age_text"]
    list_display_links = ["text_text"]
    list_filter = [CallView, ("created_at", admin.DateFieldListFilter)]
    search_fields = ["cause", "text"]
    ordering = ["-id"]
    page_template = "admin/payments/page.html"
    empty_text = "Every call was taken."

    @column("Call")
    def text_text(self, row: OnCallPage) -> str:
        return row.text

    @column("State")
    def state_text(self, row: OnCallPage) -> SafeString:
        if row.sent_at and not (row.posted_at or row.mailed_at):
            return state_badge("Only logged", "warning")
        if row.sent_at:
            return state_badge("Sent", "success")
        has_failed = row.error or row.mail_error
        return state_badge("Not taken yet", "danger") if has_failed else state_badge("To be sent", "info")

    @column("Trouble")
    def trouble_text(self, row: OnCallPage) -> SafeString:
        return format_html('<span class="bo-clip">{}</span>', _tell_trouble(row) or "–")

    @column("Age", ordering="id")
    def age_text(self, row: OnCallPage) -> SafeString:
        return age(row.created_at, is_open=row.sent_at is None)

    def list_facts(self, row: OnCallPage) -> list[Fact]:
        saga = str(row.detail.get("saga", ""))
        at_risk = ", ".join(money(minor, currency) for currency, minor in oncall.find_at_risk(row).items())
        return [
            ("Cause", row.cause),
            ("Times in that hour", str(row.count)),
            ("Money at risk now", at_risk or "none"),
            ("Saga", link("payments_sagarun", saga, saga) if saga else ""),
            ("About", format_html('<a class="bo-link" href="{}">Open</a>', row.path) if row.path else "–"),
            ("What to do", format_html('<a class="bo-link" href="{}">Guide</a>', oncall.link_runbook(row))),
            ("First", age(row.created_at)),
            ("Posted", age(row.posted_at)),
            ("Mailed", age(row.mailed_at)),
            ("Tries", str(row.tries)),
            ("Next try", age(row.leased_until)),
            ("Trouble", _tell_trouble(row) or "none"),
        ]

    def page_context(self, request: HttpRequest, row: OnCallPage) -> dict[str, Any]:
        return {"title": row.text, "badges": [self.state_text(row)]}


def _tell_trouble(row: OnCallPage) -> str:
    """Why a channel did not take it."""
    parts = {"ONCALL_URL": row.error, "ONCALL_EMAIL": row.mail_error}
    return "; ".join(f"{name}: {error}" for name, error in parts.items() if error)
