"""The catalogue of events over the API."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from payments.api.fields import ClosedSerializer, OpenObjectField
from payments.api.views import StorefrontView
from payments.events import CATALOGUE
from payments.models import Event
from payments.models.client import Scope


class EventTypeProjection(ClosedSerializer):
    """One kind of event: what it means, and how its message looks."""

    name = serializers.CharField()
    description = serializers.CharField()
    is_subscribable = serializers.BooleanField(
        help_text="An endpoint may ask for it; the others come whatever it asks for."
    )
    schema = OpenObjectField(help_text="JSON Schema (2020-12) of the whole message.")
    example = OpenObjectField()


@extend_schema_serializer(many=False)
class EventTypeListProjection(ClosedSerializer):
    """All of them at once."""

    results = EventTypeProjection(many=True)


class EventTypeView(StorefrontView):
    queryset = Event.objects.none()
    serializer_class = EventTypeProjection
    pagination_class = None
    required_scopes = {"list": Scope.EVENTS_READ, "retrieve": Scope.EVENTS_READ}
    list_actions = ()

    @extend_schema(summary="List the kinds of events", responses=EventTypeListProjection)
    def list(self, request: Request) -> Response:
        return Response(EventTypeListProjection({"results": list(CATALOGUE.values())}).data)

    @extend_schema(summary="Read one kind of event", responses=EventTypeProjection)
    def retrieve(self, request: Request, name: str) -> Response:
        if name not in CATALOGUE:
            raise NotFound("There is no such object.")
        return Response(EventTypeProjection(CATALOGUE[name]).data)
