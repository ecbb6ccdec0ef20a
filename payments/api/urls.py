"""Addresses below /api/v1/, without a slash at the end."""

from __future__ import annotations

from django.urls import path, re_path

from payments.api import customers, disputes
from payments.api.oauth import TokenView, show_key_set, show_metadata
from payments.api.views import EventView, OrderView, PaymentView, RefundView, UnknownAddressView

_ANY = ("get", "post", "put", "patch", "delete", "head", "options")

app_name = "api"
urlpatterns = [
    path("orders", OrderView.as_view({"get": "list", "post": "create"}), name="orders"),
    path("orders/<str:pk>", OrderView.as_view({"get": "retrieve"}), name="order"),
    path("orders/<str:pk>/confirm", OrderView.as_view({"post": "confirm"}), name="order-confirm"),
    path("orders/<str:pk>/capture", OrderView.as_view({"post": "capture"}), name="order-capture"),
    path("orders/<str:pk>/cancel", OrderView.as_view({"post": "cancel"}), name="order-cancel"),
    path("orders/<str:pk>/refunds", OrderView.as_view({"post": "refunds"}), name="order-refunds"),
    path("refunds/<str:pk>", RefundView.as_view({"get": "retrieve"}), name="refund"),
    path("payments/<str:pk>", PaymentView.as_view({"get": "retrieve"}), name="payment"),
    path("oauth/token", TokenView.as_view(), name="token"),
    path("events", EventView.as_view({"get": "list"}), name="events"),
    *customers.urlpatterns,
    *disputes.urlpatterns,
]
# Goes last, after what the other apps add: the empty expression matches whatever is left.
unknown_urlpatterns = [re_path("", UnknownAddressView.as_view(dict.fromkeys(_ANY, "answer")), name="unknown")]
# At the root of the site, where RFC 8414 and its readers look.
well_known_urlpatterns = [
    path("jwks.json", show_key_set, name="key-set"),
    path("oauth-authorization-server", show_metadata, name="oauth-metadata"),
]
