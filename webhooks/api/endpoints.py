"""A storefront's endpoints over the API: make, change, rotate, switch, test, and catch up."""

from __future__ import annotations

import json
from collections.abc import Callable

from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpResponse
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiResponse,
    extend_schema,
    extend_schema_field,
    extend_schema_serializer,
)
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from payments import idempotency
from payments.api.fields import ClosedSerializer, EmailField, TextField, TrueOrFalseField, WholeNumberField
from payments.api.replay import Answer, answer_once
from payments.api.views import StorefrontView
from payments.idempotency import Claim
from payments.models.client import Scope
from webhooks import endpoints
from webhooks.api.deliveries import DeliveryProjection
from webhooks.api.fields import EventTypesField, PastField
from webhooks.models import Endpoint
from webhooks.tasks import outbound_bell

_DISABLED = "The endpoint is disabled: nothing was sent."


# --- what comes in ------------------------------------------------------------------------------------------


@extend_schema_serializer(
    examples=[OpenApiExample("Slower, and told by mail", request_only=True, value={"rate_per_second": 5})]
)
class EndpointChangeRequest(ClosedSerializer):
    """What is given is changed."""

    url = TextField(required=False, max_length=500, help_text="https on port 443 at a public address.")
    event_types = EventTypesField(required=False, help_text="Only these event types; empty means all.")
    description = TextField(required=False, max_length=200, allow_blank=True)
    rate_per_second = WholeNumberField(
        required=False,
        allow_null=True,
        min_value=1,
        max_value=endpoints.HIGHEST_RATE,
        help_text="At most so many deliveries a second; null means as fast as it answers.",
    )
    is_ordered = TrueOrFalseField(
        required=False, help_text="One at a time, in order: one that fails holds up the ones behind it."
    )
    notify_email = EmailField(
        required=False,
        max_length=254,
        allow_blank=True,
        help_text="Who is told when deliveries there are stopped, or go on.",
    )


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "Paid orders and refunds",
            request_only=True,
            value={
                "url": "https://shop.example/countinghouse/events",
                "event_types": ["order.paid", "refund.succeeded"],
                "description": "The shop's own",
            },
        )
    ]
)
class NewEndpointRequest(EndpointChangeRequest):
    """Where events go, and which."""

    url = TextField(max_length=500, help_text="https on port 443 at a public address.")


@extend_schema_serializer(
    examples=[OpenApiExample("Since a moment", request_only=True, value={"since": "2026-03-02T00:00:00Z"})]
)
class SinceRequest(ClosedSerializer):
    since = PastField(help_text="RFC 3339 with an offset; not in the future.")


# --- what goes out ------------------------------------------------------------------------------------------


class EndpointProjection(ClosedSerializer):
    """Where a storefront hears of its events, and how that goes."""

    id = serializers.CharField()
    url = serializers.CharField()
    event_types = serializers.ListField(child=serializers.CharField(), help_text="Empty means all.")
    description = serializers.CharField(allow_blank=True)
    rate_per_second = serializers.IntegerField(allow_null=True)
    is_ordered = serializers.BooleanField()
    notify_email = serializers.CharField(allow_blank=True)
    is_enabled = serializers.BooleanField()
    disabled_reason = serializers.CharField(allow_blank=True)
    failing_since = serializers.DateTimeField(
        allow_null=True, help_text="The first failure after the last success."
    )
    paused_until = serializers.DateTimeField(allow_null=True, help_text="Nothing is tried before.")
    probe_at = serializers.DateTimeField(
        allow_null=True, help_text="When a disabled endpoint is tried again by itself."
    )
    created_at = serializers.DateTimeField()


class EndpointSecretProjection(EndpointProjection):
    """An endpoint whose secret is new."""

    secret = serializers.SerializerMethodField(
        help_text="Shown on this answer alone; null when the answer is repeated."
    )
    previous_secret_expires_at = serializers.SerializerMethodField(
        help_text="Until then the secret before it signs too: 24 hours."
    )

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_secret(self, endpoint: Endpoint) -> None:
        """The kept answer has none; the first one is given it on the way out."""

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_previous_secret_expires_at(self, endpoint: Endpoint) -> str | None:
        ends = endpoint.secrets.valid().values_list("expires_at", flat=True)
        overlap = next((end for end in ends if end is not None), None)
        return serializers.DateTimeField().to_representation(overlap) if overlap else None


class CountProjection(ClosedSerializer):
    count = serializers.IntegerField(
        help_text="How many are on their way now. At most 10,000 at once: then ask again for the rest."
    )


# --- the endpoints ------------------------------------------------------------------------------------------


class ClientEndpointsView(StorefrontView):
    """The client's own endpoints that were not removed."""

    queryset = Endpoint.objects.listed()
    serializer_class = EndpointProjection

    def get_queryset(self) -> QuerySet[Endpoint]:
        return super().get_queryset().filter(client=self.client)

    def find_endpoint(self, endpoint_id: str) -> Endpoint:
        endpoint: Endpoint = self.find_or_404(self.get_queryset(), endpoint_id, "whe")
        return endpoint


class EndpointView(ClientEndpointsView):
    required_scopes = dict.fromkeys(
        ("retrieve", "change", "remove", "test", "enable", "disable", "recover", "replay_missing"),
        Scope.WEBHOOKS_WRITE,
    )
    own_problems = {
        "test": {
            "409": f"The endpoint is disabled, or {endpoints.MOST_TESTS} tests are on their way: nothing was sent."
        },
        "recover": {"409": _DISABLED},
        "replay_missing": {"409": _DISABLED},
        "enable": {"409": "It is enabled already: nothing was changed."},
        "disable": {"409": "It is disabled already: nothing was changed."},
        "remove": {"409": "It was removed at this moment: nothing was changed."},
    }

    @extend_schema(summary="Read a webhook endpoint", responses=EndpointProjection)
    def retrieve(self, request: Request, pk: str) -> Response:
        return self.show(pk)

    @extend_schema(
        summary="Change a webhook endpoint", request=EndpointChangeRequest, responses=EndpointProjection
    )
    def change(self, request: Request, pk: str) -> Response:
        """Messages that wait go to the new address too."""
        endpoint = self.find_endpoint(pk)
        changes = self.read(EndpointChangeRequest).validated_data
        changed = endpoints.update_endpoint(endpoint, actor=self.actor, **changes)
        return Response(EndpointProjection(changed).data)

    @extend_schema(
        summary="Remove a webhook endpoint",
        request=None,
        responses={204: OpenApiResponse(description="Nothing is sent there any more.")},
    )
    def remove(self, request: Request, pk: str) -> Response:
        """For good: what was on its way there is given up."""
        endpoints.remove_endpoint(self.find_endpoint(pk), actor=self.actor)
        return Response(status=204)

    @extend_schema(summary="Send a test message", request=None, responses={201: DeliveryProjection})
    def test(self, request: Request, pk: str) -> Response:
        """A signed `endpoint.test`; the delivery tells what became of it."""
        self.refuse_body()
        delivery = endpoints.send_test(self.find_endpoint(pk))
        outbound_bell.ring_on_commit()
        return Response(DeliveryProjection(delivery).data, status=201)

    @extend_schema(summary="Enable a webhook endpoint", request=None, responses=EndpointProjection)
    def enable(self, request: Request, pk: str) -> Response:
        """What happens from now on is sent; for what was missed, recover and replay_missing."""
        self.refuse_body()
        endpoints.enable_endpoint(self.find_endpoint(pk))
        return self.show(pk)

    @extend_schema(summary="Disable a webhook endpoint", request=None, responses=EndpointProjection)
    def disable(self, request: Request, pk: str) -> Response:
        """What is on its way there is given up, until it is recovered."""
        self.refuse_body()
        endpoints.switch_off_endpoint(self.find_endpoint(pk), actor=self.actor)
        return self.show(pk)

    @extend_schema(
        summary="Send again what failed since a moment", request=SinceRequest, responses=CountProjection
    )
    def recover(self, request: Request, pk: str) -> Response:
        """Every delivery made since then that failed or was given up. Safe to repeat."""
        endpoint, since = self.find_endpoint(pk), self.read(SinceRequest).validated_data["since"]
        return self.tell_count(endpoints.recover_failed(endpoint, since=since))

    @extend_schema(
        summary="Send what was never sent since a moment", request=SinceRequest, responses=CountProjection
    )
    def replay_missing(self, request: Request, pk: str) -> Response:
        """Every event since then, of its types, that happened before it was made or while it was disabled."""
        endpoint, since = self.find_endpoint(pk), self.read(SinceRequest).validated_data["since"]
        return self.tell_count(endpoints.replay_missing(endpoint, since=since))

    def show(self, endpoint_id: str) -> Response:
        return Response(EndpointProjection(self.find_endpoint(endpoint_id)).data)

    def tell_count(self, count: int) -> Response:
        outbound_bell.ring_on_commit()
        return Response(CountProjection({"count": count}).data)


class EndpointsView(ClientEndpointsView):
    """The list, and the two calls that answer with a secret: once. What is kept for a repetition has none."""

    needs_idempotency_key = True
    required_scopes = dict.fromkeys(("list", "create", "rotate"), Scope.WEBHOOKS_WRITE)

    @extend_schema(summary="List webhook endpoints, newest first", responses=EndpointProjection(many=True))
    def list(self, request: Request) -> Response:
        return self.list_page(self.get_queryset(), EndpointProjection)

    @extend_schema(
        summary="Make a webhook endpoint",
        request=NewEndpointRequest,
        responses={201: EndpointSecretProjection},
    )
    def create(self, request: Request) -> HttpResponse:
        """The answer has the signing secret, this once. A repetition has `secret: null`: then rotate it."""
        wishes = self.read(NewEndpointRequest).validated_data

        def make() -> tuple[Endpoint, str]:
            return endpoints.create_endpoint(self.client, **wishes)

        return self.answer("POST webhook_endpoints", 201, {}, make)

    @extend_schema(
        summary="Rotate a webhook endpoint's secret", request=None, responses=EndpointSecretProjection
    )
    def rotate(self, request: Request, pk: str) -> HttpResponse:
        """The answer has the new secret, this once. The one before it signs too for 24 hours, older ones end now."""
        self.refuse_body()
        endpoint = self.find_endpoint(pk)

        def rotate() -> tuple[Endpoint, str]:
            return endpoint, endpoints.rotate_secret(endpoint)

        return self.answer("POST webhook_endpoints/{id}/rotate", 200, {"id": pk}, rotate)

    def answer(
        self, route: str, status: int, path: dict[str, str], make: Callable[[], tuple[Endpoint, str]]
    ) -> HttpResponse:
        """One call under its key; `make` runs in the transaction that ties the key to its endpoint."""
        made = []

        def perform(claim: Claim) -> Answer:
            with transaction.atomic():
                endpoint, secret = make()
                idempotency.attach(claim, endpoint.pk)
            made.append(secret)
            return self.describe(status, endpoint.pk)

        response = answer_once(
            self.request,
            route=route,
            path=path,
            perform=perform,
            resume=lambda endpoint_id: self.describe(status, endpoint_id),
        )
        for secret in made:
            response.content = JSONRenderer().render({**json.loads(response.content), "secret": secret})
        return response

    def describe(self, status: int, endpoint_id: str) -> Answer:
        """What is kept: all but the secret."""
        return Answer(status, dict(EndpointSecretProjection(self.find_endpoint(endpoint_id)).data))
