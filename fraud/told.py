"""Reads what a shop told of an order: free JSON, in which anything may be missing or of another type."""

from __future__ import annotations

from collections.abc import Mapping


def text_of(data: Mapping[str, object], name: str) -> str:
    """The text of this name without blanks around it; empty for what is no text."""
    value = data.get(name)
    return value.strip() if isinstance(value, str) else ""
