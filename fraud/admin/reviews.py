"""The review queue and the case page: claims, decisions one by one and many at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect, JsonResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.views import ChangeList

from fraud import policy, services
from fraud.admin.review_actions import ACTIONS, KEYS
from fraud.admin.review_forms import BulkForm
from fraud.admin.review_words import (
    describe_card,
    name_customer,
    show_countries,
    show_due,
    show_hold,
    show_links,
    show_sla,
    tell_history,
    tell_kinds,
)
from fraud.cases import build_case, top_reasons
from fraud.links import count_links
from fraud.models import Review, ReviewEvent, ReviewState
from payments.admin.base import (
    BackOfficeAdmin,
    TabFilter,
    age,
    column,
    describe_span,
    link,
    money,
    name_actor,
)
from payments.admin.words import tell_actor
from payments.errors import PaymentError

QUEUE = "admin:fraud_review_changelist"
COUNTED = 1000  # of what is decided; beyond it is "1000+"
NEIGHBOURS = 500
HEARTBEAT_SECONDS = 120


class QueueFilter(TabFilter):
    """Parts of the queue, with how many are in each; it opens on what is open."""

    tabs = {
        "open": "Open",
        "mine": "Mine",
        "unclaimed": "Unclaimed",
        "snoozed": "Snoozed",
        "escalated": "Escalated",
        "proposed": "Proposed",
        "decided": "Decided",
        "all": "All",
    }

    def __init__(self, request: HttpRequest, *args: Any) -> None:
        super().__init__(request, *args)
        self.user = request.user

    def narrow(self, tab: str, queryset: QuerySet[Review]) -> QuerySet[Review]:
        match tab:
            case "all":
                return queryset
            case "decided":
                return queryset.exclude(state=ReviewState.OPEN)
        return queryset.filter(self._parts()[tab], state=ReviewState.OPEN)

    def _parts(self) -> dict[str, Q]:
        """What of the open cases each tab shows; snoozed ones show up in their own alone."""
        now = timezone.now()
        asleep = Q(pk__in=Review.objects.asleep().values("pk"))
        return {
            "open": ~asleep,
            "mine": Q(claimed_by=self.user.pk, claim_expires_at__gt=now),
            "unclaimed": ~asleep & (Q(claim_expires_at__isnull=True) | Q(claim_expires_at__lte=now)),
            "snoozed": asleep,
            "escalated": Q(escalated_at__isnull=False),
            "proposed": ~Q(proposed_by=""),
        }

    def choices(self, changelist: Any) -> Iterator[Any]:
        counts = self._count()
        for tab, choice in zip(self.tabs, super().choices(changelist), strict=True):
            yield {**choice, "count": counts[tab]}

    def _count(self) -> dict[str, str]:
        """Two queries; what is decided is counted as far as it matters."""
        parts = {tab: Count("pk", filter=part) for tab, part in self._parts().items()}
        counts = Review.objects.open().order_by().aggregate(total=Count("pk"), **parts)
        decided = Review.objects.exclude(state=ReviewState.OPEN).order_by()[: COUNTED + 1].count()
        total = counts.pop("total") + decided
        all_counts = {**counts, "decided": decided, "all": total}
        return {tab: f"{COUNTED}+" if count > COUNTED else str(count) for tab, count in all_counts.items()}


class QueueList(ChangeList):  # type: ignore[misc]
    """The rows of a page get the count of their linked orders, in two queries for all."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        counts = count_links([review.order_id for review in self.result_list])
        for review in self.result_list:
            review.links = counts.get(review.order_id)


@admin.register(Review)
class ReviewAdmin(BackOfficeAdmin):
    """Opens on what is open, the most urgent first."""

    list_title = "Review queue"
    list_display = [
        "due",
        "case",
        "reasons",
        "customer",
        "linked",
        "hold",
    ]
    list_display_links = ["due", "case"]
    list_filter = [QueueFilter, ("created_at", admin.DateFieldListFilter), "reason_code"]
    list_before_template = "admin/fraud/review/queue.html"
    search_fields = ["id", "order__id", "order__reference", "order__customer_email", "payment__id"]
    search_help_text = "Search by order, reference, payment, e-mail"
    ordering = ["expires_at", "-score", "-amount", "id"]
    empty_text = "No order waits for a decision. One comes here when a rule asks for a person."
    page_template = "admin/fraud/review/case.html"
    operator_actions = ACTIONS
    actions = ["approve_selected", "reject_selected"]

    class Media:
        css = {"all": ["fraud/review.css"]}
        js = ["fraud/review.js"]

    # --- the queue ------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[Review]:
        queryset: QuerySet[Review] = super().get_queryset(request)
        related = queryset.select_related("order", "payment", "claimed_by")
        return related.prefetch_related("order__assessments__verdicts")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return QueueList

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {
            "can_claim": self.allows(request, "claim_review"),
            "late": Review.objects.awake().late(policy.sla()).count(),
            "sla": describe_span(policy.sla()),
        }
        return super().changelist_view(request, {**(extra_context or {}), **context})

    def get_list_display(self, request: HttpRequest) -> list[str]:
        """The state only where rows have different ones."""
        is_mixed = bool(request.GET.get("q")) or request.GET.get("view") in ("decided", "all")
        return [*self.list_display, "state_text"] if is_mixed else [*self.list_display]

    @column("Due", ordering="expires_at")
    def due(self, review: Review) -> SafeString:
        return format_html('<div class="fraud-stack">{}{}</div>', show_sla(review), show_due(review))

    @column("Order", ordering="amount")
    def case(self, review: Review) -> SafeString:
        amount = money(review.amount, review.order.currency)
        points = f"{review.score} points" if review.score else ""
        row = '<div class="fraud-nowrap">{}<br>{} <span class="fraud-quiet">{}</span></div>'
        return format_html(row, review.order.reference, amount, points)

    @column("Customer")
    def customer(self, review: Review) -> SafeString:
        return format_html(
            '<div class="fraud-nowrap">{}<br><span class="fraud-quiet">{} →</span> {}</div>',
            name_customer(review),
            describe_card(review),
            show_countries(review),
        )

    @column("Why")
    def reasons(self, review: Review) -> SafeString:
        assessments = review.order.assessments.all()
        found = top_reasons(verdict for assessment in assessments for verdict in assessment.verdicts.all())
        if not found:
            return format_html('<span class="fraud-quiet">{}</span>', "screening failed")
        chip = '<span class="fraud-reason" title="{}">{}</span>'
        return format_html_join("", chip, ((verdict.describe(), verdict.rule_name) for verdict in found))

    @column("Linked")
    def linked(self, review: Review) -> SafeString:
        return show_links(getattr(review, "links", None))

    @column("Hold ends", ordering="payment__authorization_expires_at")
    def hold(self, review: Review) -> SafeString:
        who = str(review.holder() or "nobody") if review.is_open else tell_actor(review.decided_by)
        return format_html('<div>{}<br><span class="fraud-quiet">{}</span></div>', show_hold(review), who)

    @column(
        "State",
        label={"Open": "info", "Approved": "success", "Rejected": "danger", "Expired": "warning"},
    )
    def state_text(self, review: Review) -> str:
        return str(review.get_state_display())

    # --- many at once ---------------------------------------------------------------------------

    def has_decide_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, "decide_review")

    @admin.action(description="Approve the selected cases", permissions=["decide"])
    def approve_selected(self, request: HttpRequest, queryset: QuerySet[Review]) -> HttpResponse | None:
        return self._ask_for_reason(request, "approve", queryset)

    @admin.action(description="Reject the selected cases", permissions=["decide"])
    def reject_selected(self, request: HttpRequest, queryset: QuerySet[Review]) -> HttpResponse | None:
        return self._ask_for_reason(request, "reject", queryset)

    def _ask_for_reason(
        self, request: HttpRequest, decision: str, queryset: QuerySet[Review]
    ) -> HttpResponse | None:
        ids = list(queryset.values_list("pk", flat=True)[: services.MAX_BULK + 1])
        if len(ids) > services.MAX_BULK:
            messages.error(request, f"At most {services.MAX_BULK} cases at once; nothing was changed.")
            return None
        form = BulkForm(decision=decision, reviews=ids, initial={"decision": decision, "reviews": ids})
        return self._show_bulk(request, decision, ids, form)

    def bulk_view(self, request: HttpRequest) -> HttpResponse:
        """Each case by itself; the page says what became of each."""
        if not self.has_decide_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        decision, ids = request.POST.get("decision", ""), request.POST.getlist("reviews")
        form = BulkForm(request.POST, decision=decision, reviews=ids)
        if not form.is_valid():
            return self._show_bulk(request, decision, ids, form, status=422)
        try:
            results = services.decide_many(actor=name_actor(request), **self._bulk_wish(form))
        except PaymentError as error:
            messages.error(request, error.message)
            return HttpResponseRedirect(reverse(QUEUE))
        told = tell_kinds(Counter(result.outcome.value for result in results).items())
        context = {"results": results, "told": told, "media": self.media}
        return self.render_page(
            request, "admin/fraud/review/bulk_done.html", title="What became of each", context=context
        )

    @staticmethod
    def _bulk_wish(form: BulkForm) -> dict[str, Any]:
        wish = form.cleaned_data
        return {
            "review_ids": wish["reviews"],
            **{name: wish[name] for name in ("decision", "reason_code", "note")},
        }

    def _show_bulk(
        self, request: HttpRequest, decision: str, ids: list[str], form: BulkForm, *, status: int = 200
    ) -> HttpResponse:
        cases = self.get_queryset(request).filter(pk__in=ids).order_by(*self.ordering)
        context = {"form": form, "decision": decision, "cases": cases, "media": self.media}
        title = f"{decision.capitalize()} {len(ids)} case{'' if len(ids) == 1 else 's'}"
        return self.render_page(
            request, "admin/fraud/review/bulk.html", title=title, context=context, status=status
        )

    # --- the case -------------------------------------------------------------------------------

    def page_context(self, request: HttpRequest, row: Review) -> dict[str, Any]:
        case = build_case(row)
        return {
            "title": f"Review of {row.order.reference}",
            "review": row,
            "case": case,
            "history": tell_history(case),
            "decided_by": tell_actor(row.decided_by),
            "proposed_by": tell_actor(row.proposed_by),
            "escalated_by": tell_actor(row.escalated_by),
            "due": show_due(row),
            "sla": show_sla(row),
            "hold": show_hold(row),
            "customer": name_customer(row),
            "card": describe_card(row),
            "order_link": link("payments_order", row.order_id, row.order.reference),
            "holder": row.holder(),
            "is_mine": row.holder() == request.user,
            "can_claim": row.is_open and self.allows(request, "claim_review"),
            "why_not": self._why_not_decide(request, row),
            "takes_two": policy.takes_two(row.order.total),
            "keys": KEYS,
            "heartbeat": HEARTBEAT_SECONDS,
            **self._find_neighbours(row),
        }

    def _why_not_decide(self, request: HttpRequest, row: Review) -> str:
        """Why this user cannot decide this case now; empty if nothing is in the way."""
        holder = row.holder()
        if holder is not None and holder != request.user:
            return f"{holder} holds this case until {row.claim_expires_at:%H:%M} UTC."
        if row.escalated_at and not self.allows(request, "decide_escalated_review"):
            return "It is escalated: a supervisor decides it."
        if row.proposed_by == name_actor(request):
            return "You proposed to approve it: it waits for a second person."
        if row.proposed_by and not self.allows(request, "confirm_review"):
            return f"{tell_actor(row.proposed_by)} proposed to approve it: it waits for somebody who may confirm."
        return ""

    def _find_neighbours(self, row: Review) -> dict[str, Any]:
        """The cases before and after this one in the queue, and where it stands."""
        ids = list(Review.objects.awake().urgent_first().values_list("pk", flat=True)[:NEIGHBOURS])
        place = ids.index(row.pk) if row.pk in ids else -1
        following = ids[place + 1] if place + 1 < len(ids) else None
        before = ids[place - 1] if place > 0 else None
        url = f"{self.admin_site.name}:{self._prefix}_change"
        return {
            "place": place + 1,
            "queue_length": len(ids),
            "next_url": reverse(url, args=[following]) if following else "",
            "previous_url": reverse(url, args=[before]) if before else "",
        }

    def url_after(self, request: HttpRequest, row: Review) -> str:
        """When one's own deed took the case away, to the next, claimed; else back to this one."""
        row.refresh_from_db(fields=["state", "claimed_by", "claim_expires_at"])
        last = row.events.first()
        is_left = last is not None and last.actor == name_actor(request) and last.kind != "listed"
        if not is_left or row.holder() == request.user:
            return self.url_of(row)
        return self._claim_next(request)

    # --- claims ---------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        def wrap(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
            guarded: Callable[..., HttpResponse] = self.admin_site.admin_view(view)
            return guarded

        return [
            path("next/", wrap(self.next_view), name="fraud_review_next"),
            path("bulk/", wrap(self.bulk_view), name="fraud_review_bulk"),
            path("<str:object_id>/claim/", wrap(self.claim_view), name="fraud_review_claim"),
            path("<str:object_id>/release/", wrap(self.release_view), name="fraud_review_release"),
            path("<str:object_id>/heartbeat/", wrap(self.heartbeat_view), name="fraud_review_heartbeat"),
            *super().get_urls(),
        ]

    def next_view(self, request: HttpRequest) -> HttpResponse:
        return self._refuse_claim(request) or HttpResponseRedirect(self._claim_next(request))

    def claim_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        if (refusal := self._refuse_claim(request)) is not None:
            return refusal
        review = self.find_row(request, object_id)
        try:
            services.claim_review(request.user, review.pk)
        except PaymentError as error:
            messages.error(request, error.message)
        return HttpResponseRedirect(self.url_of(review))

    def release_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        if (refusal := self._refuse_claim(request)) is not None:
            return refusal
        services.release_claim(object_id, user=request.user)
        return HttpResponseRedirect(reverse(QUEUE))

    def heartbeat_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Asked by the open page: whether the case is still its user's, and if not, whose it is."""
        if (refusal := self._refuse_claim(request)) is not None:
            return refusal
        is_held = services.heartbeat(object_id, request.user)
        review = self.find_row(request, object_id)
        told = f"Yours until {review.claim_expires_at:%H:%M} UTC" if is_held else _tell_loss(review)
        return JsonResponse({"held": is_held, "told": told})

    def _refuse_claim(self, request: HttpRequest) -> HttpResponse | None:
        """Claims are made by POST, by who may."""
        if not self.allows(request, "claim_review"):
            raise PermissionDenied
        return None if request.method == "POST" else HttpResponseNotAllowed(["POST"])

    def _claim_next(self, request: HttpRequest) -> str:
        review = services.claim_review(request.user) if self.allows(request, "claim_review") else None
        if review is None:
            messages.info(request, "Nothing is waiting for you in the queue.")
            return reverse(QUEUE)
        return self.url_of(review)


@admin.register(ReviewEvent)
class ReviewEventAdmin(BackOfficeAdmin):
    """Every line of every case's history: who did what, and when."""

    list_title = "Review history"
    list_display = ["kind_text", "review_text", "actor_text", "note", "at_text"]
    list_display_links = ["kind_text"]
    list_filter = ["kind", ("at", admin.DateFieldListFilter)]
    list_select_related = ["review__order"]
    search_fields = ["review__id", "review__order__reference", "actor"]
    search_help_text = "Search by review, order reference, actor"
    fields = ["kind", "review", "actor", "note", "at"]
    readonly_fields = fields

    @column("What", ordering="kind")
    def kind_text(self, event: ReviewEvent) -> str:
        return str(event.get_kind_display())

    @column("Order", ordering="review__order__reference")
    def review_text(self, event: ReviewEvent) -> SafeString:
        return link("fraud_review", event.review_id, event.review.order.reference)

    @column("Who", ordering="actor")
    def actor_text(self, event: ReviewEvent) -> str:
        return tell_actor(event.actor)

    @column("When", ordering="at")
    def at_text(self, event: ReviewEvent) -> SafeString:
        return age(event.at)


def _tell_loss(review: Review) -> str:
    """Why a case is not its reader's any more."""
    if not review.is_open:
        return (
            f"This case was {review.state} by {tell_actor(review.decided_by)}. You do not hold it any more."
        )
    holder = review.holder()
    if holder is not None:
        return f"{holder} holds this case now. You do not hold it any more."
    return "You do not hold this case any more. Claim it again to go on."
