"""The books to look at and to export: entries with their lines, the trial balance, statements of accounts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from payments.admin.base import BackOfficeAdmin, Fact, age, column, link, money
from payments.admin.exports import Cell, stream_csv, to_major
from payments.admin.statements import Book, Place, iter_statement, read_statement, sum_books
from payments.admin.timeline import name_account, tell_postings
from payments.admin.words import tell_actor
from payments.ledger import Account
from payments.models import GatewayAccount, LedgerAccount, LedgerEntry, Posting

TRIAL_COLUMNS = (
    "as_of",
    "gateway_account",
    "currency",
    "code",
    "account",
    "debit",
    "credit",
    "balance_minor",
)
STATEMENT_COLUMNS = (
    "booked_on",
    "entry",
    "event",
    "order",
    "payment",
    "external_id",
    "note",
    "actor",
    "created_at",
    "currency",
    "debit",
    "credit",
    "balance",
    "amount_minor",
    "balance_minor",
)


class DayWidget(UnfoldAdminTextInputWidget):  # type: ignore[misc]
    input_type = "date"


class DayField(forms.DateField):
    """A day that may be left open."""

    def __init__(self, label: str) -> None:
        super().__init__(label=label, required=False, widget=DayWidget())


class BooksForm(forms.Form):
    """Which books, at the end of which day (UTC)."""

    as_of = DayField("At the end of (UTC)")
    account = forms.ModelChoiceField(
        GatewayAccount.objects.all(),
        required=False,
        label="Gateway account",
        empty_label="All",
        widget=UnfoldAdminSelectWidget,
    )
    currency = forms.CharField(
        required=False, max_length=3, widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "All"})
    )

    def clean_currency(self) -> str:
        return str(self.cleaned_data["currency"]).strip().upper()


class DaysForm(forms.Form):
    """From which day to which, both included; open without one."""

    first_day = DayField("From")
    last_day = DayField("To")


class StatementForm(DaysForm):
    """Which account, and which days."""

    account = forms.ModelChoiceField(
        GatewayAccount.objects.all(), label="Gateway account", widget=UnfoldAdminSelectWidget
    )
    code = forms.TypedChoiceField(
        label="Account",
        coerce=int,
        choices=[(int(code), f"{int(code)} {name_account(int(code))}") for code in Account],
        widget=UnfoldAdminSelectWidget,
    )
    currency = forms.CharField(max_length=3, widget=UnfoldAdminTextInputWidget())
    field_order = ["account", "code", "currency", "first_day", "last_day"]

    def clean(self) -> dict[str, Any]:
        """Finds the account's row: `row`."""
        data: dict[str, Any] = self.cleaned_data
        if not self.errors:
            currency = data["currency"].strip().upper()
            rows = LedgerAccount.objects.select_related("gateway_account")
            row = rows.filter(gateway_account=data["account"], code=data["code"], currency=currency).first()
            if row is None:
                raise forms.ValidationError(
                    f"{data['account']} has no account {data['code']} in {currency}: nothing was booked in it."
                )
            data["row"] = row
        return data


def read_days(form: DaysForm) -> dict[str, date | None]:
    """The valid days of a form; a day that cannot be read is as none, and the form says so."""
    form.is_valid()
    return {name: form.cleaned_data.get(name) for name in ("first_day", "last_day")}


@admin.register(LedgerEntry)
class LedgerEntryAdmin(BackOfficeAdmin):
    list_display = [
        "id",
        "event_text",
        "lines_text",
        "order_text",
        "gateway_account",
        "booked_on",
        "age_text",
    ]
    list_filter = [
        "event",
        "source",
        "gateway_account",
        ("booked_on", admin.DateFieldListFilter),
        ("created_at", admin.DateFieldListFilter),
    ]
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
        return name_event(entry.event)

    @column("Lines")
    def lines_text(self, entry: LedgerEntry) -> str:
        return tell_postings(entry.postings.all())

    @column("Order")
    def order_text(self, entry: LedgerEntry) -> SafeString:
        if entry.payment is None:
            return SafeString("–")
        return link("payments_order", entry.payment.order_id, entry.payment.order.reference)

    @column("Written", ordering="id")
    def age_text(self, entry: LedgerEntry) -> SafeString:
        return age(entry.created_at)

    def list_facts(self, row: LedgerEntry) -> list[Fact]:
        return [
            ("Entry", row.pk),
            ("Day", show_day(row.booked_on)),
            ("Order", self.order_text(row)),
            ("Payment", link("payments_payment", row.payment_id, row.payment_id) if row.payment_id else "–"),
            ("Gateway", row.gateway_account),
            ("Source", row.source),
            ("External id", row.external_id),
            ("Decided by", tell_actor(row.actor) or "–"),
            ("Note", row.note or "–"),
            ("Written", age(row.created_at)),
        ]

    def page_context(self, request: HttpRequest, row: LedgerEntry) -> dict[str, Any]:
        lines = [_describe_line(posting) for posting in row.postings.all()]
        return {"title": self.event_text(row), "lines": lines, "sums": _sum_lines(row.postings.all())}


def _describe_line(posting: Posting) -> dict[str, Any]:
    name = f"{posting.account.code} {name_account(posting.account.code)}"
    return {
        "account": link("payments_ledgeraccount", posting.account_id, name),
        "currency": posting.currency,
        **split_sides(posting.amount, posting.currency),
    }


def _sum_lines(postings: QuerySet[Posting]) -> list[dict[str, str]]:
    totals: dict[str, int] = {}
    for posting in postings:
        totals[posting.currency] = totals.get(posting.currency, 0) + max(posting.amount, 0)
    return [{"currency": code, "total": money(total, code)} for code, total in sorted(totals.items())]


def split_sides(minor: int, currency: str) -> dict[str, str]:
    """For the debit and the credit column; zero is in neither."""
    return {
        "debit": money(minor, currency) if minor > 0 else "",
        "credit": money(-minor, currency) if minor < 0 else "",
    }


def tell_balance(minor: int, currency: str) -> str:
    side = " debit" if minor > 0 else " credit" if minor < 0 else ""
    return f"{money(abs(minor), currency)}{side}"


def name_event(event: str) -> str:
    return event.replace("_", " ").capitalize()


def show_day(day: date) -> str:
    return f"{day:%-d %b %Y}"


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
        view = self.admin_site.admin_view
        name = "payments_ledgeraccount"
        return [
            path("trial-balance/", view(self.trial_balance_view), name=f"{name}_trial"),
            path("trial-balance/export/", view(self.trial_export_view), name=f"{name}_trial_export"),
            path("statement/", view(self.statement_view), name=f"{name}_statement"),
            path("statement/export/", view(self.statement_export_view), name=f"{name}_statement_export"),
            *super().get_urls(),
        ]

    # --- the trial balance ----------------------------------------------------------------------------------

    def trial_balance_view(self, request: HttpRequest) -> HttpResponse:
        """Every account's balance, and that debits equal credits in each book."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        form = BooksForm(request.GET)
        books = sum_books(**form.cleaned_data) if form.is_valid() else []
        context = {
            "form": form,
            "books": [_describe_book(book, form.cleaned_data["as_of"]) for book in books],
            "export_url": self._export_url(request, "trial_export"),
        }
        return self.render_page(
            request, "admin/payments/ledger/trial.html", title="Trial balance", context=context
        )

    def trial_export_view(self, request: HttpRequest) -> HttpResponseBase:
        """Exactly what the page shows with the same filters."""
        self._require_export(request)
        form = BooksForm(request.GET)
        if not form.is_valid():
            return self._refuse(request, form, "payments_ledgeraccount_trial")
        as_of = form.cleaned_data["as_of"]
        rows = _iter_trial(sum_books(**form.cleaned_data), as_of)
        return stream_csv(f"trial-balance-{as_of or 'now'}.csv", TRIAL_COLUMNS, rows)

    # --- statements -----------------------------------------------------------------------------------------

    def statement_view(self, request: HttpRequest) -> HttpResponse:
        """To the page of the account that was chosen."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        form = StatementForm(request.GET)
        if not form.is_valid():
            return self._refuse(request, form, "payments_ledgeraccount_changelist")
        return HttpResponseRedirect(state_url(form.cleaned_data["row"], **read_days(form)))

    def statement_export_view(self, request: HttpRequest) -> HttpResponseBase:
        """Every line of the days that the statement is filtered by, not only the page that is shown."""
        self._require_export(request)
        form = StatementForm(request.GET)
        if not form.is_valid():
            return self._refuse(request, form, "payments_ledgeraccount_changelist")
        row = form.cleaned_data["row"]
        name = f"statement-{row.gateway_account.gateway}-{row.gateway_account.name}-{row.code}-{row.currency}.csv"
        return stream_csv(name, STATEMENT_COLUMNS, _iter_lines(row, **read_days(form)))

    def list_facts(self, row: LedgerAccount) -> list[Fact]:
        return []

    def page_context(self, request: HttpRequest, row: LedgerAccount) -> dict[str, Any]:
        days = DaysForm(request.GET)
        wanted = read_days(days)
        after = Place.parse(request.GET.get("after", ""))
        statement = read_statement(row, **wanted, after=after)
        chosen = {"account": row.gateway_account_id, "code": row.code, "currency": row.currency, **wanted}
        return {
            "title": f"{row.code} {name_account(row.code)}, {row.currency}",
            "form": StatementForm(initial=chosen),
            "errors": [f"{name}: {' '.join(map(str, texts))}" for name, texts in days.errors.items()],
            "about": f"{row.gateway_account}, {_tell_days(wanted)}",
            "opening": tell_balance(statement.opening, row.currency),
            "closing": tell_balance(statement.closing, row.currency),
            "is_continued": after is not None,
            "lines": [_describe_posting(posting, balance) for posting, balance in statement.lines],
            "first_url": state_url(row, **wanted),
            "next_url": state_url(row, **wanted, after=statement.next_place) if statement.next_place else "",
            "export_url": self._export_url(request, "statement_export", chosen),
        }

    # --- what they share ------------------------------------------------------------------------------------

    def _require_export(self, request: HttpRequest) -> None:
        if not (self.has_view_permission(request) and self.allows(request, "export_ledgerentry")):
            raise PermissionDenied

    def _export_url(self, request: HttpRequest, name: str, chosen: dict[str, Any] | None = None) -> str:
        """With the filters of the page; empty for who may not export."""
        if not self.allows(request, "export_ledgerentry"):
            return ""
        query = request.GET.urlencode() if chosen is None else _encode(chosen)
        return f"{reverse(f'admin:payments_ledgeraccount_{name}')}?{query}"

    def _refuse(self, request: HttpRequest, form: forms.Form, page: str) -> HttpResponse:
        messages.error(request, " ".join(str(text) for texts in form.errors.values() for text in texts))
        return HttpResponseRedirect(reverse(f"admin:{page}"))


def state_url(row: LedgerAccount, **query: Any) -> str:
    """The statement's address for these days and place."""
    url = reverse("admin:payments_ledgeraccount_change", args=[row.pk])
    text = _encode(query)
    return f"{url}?{text}" if text else url


def _encode(query: dict[str, Any]) -> str:
    return urlencode({name: str(value) for name, value in query.items() if value})


def _tell_days(days: dict[str, date | None]) -> str:
    first, last = days["first_day"], days["last_day"]
    begin = f"from {show_day(first)}" if first else "from the beginning"
    return f"{begin} to {show_day(last) if last else 'now'} (UTC)"


def _describe_book(book: Book, as_of: date | None) -> dict[str, Any]:
    return {
        "name": str(book.account),
        "currency": book.currency,
        "rows": [
            {
                "url": state_url(row, last_day=as_of),
                "account": f"{row.code} {name_account(row.code)}",
                **split_sides(balance, book.currency),
            }
            for row, balance in book.balances
        ],
        "debit": money(book.debit, book.currency),
        "credit": money(book.credit, book.currency),
        "is_balanced": book.debit == book.credit,
    }


def _describe_posting(posting: Posting, balance: int) -> dict[str, Any]:
    entry = posting.entry
    order = entry.payment.order if entry.payment else None
    return {
        "day": show_day(posting.booked_on),
        "entry": link("payments_ledgerentry", entry.pk, name_event(entry.event)),
        "order": link("payments_order", order.pk, order.reference) if order else "",
        "note": entry.note,
        "balance": tell_balance(balance, posting.currency),
        **split_sides(posting.amount, posting.currency),
    }


def _iter_trial(books: list[Book], as_of: date | None) -> Iterator[tuple[Cell, ...]]:
    day = str(as_of or timezone.now().date())
    for book in books:
        for row, balance in book.balances:
            yield (
                day,
                str(book.account),
                book.currency,
                row.code,
                name_account(row.code),
                to_major(max(balance, 0), book.currency),
                to_major(max(-balance, 0), book.currency),
                balance,
            )


def _iter_lines(
    row: LedgerAccount, *, first_day: date | None, last_day: date | None
) -> Iterator[tuple[Cell, ...]]:
    for line in iter_statement(row, first_day=first_day, last_day=last_day):
        amount, balance = line["amount"], line["balance"]
        yield (
            str(line["booked_on"]),
            line["entry_id"],
            line["entry__event"],
            line["entry__payment__order__reference"] or "",
            line["entry__payment_id"] or "",
            line["entry__external_id"],
            line["entry__note"],
            line["entry__actor"],
            line["entry__created_at"].isoformat(),
            row.currency,
            to_major(max(amount, 0), row.currency),
            to_major(max(-amount, 0), row.currency),
            to_major(balance, row.currency),
            amount,
            balance,
        )
