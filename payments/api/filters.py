"""By what lists can be narrowed: named fields only, and an unknown name is an error."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import django_filters
from django import forms
from django.db.models import QuerySet
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework.exceptions import ErrorDetail
from rest_framework.request import Request

from payments import ids
from payments.api.errors import ParameterError
from payments.api.parsers import CardDataError
from payments.kinds import DisputeStage, DisputeState
from payments.models import Dispute, Event, Order, OrderState, PaymentState
from payments.money import MAX_MINOR_UNITS
from payments.redaction import contains_card_data

_PAGING = ("cursor", "page_size")


def refuse_unknown_parameters(request: Request, known: Iterable[str]) -> None:
    """A misspelt parameter must not answer with everything. Raises `ParameterError`, `CardDataError`."""
    for name, values in request.query_params.lists():
        if contains_card_data([name, *values]) is not None:
            raise CardDataError("the query", locator="parameter")
    unknown = sorted(set(request.query_params) - set(known))
    if unknown:
        message = ErrorDetail("There is no such parameter.", code="unknown_parameter")
        raise ParameterError({name[:100]: [message] for name in unknown})


class StrictFilterBackend(DjangoFilterBackend):  # type: ignore[misc]
    """Refuses a query parameter that nothing reads; a view names its own beside the filters in `own_parameters`."""

    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: Any) -> QuerySet[Any]:
        filter_class = self.get_filterset_class(view, queryset)
        filters = filter_class.base_filters if filter_class else ()
        refuse_unknown_parameters(request, {*_PAGING, *filters, *view.own_parameters})
        given = {name: request.query_params.getlist(name) for name in filters}
        wrong = [name for name, values in given.items() if len(values) > 1 or "" in values]
        if wrong:
            message = ErrorDetail("Give it once, with a value.", code="invalid")
            raise ParameterError({name: [message] for name in wrong})
        filtered: QuerySet[Any] = super().filter_queryset(request, queryset, view)
        return filtered


class IntegerFilter(django_filters.NumberFilter):  # type: ignore[misc]
    """Minor units."""

    field_class = forms.IntegerField

    def get_max_validator(self) -> None:
        return None  # the field has its own


class OrderFilter(django_filters.FilterSet):  # type: ignore[misc]
    state = django_filters.ChoiceFilter(choices=OrderState.choices)
    payment_state = django_filters.ChoiceFilter(field_name="payment__state", choices=PaymentState.choices)
    reference = django_filters.CharFilter(max_length=100)
    customer = django_filters.CharFilter(field_name="customer_id", max_length=100)
    customer_email = django_filters.CharFilter(max_length=254)
    currency = django_filters.CharFilter(max_length=3)
    amount = IntegerFilter(min_value=0, max_value=MAX_MINOR_UNITS)
    amount_min = IntegerFilter(field_name="amount", lookup_expr="gte", min_value=0, max_value=MAX_MINOR_UNITS)
    amount_max = IntegerFilter(field_name="amount", lookup_expr="lte", min_value=0, max_value=MAX_MINOR_UNITS)
    created_after = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="gte")
    created_before = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="lt")
    updated_after = django_filters.IsoDateTimeFilter(field_name="updated_at", lookup_expr="gte")
    updated_before = django_filters.IsoDateTimeFilter(field_name="updated_at", lookup_expr="lt")

    class Meta:
        model = Order
        fields: list[str] = []


class EventFilter(django_filters.FilterSet):  # type: ignore[misc]
    """`sort=oldest` shows only what is settled, so that whoever goes on from its last event misses none."""

    type = django_filters.CharFilter(max_length=50)
    order = django_filters.CharFilter(field_name="order_id", max_length=32)
    created_after = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="gte")
    created_before = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="lt")
    sort = django_filters.ChoiceFilter(
        method="keep_settled",
        choices=[("newest", "newest"), ("oldest", "oldest")],
        help_text="`oldest` is for going on from the last event that you have seen: it shows an event only when "
        "none can come before it any more, about a minute after it happened.",
    )
    after = django_filters.CharFilter(
        method="start_after",
        max_length=32,
        help_text="The id of the last event that you have seen; with `sort=oldest`.",
    )

    class Meta:
        model = Event
        fields: list[str] = []

    def keep_settled(self, queryset: QuerySet[Event], name: str, value: str) -> QuerySet[Event]:
        if value != "oldest":
            return queryset
        return queryset.filter(id__lt=Event.objects.read_horizon())

    def start_after(self, queryset: QuerySet[Event], name: str, value: str) -> QuerySet[Event]:
        if self.data.get("sort") != "oldest" or not ids.is_id(value, "evt"):
            message = "The id of an event, together with sort=oldest."
            raise ParameterError({"after": [ErrorDetail(message, code="invalid")]})
        return queryset.filter(id__gt=value)


class DisputeFilter(django_filters.FilterSet):  # type: ignore[misc]
    state = django_filters.ChoiceFilter(choices=[(state.value, state.value) for state in DisputeState])
    stage = django_filters.ChoiceFilter(choices=[(stage.value, stage.value) for stage in DisputeStage])
    order = django_filters.CharFilter(field_name="payment__order_id", max_length=32)
    due_before = django_filters.IsoDateTimeFilter(
        field_name="due_by", lookup_expr="lt", help_text="With a deadline before this moment."
    )

    class Meta:
        model = Dispute
        fields: list[str] = []
