"""Accounting periods: closed and reopened here, by who may, with a reason."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from payments import services
from payments.admin.base import (
    Action,
    BackOfficeAdmin,
    Fact,
    OperatorAction,
    age,
    column,
    name_actor,
    state_badge,
)
from payments.admin.forms import ReasonForm
from payments.admin.ledger import DayWidget, show_day
from payments.admin.words import tell_actor
from payments.errors import PaymentError
from payments.models import GatewayAccount, LedgerPeriod
from payments.redaction import redact


class CloseForm(forms.Form):
    """Which days of which account; both days are included."""

    account = forms.ModelChoiceField(
        GatewayAccount.objects.all(), label="Gateway account", widget=UnfoldAdminSelectWidget
    )
    first_day = forms.DateField(label="From", widget=DayWidget())
    last_day = forms.DateField(label="To", widget=DayWidget())
    note = forms.CharField(
        required=False, max_length=200, widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"})
    )

    def clean_note(self) -> str:
        return redact(str(self.cleaned_data["note"]))


def last_month() -> dict[str, date]:
    """Its first and its last day, by UTC."""
    last_day = timezone.now().date().replace(day=1) - timedelta(days=1)
    return {"first_day": last_day.replace(day=1), "last_day": last_day}


def reopen(period: LedgerPeriod, wish: Action) -> str:
    return f"{services.reopen_period(period.pk, reason=wish.data['reason'], actor=wish.actor)} is open again."


@admin.register(LedgerPeriod)
class LedgerPeriodAdmin(BackOfficeAdmin):
    list_display = ["days_text", "gateway_account", "state_text", "postings", "closer_text", "closed_text"]
    list_filter = ["gateway_account", ("last_day", admin.DateFieldListFilter)]
    list_select_related = ["gateway_account"]
    list_before_template = "admin/payments/ledger/close.html"
    ordering = ["-last_day", "-id"]
    empty_text = "No period was closed yet. Close a month once its reports are reconciled."
    page_template = "admin/payments/page.html"
    operator_actions = [
        OperatorAction(
            "reopen",
            "Reopen",
            "reopen_ledgerperiod",
            reopen,
            explanation="Entries may be booked on its days again. The closing and your reason stay on record.",
            form=ReasonForm,
            tone="danger",
            why_not=lambda period: "" if period.is_closed else "It is open.",
        )
    ]

    # --- the list -------------------------------------------------------------------------------------------

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        may_close = self.allows(request, "close_ledgerperiod")
        form = CloseForm(initial=last_month(), auto_id="id_close_%s") if may_close else None
        return super().changelist_view(request, {"close_form": form, **(extra_context or {})})

    @column("Days", ordering="last_day")
    def days_text(self, period: LedgerPeriod) -> str:
        return f"{show_day(period.first_day)} to {show_day(period.last_day)}"

    @column("State")
    def state_text(self, period: LedgerPeriod) -> SafeString:
        return state_badge("Closed", "success") if period.is_closed else state_badge("Reopened", "warning")

    @column("Closed by")
    def closer_text(self, period: LedgerPeriod) -> str:
        return tell_actor(period.closed_by)

    @column("Closed", ordering="closed_at")
    def closed_text(self, period: LedgerPeriod) -> SafeString:
        return age(period.closed_at)

    # --- the page -------------------------------------------------------------------------------------------

    def list_facts(self, row: LedgerPeriod) -> list[Fact]:
        reopened = [
            ("Reopened by", tell_actor(row.reopened_by)),
            ("Reopened", age(row.reopened_at)),
            ("Reason", row.reopen_reason),
        ]
        return [
            ("Gateway", row.gateway_account),
            ("Days", self.days_text(row)),
            ("Closed by", self.closer_text(row)),
            ("Closed", age(row.closed_at)),
            ("Note", row.note or "–"),
            ("Postings when closed", row.postings),
            ("Digest when closed", format_html("<code>{}</code>", row.digest)),
            ("Trial balance", self._trial_link(row)),
            *([] if row.is_closed else reopened),
        ]

    def page_context(self, request: HttpRequest, row: LedgerPeriod) -> dict[str, Any]:
        return {"title": self.days_text(row), "badges": [self.state_text(row)]}

    def _trial_link(self, row: LedgerPeriod) -> SafeString:
        url = f"{reverse('admin:payments_ledgeraccount_trial')}?account={row.gateway_account_id}&as_of={row.last_day}"
        return format_html('<a class="bo-link" href="{}">At the end of {}</a>', url, show_day(row.last_day))

    # --- closing --------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.close_view)
        return [path("close/", view, name="payments_ledgerperiod_close"), *super().get_urls()]

    def close_view(self, request: HttpRequest) -> HttpResponse:
        """To the new period's page, or back to the list with why not. Sent twice, the days are closed once."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.allows(request, "close_ledgerperiod"):
            raise PermissionDenied
        form = CloseForm(request.POST)
        back = HttpResponseRedirect(reverse("admin:payments_ledgerperiod_changelist"))
        if not form.is_valid():
            problems = "; ".join(
                f"{name}: {' '.join(map(str, texts))}" for name, texts in form.errors.items()
            )
            messages.error(request, f"{problems} Nothing was closed.")
            return back
        account = form.cleaned_data.pop("account")
        try:
            period = services.close_period(account, actor=name_actor(request), **form.cleaned_data)
        except PaymentError as error:
            messages.error(request, error.message)
            return back
        messages.success(request, f"{period} is closed.")
        return HttpResponseRedirect(self.url_of(period))
