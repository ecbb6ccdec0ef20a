"""The tolerances: a plain list of currencies and minor units."""

from __future__ import annotations

from django.contrib import admin
from unfold.admin import ModelAdmin

from reconciliation.models import Tolerance


@admin.register(Tolerance)
class ToleranceAdmin(ModelAdmin):  # type: ignore[misc]
    list_display = ("currency", "minor_units")
