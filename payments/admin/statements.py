"""What the books say: the trial balance of a day, and the statement of an account, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from django.db.models import F, Q, QuerySet, Sum
from django.db.models.fields.tuple_lookups import Tuple, TupleGreaterThan

from payments.models import GatewayAccount, LedgerAccount, Posting

PAGE = 100  # lines of a statement


# --- the trial balance --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Book:
    """One gateway account and currency: each account's balance in minor units, debit positive."""

    account: GatewayAccount
    currency: str
    balances: list[tuple[LedgerAccount, int]]

    @property
    def debit(self) -> int:
        return sum(balance for _, balance in self.balances if balance > 0)

    @property
    def credit(self) -> int:
        return -sum(balance for _, balance in self.balances if balance < 0)


def sum_books(
    *, as_of: date | None = None, account: GatewayAccount | None = None, currency: str = ""
) -> list[Book]:
    """Every account's balance at the end of a day, or now, read from the statements' index alone."""
    chart = LedgerAccount.objects.select_related("gateway_account")
    if account:
        chart = chart.filter(gateway_account=account)
    if currency:
        chart = chart.filter(currency=currency)
    known = {
        row.pk: row
        for row in chart.order_by("gateway_account__gateway", "gateway_account__name", "currency", "code")
    }
    postings = (
        Posting.objects.all() if not (account or currency) else Posting.objects.filter(account__in=known)
    )
    if as_of:
        postings = postings.filter(booked_on__lte=as_of)
    totals = dict(postings.values_list("account").annotate(total=Sum("amount")).order_by())
    books: dict[tuple[str, str], Book] = {}
    for row in known.values():
        if row.pk in totals:
            key = row.gateway_account_id, row.currency
            book = books.setdefault(key, Book(row.gateway_account, row.currency, []))
            book.balances.append((row, totals[row.pk]))
    return list(books.values())


# --- statements ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """A posting's place in a statement, which goes by day and then by number."""

    day: date
    posting_id: int

    def __str__(self) -> str:
        return f"{self.day}.{self.posting_id}"

    @classmethod
    def parse(cls, text: str) -> Place | None:
        day, _, number = text.partition(".")
        try:
            return cls(date.fromisoformat(day), int(number))
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Statement:
    """One page: balances in minor units, debit positive; each line with the balance after it."""

    opening: int
    closing: int
    lines: list[tuple[Posting, int]]
    next_place: Place | None


def read_statement(
    row: LedgerAccount, *, first_day: date | None, last_day: date | None, after: Place | None
) -> Statement:
    """The page of the account's postings that follows a place, with the balances around it.

    Two queries: sums of the index, and the lines. A page deep in the books costs no more than the first one.
    """
    until = _until(row, last_day)
    is_before_page = Q(pk__in=[])
    if first_day:
        is_before_page = Q(booked_on__lt=first_day)
    if after:
        is_before_page = Q(booked_on__lt=after.day) | Q(booked_on=after.day, pk__lte=after.posting_id)
    sums = until.aggregate(
        opening=Sum("amount", filter=Q(booked_on__lt=first_day) if first_day else Q(pk__in=[]), default=0),
        before=Sum("amount", filter=is_before_page, default=0),
        closing=Sum("amount", default=0),
    )
    lines = list(_in_order(until, first_day, after).select_related("entry__payment__order")[: PAGE + 1])
    page, balance = [], sums["before"]
    for posting in lines[:PAGE]:
        balance += posting.amount
        page.append((posting, balance))
    last = page[-1][0] if len(lines) > PAGE else None
    next_place = Place(last.booked_on, last.pk) if last else None
    return Statement(int(sums["opening"]), int(sums["closing"]), page, next_place)


def iter_statement(
    row: LedgerAccount, *, first_day: date | None, last_day: date | None
) -> Iterator[dict[str, Any]]:
    """Every line with its running balance in minor units, without keeping them."""
    until = _until(row, last_day)
    balance = 0
    if first_day:
        balance = int(
            until.filter(booked_on__lt=first_day).aggregate(total=Sum("amount", default=0))["total"]
        )
    names = (
        "booked_on", "amount", "entry_id", "entry__event", "entry__external_id", "entry__note", "entry__actor",
        "entry__created_at", "entry__payment_id", "entry__payment__order__reference",
    )  # fmt: skip
    for line in _in_order(until, first_day, None).values(*names).iterator(chunk_size=2000):
        balance += line["amount"]
        yield {**line, "balance": balance}


def _until(row: LedgerAccount, last_day: date | None) -> QuerySet[Posting]:
    postings = Posting.objects.filter(account=row)
    return postings.filter(booked_on__lte=last_day) if last_day else postings


def _in_order(postings: QuerySet[Posting], first_day: date | None, after: Place | None) -> QuerySet[Posting]:
    if first_day:
        postings = postings.filter(booked_on__gte=first_day)
    if after:  # compared as one, so that the index begins right there
        place = TupleGreaterThan(Tuple(F("booked_on"), F("pk")), (after.day, after.posting_id))
        postings = postings.filter(place)
    return postings.order_by("booked_on", "pk")
