"""The review queue and the case page: claim, approve, reject, put on a list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from fraud import services
from fraud.admin.forms import ApproveForm, CaseListForm, RejectForm
from fraud.cases import Case, HistoryLine, build_case, top_reasons
from fraud.lists import mask_email
from fraud.models import Review, ReviewState
from payments.admin.base import (
    Action,
    BackOfficeAdmin,
    OperatorAction,
    TabFilter,
    column,
    describe_span,
    link,
    money,
    name_actor,
)
from payments.admin.words import tell_actor
from payments.errors import PaymentError

QUEUE = "admin:fraud_review_changelist"
SOON = timedelta(hours=24)


def approve(review: Review, action: Action) -> str:
    services.approve_review(review.pk, actor=action.actor, **action.data)
    return f"{review.order.reference} was approved: the money is captured."


def reject(review: Review, action: Action) -> str:
    services.reject_review(review.pk, actor=action.actor, **action.data)
    return f"{review.order.reference} was rejected: the authorization is voided."


def add_to_list(review: Review, action: Action) -> str:
    wish = action.data
    entry = services.add_case_to_list(
        review,
        wish["list"],
        wish["kind"],
        reason=wish["reason"],
        created_by=action.actor,
        expires_at=timezone.now() + timedelta(days=wish["days"]) if wish["days"] else None,
    )
    return f"{entry}."


def why_not_decide(review: Review) -> str:
    return "" if review.is_open else f"This review was {review.state} by {review.decided_by}."


ACTIONS = (
    OperatorAction(
        "list",
        "Add to a list",
        permission="add_listentry",
        perform=add_to_list,
        form=CaseListForm,
        explanation="It counts from the next order on; this order stays as it is.",
        tone="default",
    ),
    OperatorAction(
        "approve",
        "Approve",
        permission="decide_review",
        perform=approve,
        form=ApproveForm,
        explanation="The authorized money is captured and the order goes on. It can be refunded later.",
        tone="success",
        why_not=why_not_decide,
    ),
    OperatorAction(
        "reject",
        "Reject",
        permission="decide_review",
        perform=reject,
        form=RejectForm,
        explanation="The authorization is voided and the order is blocked. It cannot be taken back.",
        tone="danger",
        why_not=why_not_decide,
    ),
)


class QueueFilter(TabFilter):
    """Parts of the queue; it opens on what is open."""

    tabs = {"open": "Open", "mine": "Mine", "unclaimed": "Unclaimed", "decided": "Decided", "all": "All"}

    def __init__(self, request: HttpRequest, *args: Any) -> None:
        super().__init__(request, *args)
        self.user_id = request.user.pk

    def narrow(self, tab: str, queryset: QuerySet[Review]) -> QuerySet[Review]:
        now = timezone.now()
        open_reviews = queryset.filter(state=ReviewState.OPEN)
        match tab:
            case "mine":
                return open_reviews.filter(claimed_by=self.user_id, claim_expires_at__gt=now)
            case "unclaimed":
                return open_reviews.exclude(claim_expires_at__gt=now)
            case "decided":
                return queryset.exclude(state=ReviewState.OPEN)
            case "all":
                return queryset
        return open_reviews


@admin.register(Review)
class ReviewAdmin(BackOfficeAdmin):
    """Opens on what is open, the most urgent first."""

    list_display = [
        "due",
        "case",
        "score",
        "amount_text",
        "customer",
        "reasons",
        "holder",
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

    class Media:
        css = {"all": ["fraud/review.css"]}

    # --- the queue ------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[Review]:
        queryset: QuerySet[Review] = super().get_queryset(request)
        related = queryset.select_related("order", "payment", "claimed_by")
        return related.prefetch_related("order__assessments__verdicts")

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"title": "Review queue", "can_claim": self.allows(request, "claim_review")}
        return super().changelist_view(request, {**(extra_context or {}), **context})

    def get_list_display(self, request: HttpRequest) -> list[str]:
        """The state only where rows have different ones."""
        is_mixed = bool(request.GET.get("q")) or request.GET.get("view") in ("decided", "all")
        return [*self.list_display, "state_text"] if is_mixed else [*self.list_display]

    @column("Due", ordering="expires_at")
    def due(self, review: Review) -> SafeString:
        return show_due(review)

    @column("Order", ordering="order__reference")
    def case(self, review: Review) -> SafeString:
        return format_html('<span class="fraud-nowrap">{}</span>', review.order.reference)

    @column("Amount", ordering="amount")
    def amount_text(self, review: Review) -> str:
        return money(review.amount, review.order.currency)

    @column("Customer and card")
    def customer(self, review: Review) -> SafeString:
        both = name_customer(review), describe_card(review)
        return format_html('<div>{}<br><span class="fraud-quiet fraud-nowrap">{}</span></div>', *both)

    @column("Why")
    def reasons(self, review: Review) -> SafeString:
        assessments = review.order.assessments.all()
        found = top_reasons(verdict for assessment in assessments for verdict in assessment.verdicts.all())
        if not found:
            return format_html('<span class="fraud-quiet">{}</span>', "screening failed")
        chip = '<span class="fraud-reason" title="{}">{}</span>'
        return format_html_join("", chip, ((verdict.describe(), verdict.rule_name) for verdict in found))

    @column("Claimed by")
    def holder(self, review: Review) -> str:
        return str(review.holder() or "") if review.is_open else review.decided_by.removeprefix("user:")

    @column(
        "State",
        label={"Open": "info", "Approved": "success", "Rejected": "danger", "Expired": "warning"},
    )
    def state_text(self, review: Review) -> str:
        return str(review.get_state_display())

    # --- the case -------------------------------------------------------------------------------

    def page_context(self, request: HttpRequest, row: Review) -> dict[str, Any]:
        case = build_case(row)
        return {
            "title": f"Review of {row.order.reference}",
            "review": row,
            "case": case,
            "history": tell_history(case),
            "decided_by": tell_actor(row.decided_by),
            "due": show_due(row),
            "customer": name_customer(row),
            "card": describe_card(row),
            "order_link": link("payments_order", row.order_id, row.order.reference),
            "holder": row.holder(),
            "is_mine": row.holder() == request.user,
            "can_claim": row.is_open and self.allows(request, "claim_review"),
        }

    def url_after(self, request: HttpRequest, row: Review) -> str:
        """After one's own decision to the next case, claimed; else back to this one."""
        row.refresh_from_db(fields=["state", "decided_by"])
        if row.is_open or row.decided_by != name_actor(request):
            return self.url_of(row)
        return self._claim_next(request)

    # --- claims ---------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        def wrap(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
            guarded: Callable[..., HttpResponse] = self.admin_site.admin_view(view)
            return guarded

        return [
            path("next/", wrap(self.next_view), name="fraud_review_next"),
            path("<str:object_id>/claim/", wrap(self.claim_view), name="fraud_review_claim"),
            path("<str:object_id>/release/", wrap(self.release_view), name="fraud_review_release"),
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


def show_due(review: Review, *, now: datetime | None = None) -> SafeString:
    """How long is left, in words and colour, with the exact time at hand."""
    if not review.is_open:
        return format_html('<span class="fraud-quiet">{}</span>', "ended")
    left = review.expires_at - (now or timezone.now())
    words = f"{describe_span(abs(left))} {'left' if left > timedelta(0) else 'late'}"
    urgency = "late" if left < timedelta(0) else "soon" if left < SOON else "fine"
    exact = f"Rejected by policy at {review.expires_at:%Y-%m-%d %H:%M} UTC"
    return format_html('<span class="fraud-due fraud-due-{}" title="{}">{}</span>', urgency, exact, words)


def tell_history(case: Case) -> list[HistoryLine]:
    """The lines with people's names; what the journal and the review both tell is told once."""
    lines = {(line.what, line.at.replace(microsecond=0)): line for line in case.history}
    return [replace(line, who=tell_actor(line.who)) for line in lines.values()]


def name_customer(review: Review) -> str:
    return mask_email(review.order.customer_email) or review.order.customer_id or "guest"


def describe_card(review: Review) -> str:
    """`Visa ·4242 US`, as far as it is known."""
    card = review.payment.card
    last4 = f"·{card['last4']}" if card.get("last4") else ""
    parts = [str(card.get("brand", "")).title(), last4, str(card.get("country", ""))]
    return " ".join(filter(None, parts)) or "not known"
