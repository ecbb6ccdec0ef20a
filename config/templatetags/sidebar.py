"""What the sidebar calls a page, for the header above it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import template

from config import navigation

register = template.Library()


@register.filter
def sidebar_name(part: Mapping[str, Any]) -> str:
    """The name of one part of the header's path: the sidebar's, or else its own."""
    return navigation.name_page(str(part.get("link") or "")) or str(part["title"])
