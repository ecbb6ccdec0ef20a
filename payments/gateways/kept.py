"""What is kept of a gateway's answer: what an operator may need, and nothing of the customer's beyond it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from payments.redaction import redact_data

_EMPTY: tuple[object, ...] = (None, "", [])


def keep(doc: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """The fields with these names, at any depth, and all metadata: no empty field, no card data."""
    kept: dict[str, Any] = redact_data(_keep(doc, names))
    return kept


def _keep(doc: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in doc.items():
        if name == "metadata" or name.startswith("metadata."):
            kept[name] = value
        elif name in names and value not in _EMPTY:
            kept[name] = _keep_value(value, names)
    return kept


def _keep_value(value: Any, names: frozenset[str]) -> Any:
    if isinstance(value, Mapping):
        return _keep(value, names)
    return [_keep_value(item, names) for item in value] if isinstance(value, list | tuple) else value
