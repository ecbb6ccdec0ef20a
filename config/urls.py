"""Addresses of the site: the admin, the API, the webhooks, health."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from config.health import show_liveness, show_readiness
from config.metrics import show_metrics
from payments.admin.runbook import show_runbook
from payments.api.errors import show_error_codes
from payments.api.urls import unknown_urlpatterns, well_known_urlpatterns

show_api_docs = SpectacularSwaggerSplitView.as_view(
    url_name="schema", template_name="api/docs.html", template_name_js="api/docs.js"
)
urlpatterns = [
    path("admin/runbook/<slug:slug>/", admin.site.admin_view(show_runbook), name="runbook"),
    path("admin/", admin.site.urls),
    path("api/v1/", include("payments.api.urls")),
    path("api/v1/", include("webhooks.api.urls")),
    path("api/v1/", include("fraud.api.urls")),
    path("api/v1/", include(unknown_urlpatterns)),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", show_api_docs, name="docs"),
    path("api/docs/errors", show_error_codes, name="error-codes"),
    path(".well-known/", include(well_known_urlpatterns)),
    path("webhooks/", include("webhooks.urls")),
    path("healthz", show_liveness, name="healthz"),
    path("readyz", show_readiness, name="readyz"),
    path("metrics", show_metrics, name="metrics"),
]
