"""The books to look at: entries with their lines, accounts with their balances, the trial balance."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments.admin.base import BackOfficeAdmin, Fact, age, column, link, money
from payments.admin.timeline import name_account, tell_postings
from payments.models import LedgerAccount, LedgerEntry, Posting


@admin.register(LedgerEntry)
class LedgerEntryAdmin(BackOfficeAdmin):
    list_display = ["id", "event_text", "lines_text", "order_text", "gateway_account", "age_text"]
    list_filter = ["event", "source", "gateway_account", ("created_at", admin.DateFieldListFilter)]
    search_fields = ["=external_id", "=payment__id", "=payment__order__id", "=payment__order__reference"]
    search_help_text = "Search by payment, order or external id"
    ordering = ["-id"]
    page_template = "admin/payments/ledger/entry.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[LedgerEntry]:
        queryset: QuerySet[LedgerEntry] = super().get_queryset(request)
        related = queryset.select_related("payment__order", "gateway_account")
        return related.prefetch_related("postings__account")

    @column("Event", ordering="event")
    def event_text(self, entry: LedgerEntry) -> str:
        return entry.event.replace("_", " ").capitalize()

    @column("Lines")
    def lines_text(self, entry: LedgerEntry) -> str:
        return tell_postings(entry.postings.all())

    @column("Order")
    def order_text(self, entry: LedgerEntry) -> SafeString:
        if entry.payment is None:
            return SafeString("–")
        return link("payments_order", entry.payment.order_id, entry.payment.order.reference)

    @column("Booked", ordering="id")
    def age_text(self, entry: LedgerEntry) -> SafeString:
        return age(entry.created_at)

    def list_facts(self, row: LedgerEntry) -> list[Fact]:
        return [
            ("Entry", row.pk),
            ("Order", self.order_text(row)),
            ("Payment", link("payments_payment", row.payment_id, row.payment_id) if row.payment_id else "–"),
            ("Gateway", row.gateway_account),
            ("Source", row.source),
            ("External id", row.external_id),
            ("Note", row.note or "–"),
            ("Booked", age(row.created_at)),
        ]

    def page_context(self, request: HttpRequest, row: LedgerEntry) -> dict[str, Any]:
        lines = [_describe_line(posting) for posting in row.postings.all()]
        return {"title": self.event_text(row), "lines": lines}


def _describe_line(posting: Posting) -> dict[str, Any]:
    amount = money(abs(posting.amount), posting.currency)
    return {
        "code": posting.account.code,
        "account": name_account(posting.account.code),
        "debit": amount if posting.amount > 0 else "",
        "credit": amount if posting.amount < 0 else "",
    }


@admin.register(LedgerAccount)
class LedgerAccountAdmin(BackOfficeAdmin):
    """The chart. Its balances are summed on the trial balance, in one query, not row by row."""

    list_display = ["code", "name_text", "currency", "gateway_account"]
    list_filter = ["currency", "gateway_account"]
    list_select_related = ["gateway_account"]
    list_before_template = "admin/payments/ledger/opener.html"
    search_fields = ["=code"]
    page_template = "admin/payments/ledger/account.html"

    @column("Account", ordering="code")
    def name_text(self, account: LedgerAccount) -> str:
        return name_account(account.code)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.trial_balance_view)
        return [path("trial-balance/", view, name="payments_ledgeraccount_trial"), *super().get_urls()]

    def trial_balance_view(self, request: HttpRequest) -> HttpResponse:
        """Every account's balance, and that debits equal credits in each book."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {"books": sum_books()}
        return self.render_page(
            request, "admin/payments/ledger/trial.html", title="Trial balance", context=context
        )

    def list_facts(self, row: LedgerAccount) -> list[Fact]:
        total = row.postings.aggregate(total=Sum("amount", default=0))["total"]
        side = "debit" if total > 0 else "credit"
        balance = f"{money(abs(total), row.currency)} {side}" if total else money(0, row.currency)
        return [
            ("Account", f"{row.code} {name_account(row.code)}"),
            ("Gateway", row.gateway_account),
            ("Currency", row.currency),
            ("Balance", format_html('<span class="bo-money">{}</span>', balance)),
        ]

    def page_context(self, request: HttpRequest, row: LedgerAccount) -> dict[str, Any]:
        newest = row.postings.select_related("entry").order_by("-id")[:100]
        lines = [
            {
                "entry": link(
                    "payments_ledgerentry", posting.entry_id, posting.entry.event.replace("_", " ")
                ),
                "at": age(posting.entry.created_at),
                "debit": money(posting.amount, row.currency) if posting.amount > 0 else "",
                "credit": money(-posting.amount, row.currency) if posting.amount < 0 else "",
            }
            for posting in newest
        ]
        return {"title": f"{row.code} {name_account(row.code)}, {row.currency}", "lines": lines}


def sum_books() -> list[dict[str, Any]]:
    """Per gateway account and currency: each account's balance and the totals, which must agree."""
    names = (
        "account__gateway_account__gateway",
        "account__gateway_account__name",
        "currency",
        "account__code",
    )
    rows = Posting.objects.values_list(*names).annotate(total=Sum("amount")).order_by(*names)
    books: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for gateway, name, currency, code, total in rows:
        books[f"{gateway}/{name}", currency].append((code, total))
    return [_describe_book(name, currency, sums) for (name, currency), sums in books.items()]


def _describe_book(name: str, currency: str, sums: list[tuple[int, int]]) -> dict[str, Any]:
    debit = sum(total for _, total in sums if total > 0)
    credit = -sum(total for _, total in sums if total < 0)
    return {
        "name": name,
        "currency": currency,
        "rows": [
            {
                "code": code,
                "account": name_account(code),
                "debit": money(total, currency) if total > 0 else "",
                "credit": money(-total, currency) if total < 0 else "",
            }
            for code, total in sums
        ],
        "debit": money(debit, currency),
        "credit": money(credit, currency),
        "is_balanced": debit == credit,
    }
