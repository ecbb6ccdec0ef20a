"""The admin site of the back office."""

from __future__ import annotations

from unfold.sites import UnfoldAdminSite


class BackOfficeSite(UnfoldAdminSite):
    """The one admin site; its apps register with it as they do with Django's own."""
