"""What turned out to be fraud, over the API: a storefront says it of its own orders, and reads what was said."""

from __future__ import annotations

import django_filters
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpResponse
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fraud.labels import MAX_REASON_LENGTH, record_label
from fraud.models import Label, LabelSource
from payments import idempotency
from payments.api.fields import ClosedSerializer, TextField, TrueOrFalseField
from payments.api.replay import Answer, answer_once
from payments.api.views import StorefrontView
from payments.idempotency import Claim
from payments.models import Order
from payments.models.client import Scope
from payments.redaction import redact


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "The customer reported it",
            request_only=True,
            value={
                "order": "$ORDER",
                "is_fraud": True,
                "reason": "Reported by phone",
            },
        )
    ]
)
class LabelRequest(ClosedSerializer):
    """What is known of an order now; what was said before stays as history."""

    order = TextField(max_length=32)
    is_fraud = TrueOrFalseField()
    reason = TextField(max_length=MAX_REASON_LENGTH)


class LabelProjection(ClosedSerializer):
    """One word about one order. Nothing says who spoke."""

    order = serializers.CharField(source="order_id")
    is_fraud = serializers.BooleanField()
    source = serializers.ChoiceField(choices=LabelSource.choices)  # type: ignore[assignment]
    reason = serializers.SerializerMethodField(help_text="Of a label that came over the API.")
    at = serializers.DateTimeField(help_text="When it became known.")

    def get_reason(self, label: Label) -> str:
        return label.reason if label.source == LabelSource.API else ""


class LabelFilter(django_filters.FilterSet):  # type: ignore[misc]
    order = django_filters.CharFilter(field_name="order_id", max_length=32)
    source = django_filters.ChoiceFilter(choices=LabelSource.choices)

    class Meta:
        model = Label
        fields: list[str] = []


class LabelView(StorefrontView):
    """The labels of the client's own orders."""

    queryset = Label.objects.all()
    serializer_class = LabelProjection
    filterset_class = LabelFilter
    needs_idempotency_key = True
    required_scopes = {"list": Scope.REVIEWS_READ, "create": Scope.LABELS_WRITE}
    own_problems = {"create": {"404": "There is no such order, or it is another client's."}}

    def get_queryset(self) -> QuerySet[Label]:
        return super().get_queryset().filter(order__client=self.client)

    @extend_schema(
        summary="List what is known to be fraud, newest first", responses=LabelProjection(many=True)
    )
    def list(self, request: Request) -> Response:
        return self.list_page(self.get_queryset(), LabelProjection)

    @extend_schema(
        summary="Say whether an order was fraud", request=LabelRequest, responses={200: LabelProjection}
    )
    def create(self, request: Request) -> HttpResponse:
        """Rules are measured by it. A dispute, or a warning of the card's issuer, counts more than this."""
        wish = self.read(LabelRequest).validated_data
        order: Order = self.find_or_404(Order.objects.filter(client=self.client), wish["order"], "ord")

        def perform(claim: Claim) -> Answer:
            with transaction.atomic():
                label = record_label(
                    order,
                    is_fraud=wish["is_fraud"],
                    source=LabelSource.API,
                    reason=redact(wish["reason"]),
                    actor=self.actor,
                )
                idempotency.attach(claim, str(label.pk))
            return self.describe(str(label.pk))

        return answer_once(request, route="POST labels", path={}, perform=perform, resume=self.describe)

    def describe(self, label_id: str) -> Answer:
        return Answer(200, dict(LabelProjection(self.get_queryset().get(pk=label_id)).data))
