"""Trial balance, statements, entries and periods: what is shown adds up, what is exported is what was filtered."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import date
from urllib.parse import urlencode

import pytest
from django.db import connection
from django.http import HttpResponse
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from payments import services
from payments.admin import statements
from payments.admin.exports import escape_formula, to_major
from payments.ledger import Account, post, transfer
from payments.models import GatewayAccount, LedgerAccount, LedgerEntry, LedgerPeriod
from payments.money import Money
from tests.payments.admin.conftest import Login

pytestmark = pytest.mark.django_db


def sell(account: GatewayAccount, minor: int, *, on: date, currency: str = "EUR", note: str = "") -> None:
    lines = transfer(debit=Account.CLEARING, credit=Account.SALES, money=Money(minor, currency))
    name = f"{on}-{minor}-{LedgerEntry.objects.count()}"
    post(account, lines, event="sale", source="test", external_id=name, booked_on=on, note=note)


def day(number: int) -> date:
    return date(2026, 1, number)


@pytest.fixture
def books(account: GatewayAccount) -> GatewayAccount:
    """Ten sales of 1.00 to 10.00 on the first ten days of January, and one in yen."""
    for number in range(1, 11):
        sell(account, number * 100, on=day(number))
    sell(account, 500, on=day(3), currency="JPY")
    return account


def find(account: GatewayAccount, currency: str = "EUR") -> LedgerAccount:
    return LedgerAccount.objects.get(gateway_account=account, code=Account.CLEARING, currency=currency)


def page(name: str, *arguments: object, **query: object) -> str:
    url = reverse(f"admin:payments_{name}", args=arguments)
    return f"{url}?{urlencode(query)}" if query else url


def read_csv(response: HttpResponse) -> list[dict[str, str]]:
    assert response.status_code == 200
    text = b"".join(response.streaming_content).decode()  # type: ignore[attr-defined]
    return list(csv.DictReader(text.splitlines()))


class TestTrialBalance:
    def test_sums_each_book_and_links_to_its_statements(self, log_in: Login, books: GatewayAccount) -> None:
        html = log_in("Finance").get(page("ledgeraccount_trial")).content.decode()
        assert html.count("€55.00") == 4, "clearing, sales, and both totals"
        assert html.count("¥500") == 4
        assert html.count("Balanced") == 2
        assert page("ledgeraccount_change", find(books).pk) in html

    def test_as_of_a_day(self, log_in: Login, books: GatewayAccount) -> None:
        html = log_in("Finance").get(page("ledgeraccount_trial", as_of="2026-01-02")).content.decode()
        assert "€3.00" in html
        assert "¥" not in html

    def test_of_one_account_and_currency(self, log_in: Login, books: GatewayAccount) -> None:
        client = log_in("Finance")
        html = client.get(page("ledgeraccount_trial", account=books.pk, currency="jpy")).content.decode()
        assert "¥500" in html
        assert "€" not in html
        other = GatewayAccount.objects.exclude(pk=books.pk).first()
        assert other is not None
        assert (
            "Nothing is booked there"
            in client.get(page("ledgeraccount_trial", account=other.pk)).content.decode()
        )

    def test_a_day_that_is_none_is_named(self, log_in: Login, books: GatewayAccount) -> None:
        response = log_in("Finance").get(page("ledgeraccount_trial", as_of="yesterday"))
        assert "Enter a valid date" in response.content.decode()

    def test_is_exported_as_it_is_filtered(self, log_in: Login, books: GatewayAccount) -> None:
        query = {"as_of": "2026-01-04"}
        rows = read_csv(log_in("Finance").get(page("ledgeraccount_trial_export", **query)))
        told = [
            (row["currency"], row["code"], row["debit"], row["credit"], row["balance_minor"]) for row in rows
        ]
        assert told == [
            ("EUR", "1100", "10.00", "0.00", "1000"),
            ("EUR", "4000", "0.00", "10.00", "-1000"),
            ("JPY", "1100", "500", "0", "500"),
            ("JPY", "4000", "0", "500", "-500"),
        ]


class TestStatement:
    @pytest.fixture(autouse=True)
    def short_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(statements, "PAGE", 3)

    def test_opens_and_closes_with_the_balance_of_its_days(
        self, log_in: Login, books: GatewayAccount
    ) -> None:
        url = page("ledgeraccount_change", find(books).pk, first_day="2026-01-03", last_day="2026-01-05")
        response = log_in("Finance").get(url)
        context = response.context_data  # type: ignore[attr-defined]
        assert (context["opening"], context["closing"]) == ("€3.00 debit", "€15.00 debit")
        balances = [line["balance"] for line in context["lines"]]
        assert balances == ["€6.00 debit", "€10.00 debit", "€15.00 debit"]

    def test_pages_go_on_where_they_ended(self, log_in: Login, books: GatewayAccount) -> None:
        client, url, seen = log_in("Finance"), page("ledgeraccount_change", find(books).pk), []
        pages = 0
        while url:
            context = client.get(url).context_data  # type: ignore[attr-defined]
            seen += [(line["debit"], line["balance"]) for line in context["lines"]]
            assert (context["opening"], context["closing"]) == ("€0.00", "€55.00 debit")
            url, pages = context["next_url"], pages + 1
        assert pages == 4
        assert seen == [
            (f"€{number}.00", f"€{number * (number + 1) // 2}.00 debit") for number in range(1, 11)
        ]

    def test_lines_of_one_day_are_neither_lost_nor_doubled(
        self, log_in: Login, books: GatewayAccount
    ) -> None:
        for number in range(5):
            sell(books, 1000 + number, on=day(4))
        row, after, seen = find(books), None, []
        while True:
            statement = statements.read_statement(row, first_day=day(2), last_day=day(5), after=after)
            seen += [line.pk for line, _ in statement.lines]
            if (after := statement.next_place) is None:
                break
        wanted = row.postings.filter(booked_on__range=(day(2), day(5))).order_by("booked_on", "pk")
        assert seen == list(wanted.values_list("pk", flat=True))

    def test_asks_no_more_for_many_lines(
        self, log_in: Login, books: GatewayAccount, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(statements, "PAGE", 100)
        for number in range(40):
            sell(books, 1000 + number, on=day(11))
        client, url = log_in("Finance"), page("ledgeraccount_change", find(books).pk)
        client.get(url)
        with CaptureQueriesContext(connection) as captured:
            client.get(url)
        assert len([query for query in captured if "payments_posting" in query["sql"]]) == 2

    @pytest.mark.parametrize("after", ["x", "2026-01-01", "2026-01-01.x", "1.2.3", ".."])
    def test_a_place_that_is_none_is_the_beginning(
        self, log_in: Login, books: GatewayAccount, after: str
    ) -> None:
        response = log_in("Finance").get(page("ledgeraccount_change", find(books).pk, after=after))
        assert response.context_data["lines"][0]["debit"] == "€1.00"  # type: ignore[attr-defined]

    def test_is_found_by_account_code_and_currency(self, log_in: Login, books: GatewayAccount) -> None:
        client = log_in("Finance")
        query = {"account": books.pk, "code": 1100, "currency": "jpy", "first_day": "2026-01-02"}
        response = client.get(page("ledgeraccount_statement", **query))
        assert response["Location"] == page(
            "ledgeraccount_change", find(books, "JPY").pk, first_day="2026-01-02"
        )
        missing = client.get(page("ledgeraccount_statement", **{**query, "currency": "CHF"}), follow=True)
        assert "has no account 1100 in CHF" in missing.content.decode()

    def test_is_exported_whole_with_both_kinds_of_units(self, log_in: Login, books: GatewayAccount) -> None:
        sell(books, 1, on=day(2), note="=cmd|' /C calc'!A0")
        client, row = log_in("Finance"), find(books)
        url = page("ledgeraccount_change", row.pk, first_day="2026-01-02", last_day="2026-01-09")
        export = client.get(url).context_data["export_url"]  # type: ignore[attr-defined]
        rows = read_csv(client.get(export))
        assert [line["amount_minor"] for line in rows] == ["200", "1", *(str(n * 100) for n in range(3, 10))]
        assert rows[1]["note"] == "'=cmd|' /C calc'!A0"
        assert (rows[-1]["debit"], rows[-1]["balance"], rows[-1]["balance_minor"]) == (
            "9.00",
            "45.01",
            "4501",
        )
        assert [line["balance"] for line in rows][:2] == ["3.00", "3.01"]


def test_cells_that_a_spreadsheet_would_run_are_escaped() -> None:
    for text in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"):
        assert escape_formula(text) == f"'{text}"
    assert escape_formula("web-1") == "web-1"


@pytest.mark.parametrize(
    ("minor", "currency", "major"),
    [(-1250, "EUR", "-12.50"), (7, "JPY", "7"), (1234, "KWD", "1.234"), (10**24 + 1, "EUR", f"{10**22}.01")],
)
def test_major_units_have_the_digits_of_the_currency(minor: int, currency: str, major: str) -> None:
    assert str(to_major(minor, currency)) == major


def test_an_entry_shows_its_day_and_equal_sides(log_in: Login, books: GatewayAccount) -> None:
    entry = LedgerEntry.objects.order_by("id").first()
    assert entry is not None
    html = log_in("Auditor").get(page("ledgerentry_change", entry.pk)).content.decode()
    assert "1 Jan 2026" in html
    assert html.count("€1.00") == 4
    assert page("ledgeraccount_change", find(books).pk) in html


class TestPeriods:
    FORM = {"first_day": "2026-01-01", "last_day": "2026-01-31", "note": "Reports are in"}

    def test_finance_closes_and_reopens(self, log_in: Login, books: GatewayAccount) -> None:
        client = log_in("Finance")
        data = {**self.FORM, "account": books.pk}
        response = client.post(page("ledgerperiod_close"), data, follow=True)
        period = LedgerPeriod.objects.get()
        assert "is closed." in response.content.decode()
        assert (period.closed_by, period.note, period.postings) == ("user:finance", "Reports are in", 22)
        data = {"reason": "A report came late", "token": "t" * 20}
        client.post(page("ledgerperiod_reopen", period.pk), data)
        period.refresh_from_db()
        assert (period.reopened_by, period.reopen_reason) == ("user:finance", "A report came late")
        assert "A report came late" in client.get(page("ledgerperiod_change", period.pk)).content.decode()

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"last_day": "2025-12-31"}, "is after"),
            ({"last_day": "soon"}, "Enter a valid date. Nothing was closed."),
            ({"account": "acc_none"}, "Nothing was closed."),
            ({"last_day": "2999-12-31"}, "is not over"),
        ],
    )
    def test_what_cannot_be_closed_is_told(
        self, log_in: Login, books: GatewayAccount, change: dict[str, str], says: str
    ) -> None:
        data = {**self.FORM, "account": books.pk, **change}
        response = log_in("Finance").post(page("ledgerperiod_close"), data, follow=True)
        assert says in response.content.decode()
        assert not LedgerPeriod.objects.exists()

    def test_reopening_needs_a_reason(self, log_in: Login, books: GatewayAccount) -> None:
        period = close(books)
        url = page("ledgerperiod_reopen", period.pk)
        assert log_in("Finance").post(url, {"reason": "", "token": "t" * 20}).status_code == 422
        period.refresh_from_db()
        assert period.is_closed

    def test_only_by_post_with_a_token_of_the_page_and_the_permission(
        self, log_in: Login, books: GatewayAccount
    ) -> None:
        period = close(books, first_day=date(2025, 12, 1), last_day=date(2025, 12, 31))
        data = {**self.FORM, "account": books.pk}
        urls = (page("ledgerperiod_close"), page("ledgerperiod_reopen", period.pk))
        for url in urls:
            assert log_in("Finance").get(url).status_code == 405
            assert log_in("Finance", check_csrf=True).post(url, data).status_code == 403
            for role in ("Auditor", "On-call", "Admin"):
                assert log_in(role).post(url, data).status_code == 403, role
        assert LedgerPeriod.objects.get().is_closed

    def test_who_may_not_close_sees_no_button(self, log_in: Login, books: GatewayAccount) -> None:
        url = page("ledgerperiod_changelist")
        assert "Close the period" in log_in("Finance").get(url).content.decode()
        assert "Close the period" not in log_in("Auditor").get(url).content.decode()


def close(account: GatewayAccount, **days: date) -> LedgerPeriod:
    days = days or {"first_day": date(2026, 1, 1), "last_day": date(2026, 1, 31)}
    return services.close_period(account, **days, actor="user:finance")


def pages_of(books: GatewayAccount) -> Iterator[str]:
    query = {"account": books.pk, "code": 1100, "currency": "EUR"}
    yield page("ledgeraccount_trial")
    yield page("ledgeraccount_trial_export")
    yield page("ledgeraccount_statement", **query)
    yield page("ledgeraccount_statement_export", **query)
    yield page("ledgeraccount_change", find(books).pk)


def test_the_books_are_for_those_whose_role_says_so(log_in: Login, books: GatewayAccount) -> None:
    for url in pages_of(books):
        for role in ("Finance", "Auditor"):
            assert log_in(role).get(url).status_code in (200, 302), (role, url)
        for role in ("On-call", "Fraud analyst", "Integrator"):
            assert log_in(role).get(url).status_code == 403, (role, url)
    export = page("ledgeraccount_trial_export")
    assert log_in("Admin").get(export).status_code == 403, "an admin sees the books, and exports nothing"
