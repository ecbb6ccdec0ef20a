"""Screenings over the API: what the rules decided of the client's orders, and what each rule said."""

from __future__ import annotations

import django_filters
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fraud.decision import Status
from fraud.models import Assessment
from fraud.models.choices import choices_of
from payments.api.fields import ClosedSerializer
from payments.api.views import StorefrontView
from payments.decisions import Decision, Stage
from payments.models.client import Scope


class VerdictProjection(ClosedSerializer):
    """What one rule said, with what it saw; personal values are masked."""

    rule = serializers.CharField(source="rule_name")
    status = serializers.ChoiceField(choices=choices_of(Status))
    outcome = serializers.CharField(allow_blank=True, help_text="Blank: without effect.")
    value = serializers.CharField(allow_blank=True)
    threshold = serializers.CharField(allow_blank=True)
    points = serializers.IntegerField()


class AssessmentProjection(ClosedSerializer):
    """One screening of one order."""

    id = serializers.CharField()
    order = serializers.CharField(source="order_id")
    stage = serializers.ChoiceField(
        choices=[stage.value for stage in Stage], help_text="Before or after the authorization."
    )
    decision = serializers.ChoiceField(choices=choices_of(Decision))
    score = serializers.IntegerField()
    created_at = serializers.DateTimeField()


class AssessmentDetailProjection(AssessmentProjection):
    """A screening with what every rule said."""

    verdicts = VerdictProjection(many=True)


class AssessmentFilter(django_filters.FilterSet):  # type: ignore[misc]
    order = django_filters.CharFilter(field_name="order_id", max_length=32)
    decision = django_filters.ChoiceFilter(choices=choices_of(Decision))
    stage = django_filters.ChoiceFilter(choices=choices_of(Stage))

    class Meta:
        model = Assessment
        fields: list[str] = []


class AssessmentView(StorefrontView):
    queryset = Assessment.objects.all()
    serializer_class = AssessmentProjection
    filterset_class = AssessmentFilter
    required_scopes = {"list": Scope.REVIEWS_READ, "retrieve": Scope.REVIEWS_READ}

    def get_queryset(self) -> QuerySet[Assessment]:
        return super().get_queryset().filter(order__client=self.client)

    @extend_schema(summary="List screenings, newest first", responses=AssessmentProjection(many=True))
    def list(self, request: Request) -> Response:
        return self.list_page(self.get_queryset(), AssessmentProjection)

    @extend_schema(summary="Read a screening with its verdicts", responses=AssessmentDetailProjection)
    def retrieve(self, request: Request, pk: str) -> Response:
        found = self.find_or_404(self.get_queryset().prefetch_related("verdicts"), pk, "asm")
        return Response(AssessmentDetailProjection(found).data)
