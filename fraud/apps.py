"""App configuration of fraud."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig


class FraudConfig(AppConfig):
    name = "fraud"
    verbose_name = "Fraud"

    def ready(self) -> None:
        import_module("fraud.checks")  # registers; models must be loaded first
