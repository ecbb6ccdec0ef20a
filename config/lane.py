"""The addresses of the webhook lane, without their prefix: see WebhookLaneMiddleware."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [path("", include("webhooks.urls"))]
