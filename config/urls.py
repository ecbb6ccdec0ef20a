"""Addresses of the site: the admin, the API, the webhooks, health."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from config.health import show_liveness, show_readiness
from config.metrics import show_metrics
from payments.api.errors import show_error_codes
from payments.api.urls import unknown_urlpatterns

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/v1/", include("payments.api.urls")),
    path("api/v1/", include(unknown_urlpatterns)),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="docs"),
    path("api/docs/errors", show_error_codes, name="error-codes"),
    path("webhooks/", include("webhooks.urls")),
    path("healthz", show_liveness, name="healthz"),
    path("readyz", show_readiness, name="readyz"),
    path("metrics", show_metrics, name="metrics"),
]
