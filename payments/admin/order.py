"""The order page: state, money, what may be done now, and everything that ever happened."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

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
    state_badge,
)
from payments.admin.dispute_words import dispute_badge, explain_reason, tell_deadline
from payments.admin.forms import CancelForm, CaptureForm, NoteForm, RefundForm
from payments.admin.panels import render_panels
from payments.admin.search import SEARCH_HELP, match_orders
from payments.admin.timeline import KINDS, build_timeline
from payments.models import Dispute, Order, OrderState, Payment, SagaRun
from payments.models.order import DEAD_STATES

FINISHED = (*DEAD_STATES, OrderState.PAID, OrderState.FULFILLED)
RECENT = timedelta(hours=24)
MOST_DISPUTES = 20


class OrderView(TabFilter):
    tabs = {
        "open": "Open",
        "review": "In review",
        "customer": "Awaiting customer",
        "today": "Last 24 hours",
        "unsuccessful": "Unsuccessful",
        "all": "All",
    }

    def narrow(self, tab: str, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match tab:
            case "review":
                return queryset.filter(state=OrderState.REVIEW)
            case "customer":
                return queryset.filter(state=OrderState.AWAITING_CUSTOMER)
            case "today":
                return queryset.filter(created_at__gte=timezone.now() - RECENT)
            case "unsuccessful":
                return queryset.filter(state__in=DEAD_STATES)
            case "all":
                return queryset
        return queryset.exclude(state__in=FINISHED)


# --- what may be done ----------------------------------------------------------------------------------------------


def _capture(order: Order, wish: Action) -> str:
    after = services.capture_order(
        order, amount=wish.data["amount"].minor, final=wish.data["rest"] != "keep", actor=wish.actor
    )
    return _tell(after, f"The capture of {wish.data['amount'].format()}")


def _cancel(order: Order, wish: Action) -> str:
    after = services.cancel_order(order, reason=wish.data["reason"], actor=wish.actor)
    return _tell(after, "The cancellation")


def _tell(order: Order, what: str) -> str:
    """What came of it by now, never more than is known."""
    return f"{what} is {_progress(order)}: order {order.reference} is {order.get_state_display().lower()}."


def _progress(order: Order) -> str:
    is_busy = order.sagas.live().exclude(kind="refund").exists()
    return "on its way" if is_busy else "done"


def _refund(order: Order, wish: Action) -> str:
    operation = services.refund_order(
        order,
        amount=wish.data["amount"].minor,
        reason=wish.data["reason"],
        note=wish.data["note"],
        capture=wish.data.get("capture", ""),
        actor=wish.actor,
        key=wish.claim,
    )
    return f"Refund of {operation.money.format()}: {operation.get_state_display().lower()} ({operation.pk})."


def _why_not(name: str) -> Callable[[Any], str]:
    def tell(order: Any) -> str:
        return str(order.legal[name].why_not)

    return tell


def _add_note(order: Order, wish: Action) -> str:
    services.add_note(order, text=wish.data["note"], actor=wish.actor)
    return "The note is in the timeline."


ACTIONS = (
    OperatorAction(
        "capture",
        "Capture",
        "capture_order",
        _capture,
        why_not=_why_not("capture"),
        explanation="The money is taken from the customer. It comes back only by a refund.",
        form=CaptureForm,
    ),
    OperatorAction(
        "cancel",
        "Cancel order",
        "cancel_order",
        _cancel,
        why_not=_why_not("cancel"),
        explanation="The authorization is voided and the stock released. After a capture in part, only the rest of the "
        "hold is released. It cannot be taken back.",
        form=CancelForm,
        tone="danger",
    ),
    OperatorAction(
        "refund",
        "Refund",
        "refund_order",
        _refund,
        why_not=_why_not("refund"),
        explanation="The money goes back to the customer's card. It cannot be taken back.",
        form=RefundForm,
        tone="danger",
    ),
    OperatorAction(
        "note",
        "Add note",
        "note_order",
        _add_note,
        explanation="Kept for ever in the timeline.",
        form=NoteForm,
    ),
)


# --- the page ------------------------------------------------------------------------------------------------------


@admin.register(Order)
class OrderAdmin(BackOfficeAdmin):
    """Opens on what is not finished yet."""

    list_display = ["state_text", "reference_text", "amount_text", "customer", "age_text", "gateway"]
    list_display_links = ["state_text", "reference_text"]
    list_filter = [OrderView, "state", "currency", ("created_at", admin.DateFieldListFilter)]
    list_select_related = ["payment__account"]
    search_fields = ["id"]
    search_help_text = SEARCH_HELP
    ordering = ["-id"]
    empty_text = "Every order has come to its end. The tab “All” shows them."
    page_template = "admin/payments/order/page.html"
    operator_actions = ACTIONS

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Order], search_term: str
    ) -> tuple[QuerySet[Order], bool]:
        return (queryset.filter(match_orders(search_term)) if search_term else queryset), False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Order]:
        queryset: QuerySet[Order] = super().get_queryset(request)
        disputes = Dispute.objects.filter(payment=OuterRef("payment__pk"))
        return queryset.select_related("payment__account", "client").annotate(
            is_disputed=Exists(disputes),
            is_stuck=Exists(SagaRun.objects.stuck().filter(order=OuterRef("pk"))),
        )

    @column("State", ordering="state")
    def state_text(self, order: Order) -> SafeString:
        refund, dispute = _refund_badge(order.payment), _dispute_badge(order.payment)
        return format_html("{} {} {}", state_badge(order.get_state_display()), refund, dispute)

    @column("Reference", ordering="reference")
    def reference_text(self, order: Order) -> str:
        return order.reference

    @column("Amount", ordering="amount")
    def amount_text(self, order: Order) -> SafeString:
        return format_html('<span class="bo-money">{}</span>', money(order.amount, order.currency))

    @column("Customer")
    def customer(self, order: Order) -> str:
        return order.customer_email or order.customer_id or "guest"

    @column("Placed", ordering="id")
    def age_text(self, order: Order) -> SafeString:
        return age(order.created_at, is_open=order.state not in (*FINISHED, OrderState.PAID))

    @column("Gateway")
    def gateway(self, order: Order) -> str:
        return str(order.payment.account)

    def show_row(
        self, request: HttpRequest, row: Any, *, failed: tuple[str, ActionForm] | None = None
    ) -> TemplateResponse:
        """Decide once what is legal now: the buttons and the dialogs read it from the order."""
        row.legal = {action.name: action for action in services.legal_actions(row, row.payment)}
        return super().show_row(request, row, failed=failed)

    def list_facts(self, row: Order) -> list[Fact]:
        payment = row.payment
        return [
            ("Order", row.pk),
            ("Storefront", row.client),
            ("Placed", age(row.created_at)),
            ("Customer", row.customer_email or row.customer_id or "guest"),
            ("Payment", link("payments_payment", payment.pk, payment.pk)),
            ("Payment state", state_badge(payment.get_state_display())),
            ("Card", describe_card(payment)),
            ("Gateway", link("payments_gatewayaccount", payment.account_id, payment.account)),
            ("Gateway reference", payment.gateway_reference or "none yet"),
            ("Capture", row.get_capture_method_display()),
            *_deadline(payment),
            *(
                [("Last error", payment.last_error.get("message") or payment.last_error.get("code"))]
                if payment.last_error
                else []
            ),
        ]

    def page_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        payment = row.payment
        # Asked for only where there are any: the page has a bound of queries.
        disputes = list(payment.disputes.order_by("-id")[:MOST_DISPUTES]) if row.is_disputed else []
        may_see_sagas = row.is_stuck and request.user.has_perm("payments.view_sagarun")
        return {
            "title": f"Order {row.reference}",
            "payment": payment,
            "badges": [
                state_badge(row.get_state_display()),
                _refund_badge(payment),
                *(dispute_badge(dispute, before="Dispute ") for dispute in disputes[:1]),
            ],
            "disputes": _list_disputes(disputes) if request.user.has_perm("payments.view_dispute") else [],
            "amount": money(row.amount, row.currency),
            "sums": list_sums(payment),
            "sum_line": tell_sums(payment),
            "stuck": list(row.sagas.stuck()) if may_see_sagas else [],
            "timeline": build_timeline(row, payment),
            "kinds": KINDS,
            "panels": render_panels(row, request),
        }


def _refund_badge(payment: Payment) -> SafeString:
    words = {"full": "Refunded in full", "partial": "Refunded in part", "pending": "Refund pending"}
    state = payment.refund_state
    return (
        state_badge(words[state], "warning" if state == "pending" else "default")
        if state in words
        else SafeString("")
    )


def _dispute_badge(payment: Payment) -> SafeString:
    """Of money that a dispute has moved, as the list knows it without asking for each."""
    words = {"open": ("Disputed", "warning"), "lost": ("Dispute lost", "danger")}
    state = payment.dispute_state
    return state_badge(*words[state]) if state in words else SafeString("")


def _list_disputes(disputes: Iterable[Dispute]) -> list[dict[str, Any]]:
    return [
        {
            "link": link("payments_dispute", dispute.pk, explain_reason(dispute.reason).title),
            "state": dispute_badge(dispute),
            "stage": dispute.get_stage_display(),
            "amount": money(dispute.amount, dispute.currency),
            "deadline": tell_deadline(dispute),
        }
        for dispute in disputes
    ]


def _deadline(payment: Payment) -> list[Fact]:
    if not payment.authorization_expires_at or not payment.capturable:
        return []
    return [("Authorization ends", age(payment.authorization_expires_at))]


def describe_card(payment: Payment) -> str:
    """`Visa ·4242 DE`, as far as it is known; never more digits than four."""
    card = payment.card
    last4 = f"·{card['last4']}" if card.get("last4") else ""
    return (
        " ".join(filter(None, [str(card.get("brand") or "").title(), last4, card.get("country")]))
        or "not known"
    )


def list_sums(payment: Payment) -> list[Fact]:
    """The money box: whatever is captured is refunded, on its way back, lost, or still refundable."""
    sums = [
        ("Authorized", payment.authorized),
        *([("Still capturable", payment.capturable)] if payment.capturable else []),
        ("Captured", payment.captured),
        ("Refunded", payment.refunded),
        ("Refund pending", payment.refund_pending),
        *([("Disputed", payment.disputed)] if payment.disputed else []),
        *([("Lost in disputes", payment.disputed_lost)] if payment.disputed_lost else []),
        ("Still refundable", payment.refundable),
        ("Net", payment.net),
    ]
    return [(label, money(minor, payment.currency)) for label, minor in sums]


def tell_sums(payment: Payment) -> str:
    """The sum of the money box in one line."""
    if not payment.captured:
        return "Nothing is captured."
    parts = [(payment.refunded, "refunded"), (payment.refund_pending, "refund pending")]
    held_by_bank = (
        payment.captured - sum(minor for minor, _ in parts) - payment.disputed_lost - payment.refundable
    )
    parts += [(held_by_bank, "disputed")] if held_by_bank else []
    parts += [(payment.disputed_lost, "lost in disputes")] if payment.disputed_lost else []
    parts.append((payment.refundable, "still refundable"))
    right = " + ".join(f"{money(minor, payment.currency)} {what}" for minor, what in parts)
    return f"{money(payment.captured, payment.currency)} captured = {right}"
