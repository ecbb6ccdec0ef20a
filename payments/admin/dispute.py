"""The dispute desk: what a cardholder says, until when it must be answered, and our one answer to it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin
from django.core.files.uploadedfile import UploadedFile
from django.db.models import QuerySet
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminFileFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget

from payments import services
from payments.admin.base import (
    Action,
    ActionForm,
    BackOfficeAdmin,
    Fact,
    OperatorAction,
    TabFilter,
    age,
    column,
    link,
    money,
)
from payments.admin.dispute_words import (
    EVIDENCE,
    dispute_badge,
    explain_code,
    explain_reason,
    tell_deadline,
    tell_where_the_money_is,
)
from payments.admin.words import tell_actor
from payments.errors import InvalidRequestError
from payments.gateways.base import EvidenceFile
from payments.kinds import DisputeStage, DisputeState
from payments.models import Dispute, DisputeEvidence
from payments.models.dispute import LOST_DISPUTE_STATES
from payments.services.disputes import MAX_FILE_BYTES


class DisputeView(TabFilter):
    tabs = {"answer": "To answer", "review": "Under review", "won": "Won", "lost": "Lost", "all": "All"}

    def narrow(self, tab: str, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match tab:
            case "review":
                return queryset.filter(state=DisputeState.UNDER_REVIEW)
            case "won":
                return queryset.filter(state=DisputeState.WON)
            case "lost":
                return queryset.filter(state__in=LOST_DISPUTE_STATES)
            case "all":
                return queryset
        return queryset.unanswered()  # type: ignore[attr-defined,no-any-return]


# --- what the dialogs ask -------------------------------------------------------------------------------------------


class EvidenceForm(ActionForm):
    """What is wrong with the evidence is said beside the field, so that what was typed stays."""

    kind = forms.ChoiceField(label="It shows", choices=list(EVIDENCE.items()), widget=UnfoldAdminSelectWidget)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        helps = explain_reason(self.row.reason).helps
        rest = [kind for kind in EVIDENCE if kind not in helps]
        kept = {evidence.kind for evidence in self.row.evidence.all()}
        self.fields["kind"].choices = [  # type: ignore[attr-defined]
            (kind, EVIDENCE[kind] + (" (takes the place of what is there)" if kind in kept else ""))
            for kind in (*helps, *rest)
        ]

    def check(self, *, text: str = "", file: EvidenceFile | None = None) -> None:
        """Ask the domain. Raises `ValidationError` for the field that it means."""
        if "kind" not in self.cleaned_data:
            return
        try:
            services.check_evidence(self.cleaned_data["kind"], text, file)
        except InvalidRequestError as error:
            raise forms.ValidationError(error.message) from None


class TextForm(EvidenceForm):
    text = forms.CharField(
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 8}),
        help_text="At most 20,000 characters; no card data.",
    )

    def clean_text(self) -> str:
        text = str(self.cleaned_data["text"])
        self.check(text=text)
        return text


class FileForm(EvidenceForm):
    file = forms.FileField(
        widget=UnfoldAdminFileFieldWidget(attrs={"accept": "application/pdf,image/jpeg,image/png"}),
        help_text=f"PDF, JPEG or PNG, at most {MAX_FILE_BYTES // 1_048_576} MiB.",
    )

    def clean_file(self) -> UploadedFile[bytes]:
        upload: UploadedFile[bytes] = self.cleaned_data["file"]
        if (upload.size or 0) > MAX_FILE_BYTES:  # before it is read
            size = f"{(upload.size or 0) / 1_048_576:.1f} MiB"
            most = MAX_FILE_BYTES // 1_048_576
            raise forms.ValidationError(
                f"The file has {size}; at most {most} MiB are taken; nothing was kept."
            )
        self.check(file=_read_upload(upload))
        return upload


def _read_upload(upload: UploadedFile[bytes]) -> EvidenceFile:
    upload.seek(0)
    return EvidenceFile(str(upload.name), upload.content_type or "", upload.read())


class RemoveForm(ActionForm):
    kind = forms.ChoiceField(label="What goes", widget=UnfoldAdminSelectWidget)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kept = [(evidence.kind, EVIDENCE[evidence.kind]) for evidence in self.row.evidence.all()]
        self.fields["kind"].choices = kept  # type: ignore[attr-defined]


class SubmitForm(ActionForm):
    """Shows all that will be sent; what was changed since is not sent unseen."""

    shown = forms.CharField(max_length=64, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["shown"].initial = _digest(self.row.evidence.all())

    def preview(self) -> Sequence[str]:
        return [f"{EVIDENCE[each.kind]}: {_describe(each)}" for each in self.row.evidence.all()]

    def clean_shown(self) -> str:
        shown = str(self.cleaned_data["shown"])
        if shown != _digest(self.row.evidence.all()):
            raise forms.ValidationError(
                "The evidence was changed since you opened this page. Go back, and look at it again. Nothing was sent."
            )
        return shown


def _digest(evidence: Sequence[DisputeEvidence] | QuerySet[DisputeEvidence]) -> str:
    parts = [f"{each.kind}\0{each.sha256}\0{each.text}" for each in evidence]
    return hashlib.sha256("\1".join(parts).encode()).hexdigest()


def _describe(evidence: DisputeEvidence) -> str:
    if evidence.file:
        return f"{evidence.file_name}, {_tell_size(evidence.size)}"
    return f"“{evidence.text[:120]}{'…' if len(evidence.text) > 120 else ''}”"


def _tell_size(size: int) -> str:
    return f"{size / 1_048_576:.1f} MiB" if size >= 1_048_576 else f"{max(1, size // 1024)} KiB"


# --- what may be done -----------------------------------------------------------------------------------------------


def _add_text(dispute: Dispute, wish: Action) -> str:
    services.add_evidence(dispute, kind=wish.data["kind"], text=wish.data["text"], actor=wish.actor)
    return "The text is kept. Nothing is sent before you submit."


def _add_file(dispute: Dispute, wish: Action) -> str:
    file = _read_upload(wish.data["file"])
    services.add_evidence(dispute, kind=wish.data["kind"], file=file, actor=wish.actor)
    return f"{file.name} is kept. Nothing is sent before you submit."


def _remove(dispute: Dispute, wish: Action) -> str:
    services.remove_evidence(dispute, kind=wish.data["kind"], actor=wish.actor)
    return f"“{EVIDENCE[wish.data['kind']]}” is removed."


def _submit(dispute: Dispute, wish: Action) -> str:
    after = services.submit_evidence(dispute, actor=wish.actor)
    return f"The evidence is sent; the dispute is {after.get_state_display().lower()}."


def _accept(dispute: Dispute, wish: Action) -> str:
    after = services.accept_dispute(dispute, actor=wish.actor)
    return (
        f"The dispute is {after.get_state_display().lower()}: {money(after.amount, after.currency)} are lost."
    )


def _refresh(dispute: Dispute, wish: Action) -> str:
    after = services.refresh_dispute(dispute, actor=wish.actor)
    return f"The gateway was asked; the dispute is {after.get_state_display().lower()}."


def _why_not_answer(dispute: Dispute) -> str:
    if dispute.is_answerable:
        return ""
    if dispute.state == DisputeState.NEEDS_RESPONSE:
        return "Its deadline has passed."
    return f"It is {dispute.get_state_display().lower()}."


def _why_not_send(dispute: Dispute) -> str:
    return _why_not_answer(dispute) or ("" if dispute.evidence.all() else "There is no evidence yet.")


def _why_not_accept(dispute: Dispute) -> str:
    if dispute.stage == DisputeStage.INQUIRY:
        return "A question is not accepted: refund the order instead."
    return _why_not_answer(dispute)


ACTIONS = (
    OperatorAction(
        "text", "Add text", "answer_dispute", _add_text, form=TextForm, why_not=_why_not_answer,
        explanation="It is sent to the bank when you submit, not before.",
    ),
    OperatorAction(
        "file", "Add file", "answer_dispute", _add_file, form=FileForm, why_not=_why_not_answer,
        explanation="It is sent to the bank when you submit, not before. Black out card numbers in it.",
    ),
    OperatorAction(
        "remove", "Remove evidence", "answer_dispute", _remove, form=RemoveForm, why_not=_why_not_send
    ),
    OperatorAction(
        "submit", "Submit evidence", "answer_dispute", _submit, form=SubmitForm, why_not=_why_not_send,
        explanation="All of this goes to the bank, once and for good: nothing can be added or changed afterwards.",
    ),
    OperatorAction(
        "accept", "Accept the loss", "answer_dispute", _accept, tone="danger", why_not=_why_not_accept,
        explanation="We give in: the customer keeps the money, the fee stays, and it cannot be taken back.",
    ),
    OperatorAction(
        "ask", "Ask the gateway", "answer_dispute", _refresh, tone="default",
        explanation="The gateway is asked how the dispute stands. Nothing is sent to the bank.",
    ),
)  # fmt: skip


# --- the pages ------------------------------------------------------------------------------------------------------


@admin.register(Dispute)
class DisputeAdmin(BackOfficeAdmin):
    """Opens on what must be answered, the soonest deadline first."""

    list_display = [
        "state_text",
        "due_text",
        "amount_text",
        "reason_text",
        "stage_text",
        "order_text",
        "account",
        "age_text",
    ]
    list_display_links = ["state_text"]
    list_filter = [DisputeView, "stage", "account", "currency", ("opened_at", admin.DateFieldListFilter)]
    search_fields = [
        "=id",
        "=gateway_reference",
        "=payment__id",
        "=payment__order__id",
        "=payment__order__reference",
    ]
    search_help_text = "Search by dispute, gateway reference, payment or order"
    empty_text = "No dispute waits for an answer. The tab “All” shows the others."
    page_template = "admin/payments/dispute/page.html"
    operator_actions = ACTIONS

    def get_ordering(self, request: HttpRequest) -> list[str]:
        is_queue = not (request.GET.get("view") or request.GET.get("q"))
        return ["due_by", "-id"] if is_queue else ["-id"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Dispute]:
        queryset: QuerySet[Dispute] = super().get_queryset(request)
        return queryset.select_related("payment__order", "account").prefetch_related("evidence")

    @column("State", ordering="state")
    def state_text(self, dispute: Dispute) -> SafeString:
        return dispute_badge(dispute)

    @column("To be answered", ordering="due_by")
    def due_text(self, dispute: Dispute) -> SafeString:
        return tell_deadline(dispute)

    @column("Amount", ordering="amount")
    def amount_text(self, dispute: Dispute) -> SafeString:
        return format_html('<span class="bo-money">{}</span>', money(dispute.amount, dispute.currency))

    @column("Reason", ordering="reason")
    def reason_text(self, dispute: Dispute) -> str:
        return explain_reason(dispute.reason).title

    @column("Stage", ordering="stage")
    def stage_text(self, dispute: Dispute) -> str:
        return dispute.get_stage_display()

    @column("Order")
    def order_text(self, dispute: Dispute) -> SafeString:
        return link("payments_order", dispute.payment.order_id, dispute.payment.order.reference)

    @column("Opened", ordering="opened_at")
    def age_text(self, dispute: Dispute) -> SafeString:
        return age(dispute.opened_at)

    def list_facts(self, row: Dispute) -> list[Fact]:
        return [
            ("Dispute", row.pk),
            ("Order", self.order_text(row)),
            ("Payment", link("payments_payment", row.payment_id, row.payment_id)),
            ("Stage", row.get_stage_display()),
            ("To be answered", tell_deadline(row)),
            ("Gateway", link("payments_gatewayaccount", row.account_id, row.account)),
            ("Gateway reference", row.gateway_reference),
            ("Reason of the network", explain_code(row.network_code)),
            ("Opened", age(row.opened_at)),
            *([("Submitted", age(row.submitted_at))] if row.submitted_at else []),
            *([("Submitted by", tell_actor(row.submitted_by))] if row.submitted_at else []),
            *([("Closed", age(row.closed_at))] if row.closed_at else []),
        ]

    def page_context(self, request: HttpRequest, row: Dispute) -> dict[str, Any]:
        evidence = list(row.evidence.all())
        kept = {each.kind for each in evidence}
        reason = explain_reason(row.reason)
        order_url = reverse("admin:payments_order_change", args=[row.payment.order_id])
        return {
            "title": f"Dispute of {row.payment.order.reference}",
            "badges": [dispute_badge(row)],
            "amount": money(row.amount, row.currency),
            "sums": [
                ("Disputed", money(row.amount, row.currency)),
                ("Fee so far", money(row.fee, row.fee_currency) if row.fee_currency else "none"),
            ],
            "sum_line": tell_where_the_money_is(row),
            "reason": reason,
            "helps": [(EVIDENCE[kind], kind in kept) for kind in reason.helps],
            "evidence": [
                (
                    each,
                    EVIDENCE.get(each.kind, each.kind),
                    _tell_size(each.size),
                    tell_actor(each.added_by),
                    reverse("admin:payments_disputeevidence_download", args=[row.pk, each.kind]),
                )
                for each in evidence
            ],
            "is_question": row.stage == DisputeStage.INQUIRY and row.is_answerable,
            "order_url": order_url,
        }

    # --- the evidence's files ---------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        download = path(
            "<path:object_id>/evidence/<str:kind>/",
            self.admin_site.admin_view(self.download_view),
            name="payments_disputeevidence_download",
        )
        return [download, *super().get_urls()]

    def download_view(self, request: HttpRequest, object_id: str, kind: str) -> HttpResponse | FileResponse:
        """To be kept, never to be shown by the browser: it came from outside."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET"])
        evidence = self.find_row(request, object_id).evidence.filter(kind=kind).first()
        if evidence is None or not evidence.file:
            raise Http404("There is no such file.")
        try:
            stream = evidence.file.open("rb")
        except FileNotFoundError:
            raise Http404(f"The file of the evidence {evidence.pk} is not in the storage.") from None
        response = FileResponse(
            stream, as_attachment=True, filename=evidence.file_name, content_type=evidence.content_type
        )
        response["X-Content-Type-Options"] = "nosniff"
        return response
