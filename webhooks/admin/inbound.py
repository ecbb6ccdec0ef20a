"""The inbox: what gateways told us, what it did, and the replay."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from payments.admin.base import (
    Action,
    OperatorAction,
    age,
    column,
    describe_span,
    link,
    name_actor,
    show_json,
    state_badge,
)
from payments.admin.words import tell_actor
from payments.errors import ConflictError
from webhooks import processing
from webhooks.admin.base import WebhookAdmin
from webhooks.models import InboundState, InboundWebhook
from webhooks.tasks import inbound_bell

STATE_COLOURS: dict[str, str] = {
    InboundState.RECEIVED: "info",
    InboundState.PARKED: "warning",
    InboundState.FAILED: "danger",
    InboundState.QUARANTINED: "danger",
    InboundState.PROCESSED: "success",
    InboundState.IGNORED: "default",
}
UNFINISHED = (InboundState.RECEIVED, InboundState.PARKED, InboundState.FAILED, InboundState.QUARANTINED)
REPLAY_DAYS = 7


def replay_one(webhook: InboundWebhook, action: Action) -> str:
    replayed = processing.replay(webhook.pk, actor=action.actor)
    return f"{webhook.event_id} was replayed: {InboundState(replayed.state).label.lower()}."


def explain_no_replay(webhook: InboundWebhook) -> str:
    return "It is about to be processed already." if webhook.state == InboundState.RECEIVED else ""


REPLAY = OperatorAction(
    "replay",
    "Replay",
    "replay_inboundwebhook",
    replay_one,
    explanation="Applies the event again; what has happened already does not happen twice.",
    why_not=explain_no_replay,
)


class InboxFilter(admin.SimpleListFilter):
    """Which part of the inbox; what is not finished unless something else is asked for."""

    title = "state"
    parameter_name = "box"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*((str(value), str(label)) for value, label in InboundState.choices), ("all", "All")]

    def choices(self, changelist: Any) -> Any:
        first, *rest = super().choices(changelist)
        yield {**first, "display": "Not finished"}
        yield from rest

    def queryset(self, request: HttpRequest, queryset: QuerySet[InboundWebhook]) -> QuerySet[InboundWebhook]:
        wanted = self.value()
        if wanted == "all":
            return queryset
        return queryset.filter(state=wanted) if wanted else queryset.filter(state__in=UNFINISHED)


@admin.register(InboundWebhook)
class InboundWebhookAdmin(WebhookAdmin):
    list_display = (
        "event_text",
        "status",
        "why_text",
        "order_link",
        "attempts",
        "next_text",
        "received_text",
        "gateway",
    )
    empty_text = "Every webhook of the gateways is applied. A new one shows here until it is."
    list_filter = (InboxFilter, "account", "event_type", "source", ("received_at", admin.DateFieldListFilter))
    list_select_related = ("account", "order")
    list_before_template = "admin/webhooks/inbound/tabs.html"
    search_fields = ("id", "event_id", "subject", "order__id", "order__reference")
    search_help_text = "Search by event, payment reference, order"
    actions = ("replay_selected",)
    operator_actions = (REPLAY,)
    facts = (
        "what_it_did",
        "order_link",
        "gateway",
        "event_type",
        "event_id",
        "id",
        "attempts",
        "next_text",
        "received_at",
        "lag_text",
        "processed_at",
        "duplicates",
        "conflict_link",
        "source",
        "verified_with",
        "replayer_text",
        "replayed_at",
        "is_redacted",
        "sha256",
    )
    folded = ("payload_text", "headers_text")

    def get_queryset(self, request: HttpRequest) -> QuerySet[InboundWebhook]:
        queryset: QuerySet[InboundWebhook] = super().get_queryset(request)
        match = request.resolver_match
        is_list = match is not None and str(match.url_name).endswith("_changelist")
        return queryset.defer("payload") if is_list else queryset

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.replay_failed)
        return [
            path("replay-failed/", view, name="webhooks_inboundwebhook_replay_failed"),
            *super().get_urls(),
        ]

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, "replay_inboundwebhook")

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        counts = (
            InboundWebhook.objects.filter(state__in=UNFINISHED).values_list("state").annotate(Count("pk"))
        )
        found = dict(counts.order_by())
        tabs: list[tuple[str, str, int | None]] = [("", "Not finished", sum(found.values()))]
        tabs += [(state, InboundState(state).label, found.get(state, 0)) for state in UNFINISHED]
        # The rest is history, and too much of it to be counted for every page.
        tabs += [(InboundState.PROCESSED, "Processed", None), (InboundState.IGNORED, "Ignored", None)]
        tabs += [("all", "All", None)]
        context = {
            "title": "Webhook inbox",
            "box_tabs": tabs,
            "box_now": request.GET.get("box", ""),
            "can_replay": self.has_replay_permission(request),
            "replay_label": f"Replay what failed in the last {REPLAY_DAYS} days",
        }
        response: HttpResponse = super().changelist_view(request, {**(extra_context or {}), **context})
        return response

    # --- actions ----------------------------------------------------------------------------------------

    @admin.action(description="Replay", permissions=["replay"])
    def replay_selected(self, request: HttpRequest, queryset: QuerySet[InboundWebhook]) -> None:
        replayed = 0
        for inbound_id in queryset.order_by("pk").values_list("pk", flat=True):
            try:
                processing.replay(inbound_id, actor=name_actor(request))
                replayed += 1
            except ConflictError as error:
                messages.warning(request, error.message)
        messages.success(request, f"{replayed} replayed.")

    def replay_failed(self, request: HttpRequest) -> HttpResponse:
        """Everything of the last seven days that did not succeed."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_replay_permission(request):
            raise PermissionDenied
        since = timezone.now() - timedelta(days=REPLAY_DAYS)
        count = processing.replay_failed_since(since, actor=name_actor(request))
        inbound_bell.ring_on_commit()
        messages.success(request, f"{count} are due again; a worker takes them now.")
        return HttpResponseRedirect(reverse("admin:webhooks_inboundwebhook_changelist"))

    # --- columns ----------------------------------------------------------------------------------------

    @column("Gateway", ordering="account")
    def gateway(self, webhook: InboundWebhook) -> str:
        return str(webhook.account)

    @column("Event", ordering="event_type")
    def event_text(self, webhook: InboundWebhook) -> SafeString:
        return format_html(
            '<div>{}<br><span class="bo-quiet">{}</span></div>', webhook.event_type, webhook.event_id
        )

    @column("State", ordering="state")
    def status(self, webhook: InboundWebhook) -> SafeString:
        return state_badge(webhook.get_state_display(), STATE_COLOURS[webhook.state])

    @column("Why not")
    def why_text(self, webhook: InboundWebhook) -> SafeString:
        return format_html('<span class="bo-clip" title="{0}">{0}</span>', webhook.last_error or "–")

    @column("Next try", ordering="next_try_at")
    def next_text(self, webhook: InboundWebhook) -> SafeString:
        is_due = webhook.state in (InboundState.RECEIVED, InboundState.PARKED, InboundState.FAILED)
        return age(webhook.next_try_at) if is_due else SafeString("none")

    @column("Received", ordering="received_at")
    def received_text(self, webhook: InboundWebhook) -> SafeString:
        return age(webhook.received_at, is_open=webhook.state in UNFINISHED)

    @column("Lag")
    def lag_text(self, webhook: InboundWebhook) -> str:
        return describe_span(webhook.lag)

    @column("Order")
    def order_link(self, webhook: InboundWebhook) -> SafeString | str:
        if webhook.order is None:
            return "–"
        return link("payments_order", webhook.order.pk, webhook.order.reference)

    # --- the page ---------------------------------------------------------------------------------------

    def page_context(self, request: HttpRequest, row: InboundWebhook) -> dict[str, Any]:
        error = row.last_error if row.state in UNFINISHED else ""
        return {**super().page_context(request, row), "badges": [self.status(row)], "trouble": error}

    @column("What it did")
    def what_it_did(self, webhook: InboundWebhook) -> SafeString | str:
        if "facts" not in webhook.outcome:
            return "Nothing yet."
        lines = ((describe_fact(fact),) for fact in webhook.outcome["facts"])
        return format_html_join("", "<p>{}</p>", lines) or "It says nothing of a payment."

    @column("Replayed by")
    def replayer_text(self, webhook: InboundWebhook) -> str:
        return tell_actor(webhook.replayed_by)

    @column("Conflicts with")
    def conflict_link(self, webhook: InboundWebhook) -> SafeString | str:
        first = webhook.conflict_of
        return link("webhooks_inboundwebhook", first.pk, first.pk) if first else "–"

    @column("Headers")
    def headers_text(self, webhook: InboundWebhook) -> SafeString:
        return show_json(webhook.headers)

    @column("Payload")
    def payload_text(self, webhook: InboundWebhook) -> SafeString:
        return show_json(json.loads(bytes(webhook.payload)))


OUTCOMES = {
    "applied": "applied",
    "noop": "changed nothing: it was known",
    "conflict": "does not fit; the payment needs a review",
    "unknown_payment": "the payment is not known here yet",
}


def describe_fact(fact: dict[str, str]) -> str:
    """One line for people: `capture captured pi_1: applied`."""
    outcome = OUTCOMES.get(fact["outcome"], fact["outcome"])
    return f"{fact['kind']} {fact['status']} {fact['reference']}: {outcome}"
