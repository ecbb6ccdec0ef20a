"""App configuration of webhooks."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig


class WebhooksConfig(AppConfig):
    name = "webhooks"
    verbose_name = "Webhooks"

    def ready(self) -> None:
        import_module("webhooks.checks")  # registers; models must be loaded first
