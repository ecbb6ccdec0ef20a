"""The inbox: what gateways told us, what it did, and the replay."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments.admin.base import (
    Action,
    OperatorAction,
    age,
    column,
    describe_span,
    link,
    name_actor,
    state_badge,
)
from payments.admin.words import tell_actor
from payments.errors import ConflictError
from webhooks import replay
from webhooks.admin import event_page
from webhooks.admin.base import BoundedPaginator
from webhooks.admin.filters import (
    UNFINISHED_TABS,
    ConflictTab,
    InboxFilter,
    ReceivedFilter,
    TypeFilter,
    find_webhooks,
)
from webhooks.admin.health import HealthPages
from webhooks.admin.since import ReplaySinceForm
from webhooks.models import DONE_STATES, OPEN_STATES, UNFINISHED_STATES, InboundState, InboundWebhook
from webhooks.preview import preview
from webhooks.tasks import inbound_bell
from webhooks.wording import tell_fact

STATE_COLOURS: dict[str, str] = {
    InboundState.RECEIVED: "info",
    InboundState.PARKED: "warning",
    InboundState.FAILED: "danger",
    InboundState.QUARANTINED: "danger",
    InboundState.PROCESSED: "success",
    InboundState.IGNORED: "default",
}


def replay_one(webhook: InboundWebhook, action: Action) -> str:
    replayed = replay.replay(webhook.pk, actor=action.actor)
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


@admin.register(InboundWebhook)
class InboundWebhookAdmin(HealthPages):
    page_template = "admin/webhooks/inbound/page.html"
    list_display = (
        "event_text",
        "status",
        "did_text",
        "order_link",
        "tries_text",
        "lag_text",
        "received_text",
        "gateway",
    )
    empty_text = "Every webhook of the gateways is applied. A new one shows here until it is."
    list_filter = (InboxFilter, ReceivedFilter, "account", TypeFilter, "source")
    list_select_related = ("account", "order")
    list_before_template = "admin/webhooks/inbound/tabs.html"
    paginator = BoundedPaginator
    sortable_by = ()  # newest first is what the primary key gives; any other order reads the whole archive
    search_fields = ("id",)
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
        "neighbours",
        "attempts",
        "next_text",
        "received_at",
        "lag_text",
        "processed_at",
        "duplicates",
        "conflict_link",
        "source",
        "secret_text",
        "replayer_text",
        "replayed_at",
        "alarmed_at",
        "redacted_text",
        "sha256",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[InboundWebhook]:
        queryset: QuerySet[InboundWebhook] = super().get_queryset(request)
        match = request.resolver_match
        is_list = match is not None and str(match.url_name).endswith("_changelist")
        return queryset if is_list else queryset.select_related("stored", "account", "order")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[InboundWebhook], search_term: str
    ) -> tuple[QuerySet[InboundWebhook], bool]:
        found = queryset.filter(pk__in=find_webhooks(search_term)) if search_term.strip() else queryset
        return found, False

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path(
                "replay-since/",
                view(self.replay_since_view),
                name="webhooks_inboundwebhook_replay_since",
            ),
            path(
                "<path:object_id>/preview/",
                view(self.preview_view),
                name="webhooks_inboundwebhook_preview",
            ),
            *super().get_urls(),
        ]

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, "replay_inboundwebhook")

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        unfinished = InboundWebhook.objects.filter(state__in=UNFINISHED_STATES)
        found = dict(unfinished.values_list("state").annotate(Count("pk")).order_by())
        tabs: list[tuple[str, str, int | None]] = [("", "Not finished", sum(found.values()))]
        tabs += [(state, label, found.get(state, 0)) for state, label in UNFINISHED_TABS]
        # The rest is history, and too much of it to be counted for every page.
        tabs += [(ConflictTab.name, ConflictTab.label, None)]
        tabs += [(state, state.label, None) for state in DONE_STATES]
        tabs += [("all", "All", None)]
        context = {
            "title": "Webhook inbox",
            "box_tabs": tabs,
            "box_now": request.GET.get("box", ""),
            "can_replay": self.has_replay_permission(request),
        }
        response: HttpResponse = super().changelist_view(request, {**(extra_context or {}), **context})
        return response

    # --- actions ----------------------------------------------------------------------------------------

    @admin.action(description="Replay", permissions=["replay"])
    def replay_selected(self, request: HttpRequest, queryset: QuerySet[InboundWebhook]) -> None:
        """Made due by one statement and worked by a worker: a request is no place for hundreds."""
        chosen = list(queryset.order_by("pk").values_list("pk", flat=True)[: replay.MOST_AT_ONCE])
        count = replay.replay_many(chosen, actor=name_actor(request))
        inbound_bell.ring_on_commit()
        messages.success(request, f"{count} are due again; a worker takes them now.")
        if count < len(chosen):
            messages.warning(
                request,
                f"{len(chosen) - count} were left alone: about to be processed, or their payload is not kept any more.",
            )

    def replay_since_view(self, request: HttpRequest) -> HttpResponse:
        """GET counts what the form names; only a POST of the same form makes it due."""
        if not self.has_replay_permission(request):
            raise PermissionDenied
        is_post = request.method == "POST"
        form = ReplaySinceForm(request.POST if is_post else request.GET or None)
        count = form.count() if form.is_bound and form.is_valid() else None
        if is_post and count is not None:
            done = form.replay(name_actor(request))
            inbound_bell.ring_on_commit()
            left = f"; {count - done} are left" if count > done else ""
            messages.success(request, f"{done} are due again; a worker takes them now{left}.")
            return HttpResponseRedirect(reverse("admin:webhooks_inboundwebhook_changelist"))
        context = {"form": form, "count": count, "most": replay.MOST_AT_ONCE}
        return self.render_page(
            request,
            "admin/webhooks/inbound/since.html",
            title="Replay since",
            context=context,
            status=422 if is_post else 200,
        )

    def preview_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """A POST, since it locks the payment for a moment; it changes nothing."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_replay_permission(request):
            raise PermissionDenied
        row = self.find_row(request, object_id)
        try:
            would = preview(row.pk)
        except ConflictError as error:
            messages.error(request, error.message)
            return HttpResponseRedirect(self.url_of(row))
        return self.render_page(
            request,
            "admin/webhooks/inbound/preview.html",
            title=f"What a replay of {row.event_type} would do",
            context={"row": row, "would": would, "back": self.url_of(row)},
        )

    # --- columns ----------------------------------------------------------------------------------------

    @column("Gateway")
    def gateway(self, webhook: InboundWebhook) -> str:
        return str(webhook.account)

    @column("Event")
    def event_text(self, webhook: InboundWebhook) -> SafeString:
        return format_html(
            '<div>{}<br><span class="bo-quiet">{}</span></div>', webhook.event_type, webhook.event_id
        )

    @column("State")
    def status(self, webhook: InboundWebhook) -> SafeString:
        return state_badge(webhook.get_state_display(), STATE_COLOURS[webhook.state])

    @column("What it did, or why not")
    def did_text(self, webhook: InboundWebhook) -> SafeString:
        did = "; ".join(map(tell_fact, webhook.outcome.get("facts", ())))
        told = webhook.last_error or did or "–"
        return format_html('<span class="bo-clip" title="{0}">{0}</span>', told)

    @column("Tries")
    def tries_text(self, webhook: InboundWebhook) -> SafeString:
        if webhook.state not in OPEN_STATES:
            return format_html("{}", webhook.attempts)
        return format_html("{}, next {}", webhook.attempts, self.next_text(webhook))

    @column("Next try")
    def next_text(self, webhook: InboundWebhook) -> SafeString:
        return age(webhook.next_try_at) if webhook.state in OPEN_STATES else SafeString("none")

    @column("Received")
    def received_text(self, webhook: InboundWebhook) -> SafeString:
        return age(webhook.received_at, is_open=webhook.state in UNFINISHED_STATES)

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
        error = row.last_error if row.state in UNFINISHED_STATES else ""
        return {
            **super().page_context(request, row),
            "badges": [self.status(row)],
            "trouble": error,
            "folded": event_page.list_texts(row),
            "rivals": event_page.list_rivals(row),
            "preview_url": self.url_of(row, "preview")
            if row.payload and self.has_replay_permission(request)
            else "",
        }

    @column("What it did")
    def what_it_did(self, webhook: InboundWebhook) -> SafeString | str:
        return event_page.tell_effect(webhook)

    @column("The same payment")
    def neighbours(self, webhook: InboundWebhook) -> SafeString | str:
        return event_page.link_neighbours(webhook)

    @column("Verified with")
    def secret_text(self, webhook: InboundWebhook) -> str:
        return event_page.tell_secret(webhook)

    @column("Replayed by")
    def replayer_text(self, webhook: InboundWebhook) -> str:
        return tell_actor(webhook.replayed_by)

    @column("Conflicts with")
    def conflict_link(self, webhook: InboundWebhook) -> SafeString | str:
        first = webhook.conflict_of
        return link("webhooks_inboundwebhook", first.pk, first.pk) if first else "–"

    @column("Redacted")
    def redacted_text(self, webhook: InboundWebhook) -> str:
        return "yes" if webhook.payload and webhook.stored.is_redacted else "no"
