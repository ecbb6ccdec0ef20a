"""What the command search finds: pages and rows, each as far as the user may see it, never more than a few."""

from __future__ import annotations

from django.http import HttpRequest
from django.urls import reverse
from unfold.dataclasses import SearchResult

from config.navigation import build_navigation
from payments.admin.search import find_orders
from payments.models import ApiClient, SagaRun

SEARCH_LIMIT = 10  # rows of a kind: the search stays fast however many orders there are


def find_results(request: HttpRequest, term: str) -> list[SearchResult]:
    """Pages first, then rows."""
    return [*find_pages(request, term), *find_records(request, term)]


def find_pages(request: HttpRequest, term: str) -> list[SearchResult]:
    """The pages of the navigation whose name has the term."""
    return [
        SearchResult(title=item["title"], description=group["title"], link=item["link"], icon=item["icon"])
        for group in build_navigation(request)
        for item in group["items"]
        if term.lower() in item["title"].lower()
    ]


def find_records(request: HttpRequest, term: str) -> list[SearchResult]:
    """Orders by anything that a person may hold in hand; sagas and API clients by id and name."""
    results: list[SearchResult] = []
    if request.user.has_perm("payments.view_order"):
        for order in find_orders(term, limit=SEARCH_LIMIT):
            text = f"{order.total.format()}, {order.get_state_display().lower()}"
            results.append(
                _result(f"Order {order.reference}", text, "payments_order", order.pk, "receipt_long")
            )
    if term.startswith("sag_") and request.user.has_perm("payments.view_sagarun"):
        for run in SagaRun.objects.filter(pk=term):
            text = run.get_state_display()
            results.append(_result(f"Saga {run.pk}", text, "payments_sagarun", run.pk, "account_tree"))
    if request.user.has_perm("payments.view_apiclient"):
        for client in ApiClient.objects.filter(name__istartswith=term)[:SEARCH_LIMIT]:
            results.append(_result(client.name, "API client", "payments_apiclient", client.pk, "storefront"))
    return results


def _result(title: str, description: str, page: str, pk: str, icon: str) -> SearchResult:
    link = reverse(f"admin:{page}_change", args=[pk])
    return SearchResult(title=title, description=description, link=link, icon=icon)
