"""Finds orders by anything that a person may hold in hand: an id, a reference, an e-mail, four digits."""

from __future__ import annotations

import re

from django.db.models import Q, QuerySet

from payments.models import Attempt, Operation, Order, Payment

SEARCH_HELP = "Search by id, reference, e-mail, last four digits or gateway reference"
_PREFIXED = re.compile(r"[a-z]{2,4}_\w{3,}")
_FOUR_DIGITS = re.compile(r"\d{4}")


def match_orders(term: str) -> Q:
    """The orders that a search term means. Every way in is an index, except the last four digits of a card."""
    term = term.strip()
    matches = (
        Q(pk=term) | Q(reference__startswith=term) | Q(customer_email__iexact=term) | Q(customer_id=term)
    )
    if _PREFIXED.fullmatch(term):
        matches |= Q(pk__in=_orders_of_references(term))
    if _FOUR_DIGITS.fullmatch(term):
        matches |= Q(pk__in=Payment.objects.filter(card__last4=term).values("order"))
    return matches


def _orders_of_references(term: str) -> QuerySet[Payment, str]:
    by_operation = Operation.objects.filter(Q(pk=term) | Q(gateway_reference=term)).values("payment")
    by_attempt = Attempt.objects.filter(Q(pk=term) | Q(gateway_reference=term)).values("payment")
    found = Q(pk=term) | Q(gateway_reference=term) | Q(pk__in=by_operation) | Q(pk__in=by_attempt)
    return Payment.objects.filter(found).values_list("order", flat=True)


def find_orders(term: str, *, limit: int) -> list[Order]:
    """The newest orders that the term means, at most `limit` of them."""
    return list(Order.objects.filter(match_orders(term)).order_by("-id")[:limit])
