"""What the pages of webhooks share: the theme's read-only page of a row, with its buttons above."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from payments.admin.base import ActionForm, BackOfficeAdmin, OperatorAction


class WebhookAdmin(BackOfficeAdmin):
    """Every field read-only; every `OperatorAction` a button that POSTs."""

    change_form_outer_before_template = "admin/webhooks/buttons.html"

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        row = self.find_row(request, object_id)
        context = {"buttons": self.list_buttons(request, row), **(extra_context or {})}
        return super().change_view(request, object_id, form_url, context)

    def refuse_form(
        self, request: HttpRequest, row: Any, action: OperatorAction, form: ActionForm
    ) -> HttpResponse:
        """The buttons ask for nothing, so only a forged or cut-off form can be wrong."""
        messages.error(request, f"“{action.label}” was sent without its token; nothing was changed.")
        return HttpResponseRedirect(self.url_of(row))
