"""By what lists can be narrowed: named fields only, and an unknown name is an error."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import QuerySet
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.request import Request

from payments.models import Event, Order, OrderState

_PAGING = ("cursor", "page_size")


class StrictFilterBackend(DjangoFilterBackend):  # type: ignore[misc]
    """Refuses a query parameter that nothing reads: a misspelt filter must not answer with everything."""

    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: Any) -> QuerySet[Any]:
        filter_class = self.get_filterset_class(view, queryset)
        known = {*_PAGING, *(filter_class.base_filters if filter_class else ())}
        unknown = sorted(set(request.query_params) - known)
        if unknown:
            message = ErrorDetail("There is no such parameter.", code="unknown_parameter")
            raise ValidationError({name: [message] for name in unknown})
        filtered: QuerySet[Any] = super().filter_queryset(request, queryset, view)
        return filtered


class OrderFilter(django_filters.FilterSet):  # type: ignore[misc]
    state = django_filters.ChoiceFilter(choices=OrderState.choices)
    reference = django_filters.CharFilter(max_length=100)
    customer_email = django_filters.CharFilter(max_length=254)
    created_after = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="gte")
    created_before = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="lt")

    class Meta:
        model = Order
        fields: list[str] = []


class EventFilter(django_filters.FilterSet):  # type: ignore[misc]
    type = django_filters.CharFilter(max_length=50)
    order = django_filters.CharFilter(field_name="order_id", max_length=32)
    created_after = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="gte")
    created_before = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="lt")

    class Meta:
        model = Event
        fields: list[str] = []
