"""Addresses below /api/v1/, beside those of payments."""

from __future__ import annotations

from django.urls import path

from webhooks.api.deliveries import DeliveryView
from webhooks.api.endpoints import EndpointsView, EndpointView
from webhooks.api.event_types import EventTypeView

_ONE = "webhook_endpoints/<str:pk>"
_DELIVERY = f"{_ONE}/deliveries/<str:delivery_id>"

app_name = "webhooks_api"
urlpatterns = [
    path("webhook_endpoints", EndpointsView.as_view({"get": "list", "post": "create"}), name="endpoints"),
    path(
        _ONE,
        EndpointView.as_view({"get": "retrieve", "patch": "change", "delete": "remove"}),
        name="endpoint",
    ),
    path(f"{_ONE}/test", EndpointView.as_view({"post": "test"}), name="test"),
    path(f"{_ONE}/enable", EndpointView.as_view({"post": "enable"}), name="enable"),
    path(f"{_ONE}/disable", EndpointView.as_view({"post": "disable"}), name="disable"),
    path(f"{_ONE}/recover", EndpointView.as_view({"post": "recover"}), name="recover"),
    path(f"{_ONE}/replay_missing", EndpointView.as_view({"post": "replay_missing"}), name="replay-missing"),
    path(f"{_ONE}/rotate", EndpointsView.as_view({"post": "rotate"}), name="rotate"),
    path(f"{_ONE}/deliveries", DeliveryView.as_view({"get": "deliveries"}), name="deliveries"),
    path(_DELIVERY, DeliveryView.as_view({"get": "delivery"}), name="delivery"),
    path(f"{_DELIVERY}/resend", DeliveryView.as_view({"post": "resend"}), name="resend"),
    path("event_types", EventTypeView.as_view({"get": "list"}), name="event-types"),
    path("event_types/<str:name>", EventTypeView.as_view({"get": "retrieve"}), name="event-type"),
]
