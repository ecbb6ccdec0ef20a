"""Payments and their operations: totals, attempts, and the question to the gateway when nobody knows."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from payments import services
from payments.admin.base import (
    Action,
    ActionForm,
    BackOfficeAdmin,
    Fact,
    OperatorAction,
    TabFilter,
    age,
    column,
    link,
    money,
    show_json,
    state_badge,
)
from payments.admin.forms import NoteField
from payments.admin.order import describe_card, list_sums, tell_sums
from payments.admin.search import SEARCH_HELP, match_orders
from payments.admin.timeline import explain_error
from payments.admin.words import tell_actor
from payments.models import Operation, OperationState, Order, Payment, PaymentState
from payments.models.payment import OPEN_OPERATION_STATES

OPEN_PAYMENTS = (
    PaymentState.PROCESSING,
    PaymentState.REQUIRES_ACTION,
    PaymentState.REQUIRES_REVIEW,
    PaymentState.REQUIRES_CAPTURE,
    PaymentState.PARTIALLY_CAPTURED,
)


class PaymentView(TabFilter):
    tabs = {"open": "Open", "review": "Requires review", "capture": "To be captured", "all": "All"}

    def narrow(self, tab: str, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match tab:
            case "review":
                return queryset.filter(state=PaymentState.REQUIRES_REVIEW)
            case "capture":
                return queryset.filter(capturable__gt=0)
            case "all":
                return queryset
        return queryset.filter(state__in=OPEN_PAYMENTS)


@admin.register(Payment)
class PaymentAdmin(BackOfficeAdmin):
    list_display = [
        "state_text",
        "id",
        "order_text",
        "amount_text",
        "captured_text",
        "refunded_text",
        "account",
        "age_text",
    ]
    list_display_links = ["state_text", "id"]
    list_filter = [
        PaymentView,
        "state",
        "currency",
        "account",
        ("created_at", admin.DateFieldListFilter),
    ]
    list_select_related = ["order", "account"]
    search_fields = ["id"]
    search_help_text = SEARCH_HELP
    ordering = ["-id"]
    page_template = "admin/payments/payment/page.html"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Payment], search_term: str
    ) -> tuple[QuerySet[Payment], bool]:
        if not search_term:
            return queryset, False
        return queryset.filter(order__in=Order.objects.filter(match_orders(search_term))), False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Payment]:
        queryset: QuerySet[Payment] = super().get_queryset(request)
        return queryset.select_related("order", "account")

    @column("State", ordering="state")
    def state_text(self, payment: Payment) -> SafeString:
        return state_badge(payment.get_state_display())

    @column("Order")
    def order_text(self, payment: Payment) -> SafeString:
        return link("payments_order", payment.order_id, payment.order.reference)

    @column("Amount", ordering="amount")
    def amount_text(self, payment: Payment) -> SafeString:
        return _amount(payment.amount, payment.currency)

    @column("Captured")
    def captured_text(self, payment: Payment) -> SafeString:
        return _amount(payment.captured, payment.currency)

    @column("Refunded")
    def refunded_text(self, payment: Payment) -> SafeString:
        return _amount(payment.refunded, payment.currency)

    @column("Age", ordering="id")
    def age_text(self, payment: Payment) -> SafeString:
        return age(payment.created_at)

    def list_facts(self, row: Payment) -> list[Fact]:
        return [
            ("Payment", row.pk),
            ("Order", self.order_text(row)),
            ("Gateway", link("payments_gatewayaccount", row.account_id, row.account)),
            ("Gateway reference", row.gateway_reference or "none yet"),
            ("Card", describe_card(row)),
            ("Capture", row.get_capture_method_display()),
            ("Created", age(row.created_at)),
            ("Last change", age(row.updated_at)),
            ("Authorization ends", age(row.authorization_expires_at)),
            *([("Last error", _tell_error(row.last_error))] if row.last_error else []),
        ]

    def page_context(self, request: HttpRequest, row: Payment) -> dict[str, Any]:
        operations = row.operations.order_by("id")[:200]
        return {
            "title": f"Payment of {row.order.reference}",
            "badges": [self.state_text(row)],
            "sums": list_sums(row),
            "sum_line": tell_sums(row),
            "attempts": row.attempts.select_related("account").order_by("number")[:50],
            "operations": [
                (
                    operation,
                    _amount(operation.amount, operation.currency),
                    operation_badge(operation),
                    tell_actor(operation.requested_by) or operation.get_source_display(),
                )
                for operation in operations
            ],
        }


def _tell_error(error: dict[str, Any]) -> SafeString:
    """The words, then the codes to look up or to quote to the gateway."""
    codes = [str(error[name]) for name in ("code", "decline_code", "gateway_code") if error.get(name)]
    return format_html("{} <code>{}</code>", explain_error(error), ", ".join(dict.fromkeys(codes)))


def _amount(minor: int, currency: str) -> SafeString:
    return format_html('<span class="bo-money">{}</span>', money(minor, currency))


def operation_badge(operation: Operation) -> SafeString:
    return state_badge(operation.get_state_display())


class OperationView(TabFilter):
    tabs = {
        "open": "Open",
        "person": "For a person",
        "unknown": "Unknown",
        "refunds": "Refunds",
        "external": "Seen at the gateway",
        "all": "All",
    }

    def narrow(self, tab: str, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match tab:
            case "person":
                return queryset.escalated()  # type: ignore[attr-defined,no-any-return]
            case "unknown":
                return queryset.filter(state=OperationState.UNKNOWN)
            case "refunds":
                return queryset.filter(kind="refund")
            case "external":
                return queryset.filter(source="external")
            case "all":
                return queryset
        return queryset.filter(state__in=OPEN_OPERATION_STATES)


def _resolve(operation: Operation, wish: Action) -> str:
    after = services.resolve_unknown(operation, actor=wish.actor)
    if after.is_final:
        return f"The gateway says: the {after.kind} {after.get_state_display().lower()}."
    return f"The gateway was asked; the {after.kind} is still {after.get_state_display().lower()}. Nothing was changed."


def _why_not_resolve(operation: Operation) -> str:
    return (
        ""
        if operation.state in OPEN_OPERATION_STATES
        else f"It {operation.get_state_display().lower()}: there is no doubt."
    )


class DecisionForm(ActionForm):
    """What an operator saw at the gateway, which cannot be asked or does not answer."""

    outcome = forms.ChoiceField(
        label="At the gateway it",
        choices=[("succeeded", "succeeded"), ("failed", "never happened, or failed")],
        widget=UnfoldAdminSelectWidget,
    )
    reference = forms.CharField(
        label="The gateway's reference",
        max_length=100,
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
        help_text="Needed for a success.",
    )
    note = NoteField(label="What you saw, and where")


def _decide(operation: Operation, wish: Action) -> str:
    after = services.decide_operation(operation, actor=wish.actor, **wish.data)
    return f"The {after.kind} is booked as {after.get_state_display().lower()}, by your word."


def _why_not_decide(operation: Operation) -> str:
    if operation.state in OPEN_OPERATION_STATES and operation.escalated_at:
        return ""
    return "It waits for nobody: the gateway is still asked by itself, or it has ended."


@admin.register(Operation)
class OperationAdmin(BackOfficeAdmin):
    list_display = [
        "state_text",
        "kind_text",
        "id",
        "order_text",
        "amount_text",
        "source",
        "requested_by",
        "age_text",
    ]
    list_display_links = ["state_text", "id"]
    list_filter = [
        OperationView,
        "state",
        "kind",
        "source",
        "account",
        ("created_at", admin.DateFieldListFilter),
        ("resolved_at", admin.DateFieldListFilter),
    ]
    search_fields = [
        "=id",
        "=gateway_reference",
        "=gateway_key",
        "=payment__id",
        "=payment__order__id",
        "=payment__order__reference",
    ]
    search_help_text = "Search by id, gateway reference, payment or order"
    ordering = ["-id"]
    page_template = "admin/payments/operation/page.html"
    operator_actions = (
        OperatorAction(
            "resolve",
            "Ask the gateway",
            "resolve_operation",
            _resolve,
            explanation="The gateway is asked what became of it, and its answer is booked. Asking charges nothing.",
            why_not=_why_not_resolve,
        ),
        OperatorAction(
            "decide",
            "Decide",
            "decide_operation",
            _decide,
            explanation="The gateway does not say. What you saw there is booked, with your name, as if it had said so.",
            form=DecisionForm,
            tone="danger",
            why_not=_why_not_decide,
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Operation]:
        queryset: QuerySet[Operation] = super().get_queryset(request)
        return queryset.select_related("payment__order", "account", "attempt")

    @column("State", ordering="state")
    def state_text(self, operation: Operation) -> SafeString:
        return operation_badge(operation)

    @column("Kind", ordering="kind")
    def kind_text(self, operation: Operation) -> str:
        return operation.get_kind_display()

    @column("Order")
    def order_text(self, operation: Operation) -> SafeString:
        return link("payments_order", operation.payment.order_id, operation.payment.order.reference)

    @column("Amount", ordering="amount")
    def amount_text(self, operation: Operation) -> SafeString:
        return _amount(operation.amount, operation.currency)

    @column("Age", ordering="id")
    def age_text(self, operation: Operation) -> SafeString:
        return age(operation.created_at, is_open=operation.state in OPEN_OPERATION_STATES)

    def list_facts(self, row: Operation) -> list[Fact]:
        return [
            ("Operation", row.pk),
            ("Amount", self.amount_text(row)),
            ("Order", self.order_text(row)),
            ("Payment", link("payments_payment", row.payment_id, row.payment_id)),
            ("Gateway", link("payments_gatewayaccount", row.account_id, row.account)),
            ("Gateway reference", row.gateway_reference or row.attempt.gateway_reference or "none yet"),
            ("Key at the gateway", row.gateway_key),
            ("Asked for by", tell_actor(row.requested_by) or row.get_source_display()),
            ("Reason", row.reason.replace("_", " ") or "–"),
            ("Note", row.note or "–"),
            ("Asked for", age(row.created_at)),
            ("Resolved", age(row.resolved_at)),
            ("Times unknown to the gateway", row.negatives),
            *([("Asked next", age(row.next_ask_at))] if row.next_ask_at else []),
            *([("Waits for a person since", age(row.escalated_at))] if row.escalated_at else []),
            *([("Error", _tell_error(row.error))] if row.error else []),
        ]

    def page_context(self, request: HttpRequest, row: Operation) -> dict[str, Any]:
        title = f"{row.get_kind_display()} of {row.payment.order.reference}"
        return {
            "title": title,
            "badges": [self.state_text(row)],
            "inquiries": [
                (each, tell_actor(each.actor) or "the schedule", show_json(each.detail))
                for each in row.inquiries.order_by("-id")[:50]
            ],
        }
