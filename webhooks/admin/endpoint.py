"""The storefronts' endpoints: make and change one, test it, rotate its secret, switch it, let it catch up."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.safestring import SafeString

from payments.admin.base import (
    Action,
    OperatorAction,
    TabFilter,
    age,
    column,
    describe_span,
    name_actor,
    show_json,
    state_badge,
)
from payments.errors import PaymentError
from payments.events import CATALOGUE
from payments.ids import lowest_id
from webhooks import endpoints
from webhooks.admin.base import WebhookAdmin
from webhooks.admin.forms import EndpointForm, NewEndpointForm, SinceForm, describe_fields
from webhooks.models import Delivery, DeliveryState, Endpoint
from webhooks.tasks import outbound_bell

# --- actions ------------------------------------------------------------------------------------------------


def send_test(endpoint: Endpoint, action: Action) -> str:
    delivery = endpoints.send_test(endpoint)
    outbound_bell.ring_on_commit()
    return f"The test message {delivery.pk} is on its way."


def enable(endpoint: Endpoint, action: Action) -> str:
    endpoints.enable_endpoint(endpoint)
    return "The endpoint is enabled. What it has missed can be recovered and replayed."


def disable(endpoint: Endpoint, action: Action) -> str:
    endpoints.switch_off_endpoint(endpoint, actor=action.actor)
    return "The endpoint is disabled, and what was on its way is given up."


def recover(endpoint: Endpoint, action: Action) -> str:
    count = endpoints.recover_failed(endpoint, since=action.data["since"])
    outbound_bell.ring_on_commit()
    return f"{count} that failed or were given up are on their way again."


def replay(endpoint: Endpoint, action: Action) -> str:
    count = endpoints.replay_missing(endpoint, since=action.data["since"])
    outbound_bell.ring_on_commit()
    return f"{count} that were never sent there are on their way."


def remove(endpoint: Endpoint, action: Action) -> str:
    endpoints.remove_endpoint(endpoint, actor=action.actor)
    return "The endpoint is removed. Its deliveries stay on record."


def explain_disabled(endpoint: Endpoint) -> str:
    return explain_removed(endpoint) or ("" if endpoint.is_enabled else "The endpoint is disabled.")


def explain_enabled(endpoint: Endpoint) -> str:
    is_enabled = "The endpoint is enabled already." if endpoint.is_enabled else ""
    return explain_removed(endpoint) or is_enabled


def explain_removed(endpoint: Endpoint) -> str:
    return "The endpoint was removed." if endpoint.removed_at else ""


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
        "recover",
        "Recover failed",
        "recover_endpoint",
        recover,
        explanation="What failed or was given up since then is sent again, oldest first, at most 10,000 at once.",
        form=SinceForm,
        why_not=explain_disabled,
    ),
    OperatorAction(
        "replay",
        "Replay missing",
        "recover_endpoint",
        replay,
        explanation="Events since then that were never sent there, as it was new or disabled, are sent, "
        "oldest first, at most 10,000 at once.",
        form=SinceForm,
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
    OperatorAction(
        "remove",
        "Remove",
        "delete_endpoint",
        remove,
        explanation="For good: nothing is sent there any more, and what is on its way is given up.",
        tone="danger",
        why_not=explain_removed,
    ),
)


# --- the pages ----------------------------------------------------------------------------------------------


class EndpointView(TabFilter):
    tabs = {"used": "In use", "troubled": "In trouble", "removed": "Removed", "all": "All"}

    def narrow(self, tab: str, queryset: QuerySet[Any]) -> QuerySet[Any]:
        kept = queryset.filter(removed_at__isnull=True)
        return {
            "used": kept,
            "troubled": kept.exclude(is_enabled=True, failing_since__isnull=True),
            "removed": queryset.filter(removed_at__isnull=False),
        }.get(tab, queryset)


@admin.register(Endpoint)
class EndpointAdmin(WebhookAdmin):
    list_display = ("url", "client", "status", "types_text", "failing", "created_text")
    empty_text = (
        "No storefront has told where its webhooks go. Add an endpoint, and its secret is shown once."
    )
    list_filter = (EndpointView, "is_enabled", "client")
    list_select_related = ("client",)
    search_fields = ("id", "url", "client__name")
    page_template = "admin/webhooks/endpoint/page.html"
    operator_actions = ACTIONS
    facts = (
        "client",
        "description",
        "id",
        "types_text",
        "rate_text",
        "order_text",
        "email_text",
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
                return self._show_secret(request, endpoint, secret, is_first=True)
        return self._show_form(request, form, title="New webhook endpoint")

    def page_context(self, request: HttpRequest, row: Endpoint) -> dict[str, Any]:
        is_kept = row.removed_at is None
        sees_deliveries = self.allows(request, "view_delivery")
        context = {
            "title": row.url,
            "badges": [self.status(row)],
            "trouble": "" if row.is_enabled else f"Disabled: {row.disabled_reason}.",
            "health": self._describe_health(row),
            "can_rotate": is_kept and self.allows(request, "rotate_endpoint"),
            "edit_url": self.url_of(row, "edit") if is_kept and self._may_change(request) else "",
            "deliveries_url": _link_deliveries(row) if sees_deliveries else "",
        }
        return {**super().page_context(request, row), **context}

    def _describe_health(self, endpoint: Endpoint) -> list[tuple[str, Any]]:
        counts = _count_last_day(endpoint)
        told: list[tuple[str, Any]] = [(state.label, counts.get(state, 0)) for state in DeliveryState]
        return [
            *told,
            ("Failing for", self.failing(endpoint)),
            ("Paused until", age(endpoint.paused_until)),
            ("Next probe", age(endpoint.probe_at)),
        ]

    # --- changing it --------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        return [
            path("event-types/", self.admin_site.admin_view(self.show_types), name="webhooks_endpoint_types"),
            path(
                "<path:object_id>/rotate/",
                self.admin_site.admin_view(self.rotate),
                name="webhooks_endpoint_rotate",
            ),
            path(
                "<path:object_id>/edit/", self.admin_site.admin_view(self.edit), name="webhooks_endpoint_edit"
            ),
            *super().get_urls(),
        ]

    def _may_change(self, request: HttpRequest) -> bool:
        return self.allows(request, "change_endpoint")

    def edit(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """All that its storefront may ask for, on one form."""
        if not self._may_change(request):
            raise PermissionDenied
        endpoint = self.find_row(request, object_id)
        form = EndpointForm(request.POST or None, initial=describe_fields(endpoint))
        if request.method == "POST" and form.is_valid():
            try:
                endpoints.update_endpoint(endpoint, actor=name_actor(request), **form.cleaned_data)
            except PaymentError as error:
                form.add_error("url", error.message)
            else:
                self.message_user(request, "The endpoint is changed.")
                return HttpResponseRedirect(self.url_of(endpoint))
        return self._show_form(request, form, title=f"Change {endpoint.url}", endpoint=endpoint)

    def _show_form(
        self, request: HttpRequest, form: EndpointForm, *, title: str, endpoint: Endpoint | None = None
    ) -> HttpResponse:
        context = {"form": form, "endpoint": endpoint, "row": endpoint}
        return self.render_page(
            request,
            "admin/webhooks/endpoint/form.html",
            title=title,
            context=context,
            status=422 if form.errors else 200,
        )

    # --- the secret ---------------------------------------------------------------------------------------

    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Not an `OperatorAction`: its answer is a secret, which must be kept in no message and no store."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.allows(request, "rotate_endpoint"):
            raise PermissionDenied
        endpoint = self.find_row(request, object_id)
        try:
            secret = endpoints.rotate_secret(endpoint)
        except PaymentError as error:
            messages.error(request, error.message)
            return HttpResponseRedirect(self.url_of(endpoint))
        return self._show_secret(request, endpoint, secret)

    def _show_secret(
        self, request: HttpRequest, endpoint: Endpoint, secret: str, *, is_first: bool = False
    ) -> HttpResponse:
        context = {"endpoint": endpoint, "secret": secret, "is_first": is_first}
        answer = self.render_page(
            request, "admin/webhooks/endpoint/secret.html", title="The endpoint's secret", context=context
        )
        answer.headers["Cache-Control"] = "no-store"
        return answer

    # --- the catalogue ------------------------------------------------------------------------------------

    def show_types(self, request: HttpRequest) -> HttpResponse:
        """Every kind of event, with an example and its schema."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        kinds = [(kind, show_json(kind.example), show_json(kind.schema)) for kind in CATALOGUE.values()]
        return self.render_page(
            request, "admin/webhooks/event_types.html", title="Event types", context={"kinds": kinds}
        )

    # --- columns ----------------------------------------------------------------------------------------

    @column("State", ordering="is_enabled")
    def status(self, endpoint: Endpoint) -> SafeString:
        if endpoint.removed_at:
            return state_badge("Removed", "default")
        if not endpoint.is_enabled:
            return state_badge("Disabled", "danger")
        return (
            state_badge("Failing", "warning") if endpoint.failing_since else state_badge("Enabled", "success")
        )

    @column("Created", ordering="created_at")
    def created_text(self, endpoint: Endpoint) -> SafeString:
        return age(endpoint.created_at)

    @column("Event types")
    def types_text(self, endpoint: Endpoint) -> str:
        return ", ".join(endpoint.event_types) or "all"

    @column("Deliveries a second")
    def rate_text(self, endpoint: Endpoint) -> str:
        return f"at most {endpoint.rate_per_second}" if endpoint.rate_per_second else "as fast as it answers"

    @column("In order")
    def order_text(self, endpoint: Endpoint) -> str:
        return "yes, one at a time" if endpoint.is_ordered else "no"

    @column("E-mail")
    def email_text(self, endpoint: Endpoint) -> str:
        return endpoint.notify_email or "–"

    @column("Failing for")
    def failing(self, endpoint: Endpoint) -> str:
        return describe_span(timezone.now() - endpoint.failing_since) if endpoint.failing_since else "–"

    @column("Secrets")
    def secrets_text(self, endpoint: Endpoint) -> str:
        ends = endpoint.secrets.valid().values_list("expires_at", flat=True)
        return ", ".join(f"one until {end:%Y-%m-%d %H:%M} UTC" if end else "the current one" for end in ends)


def _count_last_day(endpoint: Endpoint) -> dict[str, int]:
    """How many deliveries were made in the last 24 hours, by state."""
    yesterday = lowest_id("dlv", timezone.now() - timedelta(days=1))
    made = Delivery.objects.filter(endpoint=endpoint, pk__gte=yesterday).order_by()
    return dict(made.values_list("state").annotate(Count("pk")))


def _link_deliveries(endpoint: Endpoint) -> str:
    return reverse("admin:webhooks_delivery_changelist") + f"?endpoint__id__exact={endpoint.pk}&state=all"
