"""CSV for people with spreadsheets: streamed, exact, and never executed."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

from django.http import StreamingHttpResponse

from payments.money import exponent

Cell = str | int | Decimal | None


class _Echo:
    """A file for csv.writer that gives each line back instead of keeping it."""

    def write(self, value: str) -> str:
        return value


def stream_csv(
    filename: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]
) -> StreamingHttpResponse:
    """A download whose memory does not grow with its rows. Text cells are escaped, numbers stay numbers."""
    response = StreamingHttpResponse(_iter_lines(columns, rows), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{filename}"'
    return response


def _iter_lines(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Iterator[str]:
    writer = csv.writer(_Echo())
    yield writer.writerow(columns)
    for row in rows:
        yield writer.writerow([escape_formula(cell) if isinstance(cell, str) else cell for cell in row])


def escape_formula(text: str) -> str:
    """A cell that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def to_major(minor: int, currency: str) -> Decimal | None:
    """Major units with the currency's digits; None for a currency that we do not know."""
    try:
        return Decimal(f"{minor}E-{exponent(currency)}")
    except ValueError:
        return None
