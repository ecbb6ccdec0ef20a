"""The storefronts' endpoints: make one, test it, rotate its secret, switch it."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from payments.admin.base import Action, OperatorAction, age, column, describe_span, state_badge
from payments.errors import PaymentError
from payments.models import ApiClient
from webhooks import endpoints
from webhooks.admin.base import WebhookAdmin
from webhooks.models import Endpoint
from webhooks.tasks import outbound_bell


class NewEndpointForm(forms.Form):
    client = forms.ModelChoiceField(ApiClient.objects.all(), widget=UnfoldAdminSelectWidget)
    url = forms.CharField(label="Address", max_length=500, widget=UnfoldAdminTextInputWidget)
    description = forms.CharField(max_length=200, required=False, widget=UnfoldAdminTextInputWidget)
    event_types = forms.CharField(
        required=False,
        help_text="One per line; none means all.",
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 4}),
    )

    def clean_event_types(self) -> list[str]:
        return str(self.cleaned_data["event_types"]).split()


def send_test(endpoint: Endpoint, action: Action) -> str:
    delivery = endpoints.send_test(endpoint)
    outbound_bell.ring_on_commit()
    return f"The test message {delivery.pk} is on its way."


def enable(endpoint: Endpoint, action: Action) -> str:
    endpoints.enable_endpoint(endpoint)
    return "The endpoint is enabled. What was given up meanwhile can be resent from its deliveries."


def disable(endpoint: Endpoint, action: Action) -> str:
    endpoints.switch_off_endpoint(endpoint, actor=action.actor)
    return "The endpoint is disabled, and what was on its way is given up."


def explain_disabled(endpoint: Endpoint) -> str:
    return "" if endpoint.is_enabled else "The endpoint is disabled."


def explain_enabled(endpoint: Endpoint) -> str:
    return "The endpoint is enabled already." if endpoint.is_enabled else ""


ACTIONS = (
    OperatorAction(
        "send_test",
        "Send a test message",
        "test_endpoint",
        send_test,
        explanation="A signed endpoint.test event; its answer shows under the deliveries.",
        why_not=explain_disabled,
    ),
    OperatorAction(
        "enable",
        "Enable",
        "enable_endpoint",
        enable,
        explanation="Events are sent there again from now on.",
        why_not=explain_enabled,
    ),
    OperatorAction(
        "disable",
        "Disable",
        "enable_endpoint",
        disable,
        explanation="Nothing is sent there any more, and what is on its way is given up.",
        tone="danger",
        why_not=explain_disabled,
    ),
)


@admin.register(Endpoint)
class EndpointAdmin(WebhookAdmin):
    list_display = ("url", "client", "status", "types_text", "failing", "created_text")
    empty_text = (
        "No storefront has told where its webhooks go. Add an endpoint, and its secret is shown once."
    )
    list_filter = ("is_enabled", "client")
    list_select_related = ("client",)
    search_fields = ("id", "url", "client__name")
    operator_actions = ACTIONS
    facts = (
        "client",
        "description",
        "id",
        "disabled_reason",
        "types_text",
        "failing",
        "secrets_text",
        "created_at",
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, "add_endpoint")

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The form, and behind it the secret: shown on this answer and never again."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = NewEndpointForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            try:
                endpoint, secret = endpoints.create_endpoint(**form.cleaned_data)
            except PaymentError as error:
                form.add_error("url", error.message)
            else:
                return self._show_secret(request, endpoint, secret)
        return self.render_page(
            request, "admin/webhooks/endpoint/add.html", title="New webhook endpoint", context={"form": form}
        )

    def page_context(self, request: HttpRequest, row: Endpoint) -> dict[str, Any]:
        context = {
            "title": row.url,
            "badges": [self.status(row)],
            "can_rotate": self.allows(request, "rotate_endpoint"),
        }
        return {**super().page_context(request, row), **context}

    # --- the secret ---------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.rotate)
        return [path("<path:object_id>/rotate/", view, name="webhooks_endpoint_rotate"), *super().get_urls()]

    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Not an `OperatorAction`: its answer is a secret, which must be kept in no message and no store."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.allows(request, "rotate_endpoint"):
            raise PermissionDenied
        endpoint = self.find_row(request, object_id)
        return self._show_secret(request, endpoint, endpoints.rotate_secret(endpoint))

    def _show_secret(self, request: HttpRequest, endpoint: Endpoint, secret: str) -> HttpResponse:
        context = {"endpoint": endpoint, "secret": secret}
        answer = self.render_page(
            request, "admin/webhooks/endpoint/secret.html", title="The endpoint's secret", context=context
        )
        answer.headers["Cache-Control"] = "no-store"
        return answer

    # --- columns ----------------------------------------------------------------------------------------

    @column("State", ordering="is_enabled")
    def status(self, endpoint: Endpoint) -> SafeString:
        return state_badge("Enabled", "success") if endpoint.is_enabled else state_badge("Disabled", "danger")

    @column("Made", ordering="created_at")
    def created_text(self, endpoint: Endpoint) -> SafeString:
        return age(endpoint.created_at)

    @column("Event types")
    def types_text(self, endpoint: Endpoint) -> str:
        return ", ".join(endpoint.event_types) or "all"

    @column("Failing for")
    def failing(self, endpoint: Endpoint) -> str:
        return describe_span(timezone.now() - endpoint.failing_since) if endpoint.failing_since else "–"

    @column("Secrets")
    def secrets_text(self, endpoint: Endpoint) -> str:
        ends = endpoint.secrets.valid().values_list("expires_at", flat=True)
        return ", ".join(f"one until {end:%Y-%m-%d %H:%M} UTC" if end else "the current one" for end in ends)
