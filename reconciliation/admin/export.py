"""Discrepancies as CSV: exactly what is filtered, streamed, and safe to open in a spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from django.db.models import QuerySet

from reconciliation.models import Discrepancy

COLUMNS = (
    "id",
    "account",
    "kind",
    "key",
    "order",
    "state",
    "amount_minor",
    "currency",
    "differs",
    "first_seen",
    "last_seen",
    "assigned_to",
    "reason",
    "note",
    "resolved_by",
)


class _Echo:
    """A file for csv.writer that gives each line back instead of keeping it."""

    def write(self, value: str) -> str:
        return value


def iter_csv(queryset: QuerySet[Discrepancy]) -> Iterator[str]:
    """Lines of CSV; memory does not grow with their number."""
    writer = csv.writer(_Echo())
    yield writer.writerow(COLUMNS)
    for item in queryset.select_related("account", "order", "assigned_to").iterator(chunk_size=1000):
        values = (
            item.pk,
            item.account,
            item.kind,
            item.key,
            item.order.reference if item.order else "",
            item.state,
            item.amount,
            item.currency,
            " ".join(item.fields),
            item.first_seen.isoformat(),
            item.last_seen.isoformat(),
            item.assigned_to.get_username() if item.assigned_to else "",
            item.reason,
            item.note,
            item.resolved_by,
        )
        yield writer.writerow([escape_formula(value) for value in values])


def escape_formula(value: object) -> str:
    """A cell that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    text = str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
