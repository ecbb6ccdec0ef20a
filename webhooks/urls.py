"""The addresses that gateways deliver to, below /webhooks/."""

from __future__ import annotations

from django.urls import path

from webhooks.views import receive_webhook

app_name = "webhooks"
urlpatterns = [path("<slug:gateway>/<slug:account>/", receive_webhook, name="receive")]
