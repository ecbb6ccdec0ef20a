"""App configuration of payments."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig


class PaymentsConfig(AppConfig):
    name = "payments"
    verbose_name = "Payments"

    def ready(self) -> None:
        import_module("payments.checks")  # registers; models must be loaded first
