"""App configuration of fraud."""

from __future__ import annotations

from django.apps import AppConfig


class FraudConfig(AppConfig):
    name = "fraud"
    verbose_name = "Fraud"
