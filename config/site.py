"""The admin site of the back office: its name, the ribbon of its environment, its search."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.sites import UnfoldAdminSite

_RIBBONS = {"production": "danger", "staging": "warning"}


class BackOfficeSite(UnfoldAdminSite):  # type: ignore[misc]
    """The one admin site; its apps register with it as they do with Django's own."""

    site_header = "Countinghouse"
    index_title = "Dashboard"
    enable_nav_sidebar = True

    def admin_view(self, view: Callable[..., Any], cacheable: bool = False) -> Callable[..., Any]:
        """No page of the back office stays in a cache, whatever Django thinks of it."""
        return super().admin_view(view)  # type: ignore[no-any-return]

    def search(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Answer the command search with what config.search finds now.

        The theme's own search keeps its answers for five minutes, in which a new order could not be found.
        """
        started = time.monotonic()
        term = request.GET.get("s", "").strip()
        if not term:
            return HttpResponse()
        callback = self._get_config("COMMAND", request)["search_callback"]
        results = self._get_value(callback, request, term)
        page = Paginator(results, max(1, len(results)))
        context = {
            "page_obj": page,
            "results": page.page(1),
            "page_counter": 0,
            "execution_time": time.monotonic() - started,
        }
        headers = {"HX-Trigger": "search"}
        return TemplateResponse(request, "unfold/helpers/command_results.html", context, headers=headers)


def show_environment(request: HttpRequest) -> list[str]:
    """The ribbon in the header, so that nobody takes one environment for another."""
    name = settings.DJANGO_ENV
    return [name.capitalize(), _RIBBONS.get(name, "info")]
