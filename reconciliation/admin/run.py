"""The runs: their progress, what they found, and the buttons that start one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.safestring import SafeString

from payments.admin.base import Action, BackOfficeAdmin, OperatorAction, name_actor
from payments.admin.words import age, column, describe_span, money, state_badge
from payments.errors import InvalidRequestError, PaymentError
from payments.models import GatewayAccount
from reconciliation import paging, services
from reconciliation.kinds import DiscrepancyType
from reconciliation.models import Run, RunState, RunTrigger

STATE_TONES = {state.value: "info" for state in RunState} | {"completed": "success", "failed": "danger"}
PHASES = (RunState.FETCHING, RunState.STAGING, RunState.MATCHING, RunState.HANDLING)


class RunForm(forms.Form):
    account = forms.ModelChoiceField(GatewayAccount.objects.all())
    day = forms.DateField()


class UploadForm(RunForm):
    report = forms.FileField()


def run_again(run: Run, wish: Action) -> str:
    services.request_run(run.account, day=run.day, trigger=RunTrigger.ADMIN, actor=wish.actor)
    return f"The run of {run} is on its way."


@admin.register(Run)
class RunAdmin(BackOfficeAdmin):
    list_display = ("day_text", "account", "status", "result", "found", "expected", "took", "requested_by")
    list_display_links = ("day_text", "account")
    empty_text = "No report was reconciled yet. It runs every night; “Run now” does not wait for it."
    list_filter = ("state", "account", "trigger")
    list_select_related = ("account", "file")
    list_before_template = "admin/reconciliation/run/start.html"
    search_fields = ("id", "file__name", "file__sha256")
    ordering = ("-day", "-id")
    page_template = "admin/reconciliation/run/page.html"
    operator_actions = (
        OperatorAction(
            "again",
            "Run again",
            "start_run",
            run_again,
            explanation="The report is fetched again, and this run is brought up to date.",
            why_not=lambda run: "It is at work." if run.is_active else "",
        ),
    )

    # --- the list -------------------------------------------------------------------------------------------
    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {
            "accounts": GatewayAccount.objects.all(),
            "yesterday": timezone.now().date() - timedelta(days=1),
            "can_start": self.allows(request, "start_run"),
            "can_upload": self.allows(request, "upload_report"),
        }
        return super().changelist_view(request, {**context, **(extra_context or {})})

    @column("Day", ordering="day")
    def day_text(self, run: Run) -> str:
        return f"{run.day:%-d %b %Y}"

    @column("State", ordering="state")
    def status(self, run: Run) -> SafeString:
        return state_badge(run.get_state_display(), STATE_TONES[run.state])

    @column("Matched")
    def result(self, run: Run) -> str:
        return (
            f"{run.matched} of {run.total}"
            if run.state == RunState.COMPLETED
            else f"{run.rows_read} rows read"
        )

    @column("Discrepancies")
    def found(self, run: Run) -> SafeString | str:
        if run.state != RunState.COMPLETED:
            return "–"
        return state_badge(run.discrepancies or "none", "warning" if run.discrepancies else "success")

    @column("Took")
    def took(self, run: Run) -> str:
        return describe_span((run.finished_at or timezone.now()) - run.started_at) if run.started_at else "–"

    # --- the page -------------------------------------------------------------------------------------------
    def list_facts(self, row: Run) -> list[tuple[str, Any]]:
        return [
            ("State", self.status(row)),
            ("Matched", self.result(row)),
            ("Started by", f"{row.get_trigger_display()}, {row.requested_by}"),
            ("Started", age(row.started_at)),
            ("Took", self.took(row)),
            ("Times started", row.attempt),
        ]

    def page_context(self, request: HttpRequest, row: Run) -> dict[str, Any]:
        return {
            "steps": list_steps(row),
            "kinds": [(kind, row.counts[kind]) for kind in DiscrepancyType if row.counts.get(kind)],
            "totals": [format_totals(code, sums) for code, sums in sorted(row.totals.items())],
            "received": age(row.file.received_at) if row.file else "",
            "pages": [(page, age(page.sent_at)) for page in paging.find_pages(row)],
        }

    # --- starting one ---------------------------------------------------------------------------------------
    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("start/", view(self.start_view), name="reconciliation_run_start"),
            path("upload/", view(self.upload_view), name="reconciliation_run_upload"),
            *super().get_urls(),
        ]

    def start_view(self, request: HttpRequest) -> HttpResponse:
        return self._start(request, "start_run", lambda: RunForm(request.POST))

    def upload_view(self, request: HttpRequest) -> HttpResponse:
        return self._start(request, "upload_report", lambda: UploadForm(request.POST, request.FILES))

    def _start(self, request: HttpRequest, permission: str, make_form: Callable[[], RunForm]) -> HttpResponse:
        """To the run's page, or back to the list with what was wrong. Starting twice is starting once."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.allows(request, permission):
            raise PermissionDenied
        try:
            run = request_run(make_form(), actor=name_actor(request))
        except PaymentError as error:
            messages.error(request, error.message)
            return HttpResponseRedirect(reverse("admin:reconciliation_run_changelist"))
        messages.success(request, f"The run of {run} is on its way.")
        return HttpResponseRedirect(self.url_of(run))


def request_run(form: RunForm, *, actor: str) -> Run:
    """Start what the form asks for. Raises `InvalidRequestError` for a form or a report that cannot be used."""
    if not form.is_valid():
        problems = "; ".join(f"{name}: {' '.join(map(str, errors))}" for name, errors in form.errors.items())
        raise InvalidRequestError(f"{problems} Nothing was started.")
    report = form.cleaned_data.get("report")
    return services.request_run(
        form.cleaned_data["account"],
        day=form.cleaned_data["day"],
        trigger=RunTrigger.UPLOAD if report else RunTrigger.ADMIN,
        actor=actor,
        report=report.chunks() if report else None,
        report_name=report.name if report else "",
    )


def list_steps(run: Run) -> list[dict[str, str]]:
    """The phases, and how far the run is: done, now, or to come."""
    position = PHASES.index(RunState(run.state)) if run.state in PHASES else -1
    return [
        {
            "label": phase.label,
            "mark": "done" if index < position else "now" if index == position else "to come",
        }
        for index, phase in enumerate(PHASES)
    ]


def format_totals(currency: str, sums: dict[str, int]) -> dict[str, str]:
    """One currency's row of the totals table, with the difference that remains."""
    gap = sums["our_charges"] - sums["their_charges"] - sums["our_refunds"] + sums["their_refunds"]
    amounts = {name: money(amount, currency) for name, amount in sums.items()}
    return {"currency": currency, **amounts, "gap": money(gap, currency) if gap else ""}
