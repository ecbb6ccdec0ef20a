"""The pages of rule sets."""

from __future__ import annotations

from django.contrib import admin

from fraud.models import RuleSet
from payments.admin.base import BackOfficeAdmin


@admin.register(RuleSet)
class RuleSetAdmin(BackOfficeAdmin):
    """Every version, the newest first."""

    list_display = ["number", "state", "note", "created_by", "published_by", "published_at"]
