"""What was sent to an endpoint, every try and its answer, and how to send it again."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from payments.api.fields import ClosedSerializer
from payments.api.views import StorefrontView
from payments.events import CATALOGUE
from payments.models.client import Scope
from webhooks import endpoints, outbound
from webhooks.models import Delivery, DeliveryAttempt, DeliveryState, Endpoint
from webhooks.tasks import outbound_bell

_EVENTLESS = {"endpoint.test": False, "endpoint.probe": True}  # whether it is a probe
TRIES_SHOWN = 50


# --- what goes out ------------------------------------------------------------------------------------------


class DeliveryProjection(ClosedSerializer):
    """One event on its way to one endpoint."""

    id = serializers.CharField()
    endpoint = serializers.CharField(source="endpoint_id")
    event = serializers.CharField(
        source="event_id", allow_null=True, help_text="Null for a test, and for a probe."
    )
    type = serializers.CharField(source="event_type")
    order = serializers.CharField(source="event.order_id", allow_null=True, default=None)
    message_id = serializers.CharField(help_text="The `webhook-id` of every try.")
    state = serializers.ChoiceField(choices=DeliveryState.choices)
    attempts = serializers.IntegerField(help_text="Tries since it was made or last resent.")
    next_try_at = serializers.DateTimeField(allow_null=True, help_text="While it is pending.")
    last_status = serializers.IntegerField(allow_null=True)
    last_error = serializers.CharField(allow_blank=True)
    created_at = serializers.DateTimeField()
    delivered_at = serializers.DateTimeField(allow_null=True)

    def to_representation(self, delivery: Delivery) -> dict[str, Any]:
        """What has ended has no next try, whatever its row keeps."""
        shown: dict[str, Any] = super().to_representation(delivery)
        if delivery.state != DeliveryState.PENDING:
            shown["next_try_at"] = None
        return shown


class TryProjection(ClosedSerializer):
    """One POST and its answer."""

    started_at = serializers.DateTimeField()
    duration_ms = serializers.IntegerField()
    headers = serializers.DictField(child=serializers.CharField(), help_text="As they were sent.")
    status = serializers.IntegerField(allow_null=True, help_text="Null when no answer came.")
    answer = serializers.CharField(allow_blank=True, help_text="Its first 8 KiB, without card data.")
    error = serializers.CharField(allow_blank=True)


class DeliveryDetailProjection(DeliveryProjection):
    """A delivery with its body and its tries, newest first."""

    body = serializers.SerializerMethodField(help_text="The same on every try, byte for byte.")
    tries = serializers.SerializerMethodField()

    def get_body(self, delivery: Delivery) -> str:
        return outbound.make_body(delivery).decode()

    @extend_schema_field(TryProjection(many=True))
    def get_tries(self, delivery: Delivery) -> Any:
        tries: list[DeliveryAttempt] = list(delivery.tries.all()[:TRIES_SHOWN])
        return TryProjection(tries, many=True).data


# --- the endpoints ------------------------------------------------------------------------------------------


class DeliveryFilter(django_filters.FilterSet):  # type: ignore[misc]
    state = django_filters.ChoiceFilter(choices=DeliveryState.choices)
    type = django_filters.ChoiceFilter(choices=[(name, name) for name in CATALOGUE], method="keep_type")
    since = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="gte")

    class Meta:
        model = Delivery
        fields: list[str] = []

    def keep_type(self, queryset: QuerySet[Delivery], name: str, value: str) -> QuerySet[Delivery]:
        if value in _EVENTLESS:
            return queryset.filter(event__isnull=True, is_probe=_EVENTLESS[value])
        return queryset.filter(event__type=value)


class DeliveryView(StorefrontView):
    """The deliveries of one endpoint of the client."""

    queryset = Delivery.objects.select_related("event")
    serializer_class = DeliveryProjection
    filterset_class = DeliveryFilter
    list_actions = ("deliveries",)
    required_scopes = dict.fromkeys(("deliveries", "delivery", "resend"), Scope.WEBHOOKS_WRITE)
    own_problems = {"resend": {"409": "The endpoint is disabled: nothing was sent."}}

    def find_deliveries(self, endpoint_id: str) -> QuerySet[Delivery]:
        mine = Endpoint.objects.listed().filter(client=self.client)
        return self.get_queryset().filter(endpoint=self.find_or_404(mine, endpoint_id, "whe"))

    def find_delivery(self, endpoint_id: str, delivery_id: str) -> Delivery:
        found: Delivery = self.find_or_404(self.find_deliveries(endpoint_id), delivery_id, "dlv")
        return found

    @extend_schema(
        summary="List an endpoint's deliveries, newest first", responses=DeliveryProjection(many=True)
    )
    def deliveries(self, request: Request, pk: str) -> Response:
        return self.list_page(self.find_deliveries(pk), DeliveryProjection)

    @extend_schema(summary="Read a delivery with its tries", responses=DeliveryDetailProjection)
    def delivery(self, request: Request, pk: str, delivery_id: str) -> Response:
        return Response(DeliveryDetailProjection(self.find_delivery(pk, delivery_id)).data)

    @extend_schema(summary="Send a delivery again", request=None, responses=DeliveryProjection)
    def resend(self, request: Request, pk: str, delivery_id: str) -> Response:
        """The same message with the same `webhook-id`, with all its tries; whatever its state was."""
        self.refuse_body()
        endpoints.resend_delivery(self.find_delivery(pk, delivery_id))
        outbound_bell.ring_on_commit()
        return Response(DeliveryProjection(self.find_delivery(pk, delivery_id)).data)
