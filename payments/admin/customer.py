"""Customers and what they pay with, masked; and the button that forgets one on request."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments import services
from payments.admin.base import (
    Action,
    BackOfficeAdmin,
    Fact,
    OperatorAction,
    TabFilter,
    age,
    column,
    link,
    state_badge,
)
from payments.admin.forms import ReasonForm
from payments.admin.words import money
from payments.models import Customer, Order, SavedPaymentMethod

SHOWN = 50
_TONES = {"erasing": "warning", "erased": "default", "known": "success"}


class CustomerTabs(TabFilter):
    tabs = {"known": "Known", "erasing": "Being erased", "erased": "Erased", "all": "All"}

    def narrow(self, tab: str, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match tab:
            case "erasing":
                return queryset.filter(erasure_requested_at__isnull=False, erased_at__isnull=True)
            case "erased":
                return queryset.filter(erased_at__isnull=False)
            case "all":
                return queryset
        return queryset.filter(erasure_requested_at__isnull=True)


def _erase(customer: Customer, wish: Action) -> str:
    erasure = services.erase_customer(customer, actor=wish.actor, reason=wish.data["reason"])
    if erasure.is_done:
        return "The customer is erased."
    return (
        "The customer is blank; the rest follows by itself. "
        f"Orders not finished: {erasure.open_orders}; tokens that a gateway has not deleted: {erasure.open_tokens}."
    )


@admin.register(Customer)
class CustomerAdmin(BackOfficeAdmin):
    """Tokens are shown nowhere; a card by brand, last four digits and expiry."""

    list_display = ["state_text", "id_text", "email", "client_text", "methods_text", "age_text"]
    list_display_links = ["state_text", "id_text"]
    list_filter = [CustomerTabs, "client"]
    list_select_related = ["client"]
    search_fields = ["=id", "=storefront_id", "=email"]
    search_help_text = "Search by id, the storefront's id or e-mail"
    ordering = ["-id"]
    page_template = "admin/payments/customer/page.html"
    operator_actions = (
        OperatorAction(
            "erase",
            "Erase customer",
            "erase_customer",
            _erase,
            explanation="Tokens are deleted at their gateways; e-mail, name, addresses, IP address and device go from "
            "the customer and every finished order. Amounts, ids and countries stay for the books. It cannot be "
            "taken back.",
            form=ReasonForm,
            tone="danger",
            why_not=lambda customer: "It was asked for already." if customer.erasure_requested_at else "",
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Customer]:
        queryset: QuerySet[Customer] = super().get_queryset(request)
        live = Count("payment_methods", filter=Q(payment_methods__removed_at__isnull=True))
        return queryset.select_related("client").annotate(live_methods=live)

    @column("State")
    def state_text(self, customer: Customer) -> SafeString:
        return state_badge(customer.state.capitalize(), _TONES[customer.state])

    @column("Customer")
    def id_text(self, customer: Customer) -> str:
        return customer.pk if customer.erasure_requested_at else customer.storefront_id

    @column("Storefront")
    def client_text(self, customer: Customer) -> str:
        return str(customer.client)

    @column("Payment methods")
    def methods_text(self, customer: Any) -> int:
        return int(customer.live_methods)

    @column("Since", ordering="id")
    def age_text(self, customer: Customer) -> SafeString:
        return age(customer.created_at)

    def list_facts(self, row: Customer) -> list[Fact]:
        facts: list[Fact] = [
            ("Customer", row.pk),
            ("Storefront", row.client),
            ("The storefront's id", self.id_text(row)),
            ("E-mail", row.email or "none"),
            ("Name", row.name or "none"),
            ("Known", age(row.created_at)),
        ]
        if row.erasure_requested_at:
            facts += [
                ("Erasure asked for", age(row.erasure_requested_at)),
                ("By", row.erasure_requested_by),
                ("Reason", row.erasure_reason),
                ("Erased", age(row.erased_at) if row.erased_at else "not finished yet"),
            ]
        return facts

    def page_context(self, request: HttpRequest, row: Customer) -> dict[str, Any]:
        methods = row.payment_methods.select_related("account").order_by("-id")[:SHOWN]
        may_see_orders = request.user.has_perm("payments.view_order")
        return {
            "title": f"Customer {self.id_text(row)}",
            "badges": [self.state_text(row)],
            "methods": [describe_method(method) for method in methods],
            "orders": [describe_order(order) for order in find_orders(row)] if may_see_orders else [],
            "all_orders": _search_url(row) if may_see_orders else "",
        }


def find_orders(customer: Customer) -> QuerySet[Order]:
    """The newest orders of a customer; those that an erasure has not come to yet are its own."""
    names = [customer.storefront_id, *([customer.erasing_id] if customer.erasing_id else [])]
    mine = Order.objects.filter(client=customer.client_id, customer_id__in=names)
    return mine.order_by("-id")[:SHOWN]


def _search_url(customer: Customer) -> str:
    return f"{reverse('admin:payments_order_changelist')}?q={customer.storefront_id}"


def describe_method(method: SavedPaymentMethod) -> dict[str, Any]:
    """What may be shown of a card on file."""
    expiry = (
        f"{method.exp_month:02}/{method.exp_year}" if method.exp_month and method.exp_year else "not known"
    )
    return {
        "card": format_html(
            "{} {}", method.brand.title() or "Card", f"·{method.last4}" if method.last4 else ""
        ),
        "expiry": expiry,
        "account": method.account,
        "state": _state_of_method(method),
        "since": age(method.created_at),
    }


def _state_of_method(method: SavedPaymentMethod) -> SafeString:
    if method.forget_at:
        return state_badge("Gateway to be told", "warning")
    if method.removed_at:
        return state_badge("Removed")
    is_over = method.has_expired(timezone.now().date())
    return state_badge("Expired", "warning") if is_over else state_badge("Usable", "success")


def describe_order(order: Order) -> dict[str, Any]:
    return {
        "link": link("payments_order", order.pk, order.reference),
        "state": state_badge(order.get_state_display()),
        "amount": money(order.amount, order.currency),
        "since": age(order.created_at),
    }
