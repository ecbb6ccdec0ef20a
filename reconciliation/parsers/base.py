"""The row that every settlement report is read into, and the reading of CSV that no gateway's format changes."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Protocol

from payments.money import Money

_MAX_LINE = 1 << 20  # characters; a longer line is no report


class ReportFormatError(ValueError):
    """The file as a whole cannot be read; nothing of it may be imported."""


class RowKind(StrEnum):
    """What a row of a report moves. Charge and refund have a counterpart here, the others are counted."""

    CHARGE = "charge"
    REFUND = "refund"
    DISPUTE = "dispute"
    FEE = "fee"
    PAYOUT = "payout"
    ADJUSTMENT = "adjustment"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One line of a report. Amounts are signed minor units; times are UTC.

    `amount` and `currency` are what the customer saw; `gross`, `fee` and `net` are in `settlement_currency`.
    `reference` is what all rows of one payment, or of one refund, share; `payment_reference` is the payment's in both.
    """

    line: int
    external_id: str
    kind: RowKind
    category: str
    reference: str
    amount: int
    currency: str
    gross: int
    fee: int
    net: int
    settlement_currency: str
    created_at: datetime
    available_on: date | None = None
    payout_id: str = ""
    source_id: str = ""
    payment_reference: str = ""
    description: str = ""
    our_payment_id: str = ""
    our_operation_id: str = ""


@dataclass(frozen=True, slots=True)
class BadRow:
    """One line that could not be read, and why; it is kept aside and the rest goes on."""

    line: int
    reason: str


class ReportParser(Protocol):
    def __call__(self, chunks: Iterable[bytes]) -> Iterator[ReportRow | BadRow]:
        """Read a report as it streams in. Raises `ReportFormatError` when the file itself is wrong."""


@lru_cache(maxsize=65536)  # prices and fees repeat
def to_minor(text: str, currency: str) -> int:
    """Exact minor units of a decimal in major units. Raises `ValueError`."""
    return Money.from_major(text.strip(), currency).minor


def to_utc(text: str) -> datetime:
    """A time without zone is UTC, as report columns ending in `_utc` are. Raises `ValueError`."""
    moment = datetime.fromisoformat(text.strip())
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def read_csv(
    chunks: Iterable[bytes], *, required: Iterable[str]
) -> Iterator[tuple[int, dict[str, str] | BadRow]]:
    """Line number and cells by column name, one line at a time.

    Columns may come in any order and number. Raises `ReportFormatError` when the file is not UTF-8, not separated
    by commas, lacks a required column, or is cut off in the middle of its last line.
    """
    reader = csv.reader(_iter_lines(chunks), strict=True)
    header = _read_header(reader, frozenset(required))
    width = len(header)
    cut: BadRow | None = None  # a short line is bad; when nothing follows it, the file was cut off
    try:
        for cells in reader:
            if not cells:
                continue
            if cut:
                yield cut.line, cut
                cut = None
            if len(cells) < width:
                cut = BadRow(reader.line_num, f"has {len(cells)} columns instead of {width}")
            elif len(cells) > width:
                yield reader.line_num, BadRow(reader.line_num, f"has {len(cells)} columns instead of {width}")
            elif any("\0" in cell for cell in cells):
                yield reader.line_num, BadRow(reader.line_num, "holds a NUL character")
            else:
                yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise ReportFormatError(
            f"The file is cut off or damaged at line {reader.line_num}: {error}"
        ) from error
    if cut:
        raise ReportFormatError(f"The file is cut off at line {cut.line}: it {cut.reason}")


def _read_header(reader: Iterator[list[str]], required: frozenset[str]) -> list[str]:
    try:
        header = [name.strip() for name in next(reader)]
    except StopIteration:
        raise ReportFormatError("The file is empty") from None
    except csv.Error as error:
        raise ReportFormatError(f"The header line cannot be read: {error}") from error
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise ReportFormatError("The columns are not separated by commas: export the report as plain CSV")
    missing = sorted(required - set(header))
    if missing:
        raise ReportFormatError(f"The report lacks the columns {', '.join(missing)}")
    repeated = sorted({name for name in header if name in required and header.count(name) > 1})
    if repeated:
        raise ReportFormatError(f"The report has the columns {', '.join(repeated)} more than once")
    return header


def _iter_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Text lines out of bytes that were split anywhere; memory does not grow with the file."""
    rest = ""
    for text in _decode(chunks):
        rest += text
        if "\n" in text:
            *lines, rest = rest.split("\n")
            for line in lines:
                yield line + "\n"
        if len(rest) > _MAX_LINE:
            raise ReportFormatError(
                f"The file has a line of more than {_MAX_LINE} characters: it is no CSV report"
            )
    if rest:
        yield rest


def _decode(chunks: Iterable[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    is_first = True
    try:
        for chunk in chunks:
            if is_first and chunk.startswith((b"PK\x03\x04", b"\x1f\x8b")):
                raise ReportFormatError(
                    "The file is a spreadsheet or an archive: export the report as plain CSV"
                )
            is_first = is_first and not chunk
            yield decoder.decode(chunk)
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise ReportFormatError(f"The file is not UTF-8 text ({error.reason})") from error
