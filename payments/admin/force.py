"""The forced ends of sagas: what one person proposed, for another one to decide on exactly that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from payments import services
from payments.admin.base import (
    Action,
    ActionForm,
    BackOfficeAdmin,
    Button,
    Fact,
    OperatorAction,
    TabFilter,
    age,
    column,
    link,
    money,
    name_actor,
    state_badge,
)
from payments.admin.forms import ReasonForm
from payments.admin.saga_forms import ApproveForm
from payments.admin.words import tell_actor
from payments.models import ForceRequest

TONES = {"open": "warning", "done": "success", "rejected": "default"}


class RequestView(TabFilter):
    tabs = {"open": "To be decided", "all": "All"}

    def narrow(self, tab: str, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset if tab == "all" else queryset.filter(state=ForceRequest.State.OPEN)


def _approve(request: ForceRequest, wish: Action) -> str:
    services.approve_force(request.pk, payload_hash=wish.data["payload_hash"], actor=wish.actor)
    return f"The saga is forced to its end; the order is {request.target}."


def _reject(request: ForceRequest, wish: Action) -> str:
    services.reject_force(request.pk, actor=wish.actor, reason=wish.data["reason"])
    return "The request is rejected; the saga is as it was."


@admin.register(ForceRequest)
class ForceRequestAdmin(BackOfficeAdmin):
    list_display = ["what", "state_text", "proposed_text", "decided_text", "age_text"]
    list_display_links = ["what"]
    list_filter = [RequestView, ("created_at", admin.DateFieldListFilter)]
    search_fields = ["=run__id", "=run__order__reference"]
    search_help_text = "Search by saga or reference"
    ordering = ["-id"]
    page_template = "admin/payments/page.html"
    empty_text = "Nobody has proposed to force a saga to its end."
    operator_actions = (
        OperatorAction(
            "approve",
            "Approve",
            "decide_forcerequest",
            _approve,
            explanation="The saga ends exactly as proposed, and nothing is sent to the gateway. Look it up first.",
            form=ApproveForm,
            tone="danger",
        ),
        OperatorAction("reject", "Reject", "decide_forcerequest", _reject, form=ReasonForm),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[ForceRequest]:
        queryset: QuerySet[ForceRequest] = super().get_queryset(request)
        return queryset.select_related("run__order")

    def list_buttons(
        self, request: HttpRequest, row: Any, *, failed: tuple[str, ActionForm] | None = None
    ) -> list[Button]:
        why = services.explain_decision(row, name_actor(request))
        return [replace(button, why_not=why) for button in super().list_buttons(request, row, failed=failed)]

    @column("Forced end")
    def what(self, row: ForceRequest) -> str:
        order = row.run.order
        return (
            f"{row.run.kind.capitalize()} of {order.reference if order else row.run.subject} as {row.target}"
        )

    @column("State", ordering="state")
    def state_text(self, row: ForceRequest) -> SafeString:
        return state_badge("Too old" if row.is_expired else row.get_state_display(), TONES[row.state])

    @column("Proposed by")
    def proposed_text(self, row: ForceRequest) -> str:
        return tell_actor(row.proposed_by)

    @column("Decided by")
    def decided_text(self, row: ForceRequest) -> str:
        return tell_actor(row.decided_by) or "–"

    @column("Age", ordering="id")
    def age_text(self, row: ForceRequest) -> SafeString:
        return age(row.created_at, is_open=row.state == ForceRequest.State.OPEN)

    def list_facts(self, row: ForceRequest) -> list[Fact]:
        order = row.run.order
        return [
            ("Saga", link("payments_sagarun", row.run_id, row.run_id)),
            ("Order", link("payments_order", row.run.order_id, order.reference) if order else "–"),
            ("The order becomes", row.get_target_display()),
            ("Evidence", row.evidence),
            (
                "Look up at the gateway",
                format_html_join(", ", "<code>{}</code>", ((one,) for one in row.references)),
            ),
            *_list_money(row.money),
            ("Proposed by", tell_actor(row.proposed_by)),
            ("Proposed", age(row.created_at)),
            ("To be decided", age(row.expires_at)),
            ("Decided by", self.decided_text(row)),
            ("Decided", age(row.decided_at)),
            ("Said", row.decision_note or "–"),
        ]

    def page_context(self, request: HttpRequest, row: ForceRequest) -> dict[str, Any]:
        return {"title": self.what(row), "badges": [self.state_text(row)]}


def _list_money(totals: dict[str, Any]) -> list[Fact]:
    """The totals as they were proposed; what is nought is left out."""
    currency = str(totals.get("currency", ""))
    return [
        (name.replace("_", " ").capitalize(), money(minor, currency))
        for name, minor in totals.items()
        if name != "currency" and minor
    ]
