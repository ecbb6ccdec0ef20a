"""Reviews over the API: which of the client's orders wait for a decision, and deciding them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import django_filters
from django.db.models import QuerySet
from django.http import HttpResponse
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_field, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fraud import services
from fraud.models import APPROVE_REASONS, REJECT_REASONS, ReasonCode, Review, ReviewState, Verdict
from payments.api.fields import ChoiceNameField, ClosedSerializer, TextField
from payments.api.replay import Answer, answer_once
from payments.api.views import StorefrontView
from payments.errors import ConflictError
from payments.idempotency import Claim
from payments.models.client import Scope

_DECIDED = "It was decided already, or its order went on: nothing was changed."


# --- what comes in ------------------------------------------------------------------------------------------


class DecisionRequest(ClosedSerializer):
    """Why it is decided so."""

    note = TextField(
        required=False,
        default="",
        allow_blank=True,
        max_length=services.MAX_NOTE_LENGTH,
        help_text="Kept with the decision. Required for `other`.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["reason_code"] == ReasonCode.OTHER and not attrs["note"].strip():
            raise serializers.ValidationError({"note": ["The reason “other” needs a note."]})
        return attrs


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "Known to the shop", request_only=True, value={"reason_code": "genuine", "note": "Called back."}
        )
    ]
)
class ApproveRequest(DecisionRequest):
    reason_code = ChoiceNameField(choices=[reason.value for reason in APPROVE_REASONS])


@extend_schema_serializer(
    examples=[OpenApiExample("A stolen card", request_only=True, value={"reason_code": "stolen_card"})]
)
class RejectRequest(DecisionRequest):
    reason_code = ChoiceNameField(choices=[reason.value for reason in REJECT_REASONS])


# --- what goes out ------------------------------------------------------------------------------------------


class ReviewCaseProjection(ClosedSerializer):
    """An order that waits, or waited, for a decision. Nothing says who the analysts are."""

    id = serializers.CharField()
    order = serializers.CharField(source="order_id")
    payment = serializers.CharField(source="payment_id")
    assessment = serializers.CharField(
        source="assessment_id", allow_null=True, help_text="The screening that asked for it."
    )
    state = serializers.ChoiceField(choices=ReviewState.choices)
    score = serializers.IntegerField()
    amount = serializers.IntegerField(help_text="Minor units.")
    currency = serializers.CharField(source="order.currency")
    reason_code = serializers.CharField(allow_blank=True, help_text="Of the decision.")
    note = serializers.SerializerMethodField(help_text="Of a decision that was made over the API.")
    decided_by_api = serializers.SerializerMethodField()
    expires_at = serializers.DateTimeField(help_text="Rejected by policy if nobody decided until then.")
    decided_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()

    def get_note(self, review: Review) -> str:
        return review.note if self.get_decided_by_api(review) else ""

    def get_decided_by_api(self, review: Review) -> bool:
        return review.decided_by.startswith("api:")


class ReviewDetailProjection(ReviewCaseProjection):
    """A review with its reasons."""

    reasons = serializers.SerializerMethodField(help_text="What the rules said, for people.")

    @extend_schema_field(serializers.ListField(child=serializers.CharField()))
    def get_reasons(self, review: Review) -> list[str]:
        verdicts = Verdict.objects.filter(assessment__order=review.order_id).exclude(outcome="")
        return [verdict.describe() for verdict in verdicts.order_by("assessment", "id")]


# --- the endpoints ------------------------------------------------------------------------------------------


class ReviewFilter(django_filters.FilterSet):  # type: ignore[misc]
    state = django_filters.ChoiceFilter(choices=ReviewState.choices)
    order = django_filters.CharFilter(field_name="order_id", max_length=32)

    class Meta:
        model = Review
        fields: list[str] = []


class ClientReviewsView(StorefrontView):
    """The reviews of the client's own orders."""

    queryset = Review.objects.select_related("order")
    serializer_class = ReviewCaseProjection

    def get_queryset(self) -> QuerySet[Review]:
        return super().get_queryset().filter(order__client=self.client)

    def find_review(self, review_id: str) -> Review:
        review: Review = self.find_or_404(self.get_queryset(), review_id, "rev")
        return review


class ReviewView(ClientReviewsView):
    filterset_class = ReviewFilter
    required_scopes = {"list": Scope.REVIEWS_READ, "retrieve": Scope.REVIEWS_READ}

    @extend_schema(summary="List reviews, newest first", responses=ReviewCaseProjection(many=True))
    def list(self, request: Request) -> Response:
        return self.list_page(self.get_queryset(), ReviewCaseProjection)

    @extend_schema(summary="Read a review with its reasons", responses=ReviewDetailProjection)
    def retrieve(self, request: Request, pk: str) -> Response:
        return Response(ReviewDetailProjection(self.find_review(pk)).data)


class ReviewDecisionView(ClientReviewsView):
    """The two decisions, each under an Idempotency-Key."""

    needs_idempotency_key = True
    required_scopes = {"approve": Scope.REVIEWS_WRITE, "reject": Scope.REVIEWS_WRITE}
    own_problems = {"approve": {"409": _DECIDED}, "reject": {"409": _DECIDED}}

    @extend_schema(
        summary="Approve a review: the order goes on",
        request=ApproveRequest,
        responses=ReviewDetailProjection,
    )
    def approve(self, request: Request, pk: str) -> HttpResponse:
        """The authorized amount is captured; the webhook of the order tells when it is."""
        return self.decide(pk, ApproveRequest, services.approve_review)

    @extend_schema(
        summary="Reject a review: the order is blocked",
        request=RejectRequest,
        responses=ReviewDetailProjection,
    )
    def reject(self, request: Request, pk: str) -> HttpResponse:
        """The authorization is voided. It cannot be taken back."""
        return self.decide(pk, RejectRequest, services.reject_review)

    def decide(
        self, review_id: str, form: type[DecisionRequest], decision: Callable[..., Review]
    ) -> HttpResponse:
        review = self.find_review(review_id)
        wish = self.read(form).validated_data

        def perform(claim: Claim) -> Answer:
            try:
                decision(review.pk, actor=self.actor, **wish)
            except ConflictError:
                if claim.is_new or not self.is_mine(review_id, wish["reason_code"]):
                    raise ConflictError(_DECIDED) from None
                # The first request died after it had decided.
            return Answer(200, dict(ReviewDetailProjection(self.find_review(review_id)).data))

        return answer_once(
            self.request,
            route=f"POST reviews/{{id}}/{self.action}",
            path={"id": review_id},
            perform=perform,
        )

    def is_mine(self, review_id: str, reason_code: str) -> bool:
        states = {"approve": ReviewState.APPROVED, "reject": ReviewState.REJECTED}
        return (
            self.get_queryset()
            .filter(
                pk=review_id,
                state=states[str(self.action)],
                decided_by=self.actor,
                reason_code=reason_code,
            )
            .exists()
        )
