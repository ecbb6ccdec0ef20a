"""The endpoints of disputes: what is said against a payment, the evidence against that, and the answer."""

from __future__ import annotations

from collections.abc import Callable

from django.core.files.uploadedfile import UploadedFile
from django.db.models import QuerySet
from django.http import HttpResponse
from django.urls import path
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from payments import services
from payments.api.fields import ChoiceNameField, ClosedSerializer, TextField
from payments.api.filters import DisputeFilter
from payments.api.parsers import MAX_UPLOAD_BYTES, StrictFormParser, StrictJSONParser
from payments.api.projections import DisputeDetailProjection, DisputeProjection, EvidenceProjection
from payments.api.replay import Answer, answer_once
from payments.api.views import StorefrontView
from payments.errors import ConflictError, GatewayTimeoutError, NetworkError
from payments.gateways.base import EvidenceFile
from payments.idempotency import Claim
from payments.kinds import EVIDENCE_KINDS, DisputeState
from payments.models import Dispute
from payments.models.client import Scope
from payments.services.disputes import MAX_TEXT

_TOO_LATE = "It was answered or decided, or its deadline has passed: nothing was changed."


# --- what comes in ------------------------------------------------------------------------------------------


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "Where the parcel went",
            request_only=True,
            value={"kind": "shipping_tracking_number", "text": "DHL 00340434161094042557"},
        )
    ]
)
class EvidenceTextRequest(ClosedSerializer):
    """A text for the bank."""

    kind = ChoiceNameField(choices=EVIDENCE_KINDS)
    text = TextField(max_length=MAX_TEXT)


class EvidenceFormRequest(ClosedSerializer):
    """A text or a file for the bank, as a form."""

    kind = ChoiceNameField(choices=EVIDENCE_KINDS)
    text = TextField(max_length=MAX_TEXT, required=False, default="", allow_blank=True)
    file = serializers.FileField(
        required=False, help_text="PDF, JPEG or PNG, at most 4 MiB, with its content type; or else a text."
    )


def _read_upload(upload: UploadedFile[bytes] | None) -> EvidenceFile | None:
    if upload is None:
        return None
    return EvidenceFile(str(upload.name), upload.content_type or "", upload.read())


# --- the endpoints ------------------------------------------------------------------------------------------


class ClientDisputesView(StorefrontView):
    """The disputes of the client's own orders."""

    queryset = Dispute.objects.select_related("payment", "account")
    serializer_class = DisputeProjection

    def get_queryset(self) -> QuerySet[Dispute]:
        return super().get_queryset().filter(payment__order__client=self.client)

    def find_dispute(self, dispute_id: str) -> Dispute:
        dispute: Dispute = self.find_or_404(self.get_queryset(), dispute_id, "dp")
        return dispute


class DisputeView(ClientDisputesView):
    filterset_class = DisputeFilter
    parser_classes = [StrictJSONParser, StrictFormParser]
    required_scopes = {
        "list": Scope.DISPUTES_READ,
        "retrieve": Scope.DISPUTES_READ,
        "add_evidence": Scope.DISPUTES_WRITE,
        "remove_evidence": Scope.DISPUTES_WRITE,
    }
    own_problems = {
        "add_evidence": {
            "409": _TOO_LATE,
            "413": f"The body is larger than 64 KiB, as a form than {MAX_UPLOAD_BYTES // 1_048_576} MiB.",
            "415": "Only uncompressed UTF-8 JSON and multipart forms are understood.",
        },
        "remove_evidence": {"409": _TOO_LATE},
    }

    @extend_schema(summary="List disputes, newest first", responses=DisputeProjection(many=True))
    def list(self, request: Request) -> Response:
        return self.list_page(self.get_queryset(), DisputeProjection)

    @extend_schema(summary="Read a dispute with its evidence", responses=DisputeDetailProjection)
    def retrieve(self, request: Request, pk: str) -> Response:
        return Response(DisputeDetailProjection(self.find_dispute(pk)).data)

    @extend_schema(
        summary="Add evidence to a dispute",
        request={"application/json": EvidenceTextRequest, "multipart/form-data": EvidenceFormRequest},
        responses={201: EvidenceProjection},
    )
    def add_evidence(self, request: Request, pk: str) -> Response:
        """In place of what it had of this kind: safe to repeat. Nothing is sent before the dispute is submitted."""
        dispute = self.find_dispute(pk)
        is_form = (request.content_type or "").startswith("multipart/")
        valid = self.read(EvidenceFormRequest if is_form else EvidenceTextRequest).validated_data
        evidence = services.add_evidence(
            dispute,
            kind=valid["kind"],
            text=valid["text"],
            file=_read_upload(valid.get("file")),
            actor=self.actor,
        )
        return Response(EvidenceProjection(evidence).data, status=201)

    @extend_schema(
        summary="Remove evidence from a dispute",
        request=None,
        responses={204: OpenApiResponse(description="Nothing of this kind is sent.")},
    )
    def remove_evidence(self, request: Request, pk: str, kind: str) -> Response:
        dispute = self.find_dispute(pk)
        if kind not in EVIDENCE_KINDS or not dispute.evidence.filter(kind=kind).exists():
            raise NotFound("There is no such object.")
        services.remove_evidence(dispute, kind=kind, actor=self.actor)
        return Response(status=204)


class DisputeAnswerView(ClientDisputesView):
    """The two ways to answer, for good, each under an Idempotency-Key."""

    needs_idempotency_key = True
    required_scopes = {"submit": Scope.DISPUTES_WRITE, "accept": Scope.DISPUTES_WRITE}
    own_problems = {"submit": {"409": _TOO_LATE}, "accept": {"409": _TOO_LATE}}

    @extend_schema(
        summary="Send a dispute's evidence to the bank", request=None, responses=DisputeDetailProjection
    )
    def submit(self, request: Request, pk: str) -> HttpResponse:
        """Once and for good: nothing can be added afterwards."""
        return self.answer(pk, services.submit_evidence)

    @extend_schema(summary="Give in to a dispute", request=None, responses=DisputeDetailProjection)
    def accept(self, request: Request, pk: str) -> HttpResponse:
        """For good: the amount is lost. An inquiry is not accepted: refund its order."""
        return self.answer(pk, services.accept_dispute)

    def answer(self, dispute_id: str, decide: Callable[..., Dispute]) -> HttpResponse:
        dispute = self.find_dispute(dispute_id)
        self.refuse_body()

        def perform(claim: Claim) -> Answer:
            try:
                answered = decide(dispute, actor=self.actor)
            except GatewayTimeoutError:  # it is sent under one key however often, so asking again is safe
                message = "The gateway has not answered. Send the same request again."
                raise NetworkError(message) from None
            except ConflictError:
                answered = self.find_dispute(dispute_id)
                if claim.is_new or answered.state == DisputeState.NEEDS_RESPONSE:
                    raise
                # The first request died; that the dispute is answered by now was its doing.
            return Answer(200, dict(DisputeDetailProjection(answered).data))

        return answer_once(
            self.request,
            route=f"POST disputes/{{id}}/{self.action}",
            path={"id": dispute_id},
            perform=perform,
        )


urlpatterns = [
    path("disputes", DisputeView.as_view({"get": "list"}), name="disputes"),
    path("disputes/<str:pk>", DisputeView.as_view({"get": "retrieve"}), name="dispute"),
    path(
        "disputes/<str:pk>/evidence", DisputeView.as_view({"post": "add_evidence"}), name="dispute-evidence"
    ),
    path(
        "disputes/<str:pk>/evidence/<str:kind>",
        DisputeView.as_view({"delete": "remove_evidence"}),
        name="dispute-evidence-kind",
    ),
    path("disputes/<str:pk>/submit", DisputeAnswerView.as_view({"post": "submit"}), name="dispute-submit"),
    path("disputes/<str:pk>/accept", DisputeAnswerView.as_view({"post": "accept"}), name="dispute-accept"),
]
