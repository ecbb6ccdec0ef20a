"""Reads a CSV file of list entries line by line: what each line says, or the column and the cause that make it bad."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import IO

from fraud.lists.entries import MAX_REASON_LENGTH, clean_reason
from fraud.lists.values import read_value
from fraud.models import ListEntry
from payments.errors import InvalidRequestError

MAX_BYTES = 200 * 1024 * 1024
MAX_LINES = 2_000_000
COLUMNS = ("list", "kind", "value", "reason", "expires_at")
_LISTS, _KINDS = (
    tuple(ListEntry.List.values),
    tuple(ListEntry.Kind.values),
)  # looked at once, not for every line
_NOTHING = "Nothing was imported."
_SAVE_AS = "Save it as CSV (UTF-8)"
# How files begin that people take for a CSV file.
_SIGNATURES: dict[bytes, str] = {
    b"PK\x03\x04": f"This is an Excel workbook or a ZIP archive, not a CSV file. {_SAVE_AS}, or unpack it",
    b"\xd0\xcf\x11\xe0": f"This is an old Excel workbook, not a CSV file. {_SAVE_AS}",
    b"\x89PNG": "This is a picture, not a CSV file",
    b"\xff\xd8\xff": "This is a picture, not a CSV file",
    b"GIF8": "This is a picture, not a CSV file",
    b"%PDF": "This is a PDF document, not a CSV file",
    b"\x1f\x8b": "This file is compressed; unpack it",
    b"\xff\xfe": f"This file is UTF-16, not UTF-8. {_SAVE_AS}",
    b"\xfe\xff": f"This file is UTF-16, not UTF-8. {_SAVE_AS}",
}


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for lines that do not say it themselves; an empty list or kind must then be in the file."""

    list: str = ""
    kind: str = ""
    reason: str = ""
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class GoodLine:
    """One value as a list would keep it."""

    line: int
    list: str
    kind: str
    value_hash: str
    value_masked: str
    reason: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot be used. The cause never repeats what stands there: it may be a card number."""

    line: int
    column: str
    cause: str


class _ColumnError(Exception):
    def __init__(self, column: str, cause: str) -> None:
        super().__init__(cause)
        self.column = column
        self.cause = cause


def read_lines(file: IO[bytes], defaults: Defaults, *, now: datetime) -> Iterator[GoodLine | BadLine]:
    """Every line in turn; memory does not grow with their number.

    Comma, semicolon or tab; UTF-8 with or without a byte order mark. Raises `InvalidRequestError` when the file as
    a whole cannot be read; whoever reads must then forget the lines before.
    """
    _check_beginning(file)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        yield from _read_rows(text, defaults, now)
    except UnicodeDecodeError:
        raise InvalidRequestError(f"The file is not UTF-8. {_SAVE_AS}. {_NOTHING}") from None
    finally:
        text.detach()  # the file belongs to who opened it


def _check_beginning(file: IO[bytes]) -> None:
    file.seek(0)
    head = file.read(4096)
    file.seek(0)
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise InvalidRequestError(f"The file is empty. {_NOTHING}")
    for signature, why in _SIGNATURES.items():
        if head.startswith(signature):
            raise InvalidRequestError(f"{why}. {_NOTHING}")
    if b"\0" in head:
        raise InvalidRequestError(f"This is not a text file. {_SAVE_AS}. {_NOTHING}")


def _read_rows(text: io.TextIOWrapper, defaults: Defaults, now: datetime) -> Iterator[GoodLine | BadLine]:
    first = text.readline(8192)
    text.seek(0)
    rows = csv.reader(text, delimiter=_find_delimiter(first))
    columns: list[str] | None = None
    read = _LineReader(defaults, now)
    try:
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            if columns is None:
                columns = _read_header(row, defaults)
                if columns is not None:
                    continue
                columns = ["value"]
            yield read.read(rows.line_num, columns, row)
    except csv.Error as error:
        raise InvalidRequestError(f"Line {rows.line_num} cannot be read: {error}. {_NOTHING}") from None


def _find_delimiter(line: str) -> str:
    return max((",", ";", "\t"), key=line.count)


def _read_header(row: list[str], defaults: Defaults) -> list[str] | None:
    """The names of the columns; None when the file has none, as a bare column of values may.

    Raises `InvalidRequestError` for a name that we do not know, or when something is named nowhere.
    """
    names = [cell.strip().casefold() for cell in row]
    if "value" not in names:
        if len([name for name in names if name]) == 1 and defaults.list and defaults.kind and defaults.reason:
            return None
        raise InvalidRequestError(
            f"The first line must name the columns ({', '.join(COLUMNS)}), of which value is needed. A file of "
            f"values alone needs list, kind and reason to be chosen beside it. {_NOTHING}"
        )
    if unknown := [name for name in names if name not in COLUMNS]:
        shown = ", ".join(repr(name[:20]) for name in unknown[:3])
        raise InvalidRequestError(
            f"The columns are {', '.join(COLUMNS)}; there is no column {shown}. {_NOTHING}"
        )
    if len(set(names)) < len(names):
        raise InvalidRequestError(f"A column is named twice. {_NOTHING}")
    missing = [
        name for name in ("list", "kind", "reason") if name not in names and not getattr(defaults, name)
    ]
    if missing:
        raise InvalidRequestError(
            f"Neither the file nor the page says {' and '.join(missing)}; add a column or choose one. {_NOTHING}"
        )
    return names


class _LineReader:
    """Reads one row after the other; what repeats from line to line is looked at once."""

    def __init__(self, defaults: Defaults, now: datetime) -> None:
        self.defaults = defaults
        self.now = now
        self._reasons: dict[str, str] = {}
        self._ends: dict[str, datetime] = {}

    def read(self, number: int, columns: list[str], row: list[str]) -> GoodLine | BadLine:
        if len(row) > len(columns) and any(cell.strip() for cell in row[len(columns) :]):
            return BadLine(number, "", f"It has more than the {len(columns)} columns of the first line.")
        cells = {name: cell.strip() for name, cell in zip(columns, row, strict=False)}
        try:
            return self._read_cells(number, cells)
        except _ColumnError as error:
            return BadLine(number, error.column, error.cause)

    def _read_cells(self, number: int, cells: Mapping[str, str]) -> GoodLine:
        list_name = _choose("list", cells, self.defaults.list, _LISTS)
        kind = _choose("kind", cells, self.defaults.kind, _KINDS)
        try:
            value = read_value(kind, cells.get("value", ""))
        except InvalidRequestError as error:
            raise _ColumnError("value", error.message) from None
        reason = self._read_reason(cells.get("reason") or self.defaults.reason)
        given = cells.get("expires_at", "")
        expires_at = self._read_end(given) if given else self.defaults.expires_at
        return GoodLine(number, list_name, kind, value.hash, value.masked, reason, expires_at)

    def _read_reason(self, text: str) -> str:
        if text not in self._reasons:
            if len(text) > MAX_REASON_LENGTH:
                raise _ColumnError("reason", f"A reason has at most {MAX_REASON_LENGTH} characters.")
            if not text:
                raise _ColumnError("reason", "A list wants a reason.")
            self._reasons[text] = clean_reason(text.replace("\0", ""))
            if len(self._reasons) > 10_000:
                return self._reasons.pop(text)
        return self._reasons[text]

    def _read_end(self, text: str) -> datetime:
        if text not in self._ends:
            moment = _parse_end(text)
            if moment <= self.now:
                raise _ColumnError("expires_at", "It has ended already.")
            if len(self._ends) > 10_000:
                return moment
            self._ends[text] = moment
        return self._ends[text]


def _choose(column: str, cells: Mapping[str, str], default: str, known: Sequence[str]) -> str:
    found = cells.get(column, "").casefold() or default
    if found not in known:
        raise _ColumnError(column, f"It must be one of {', '.join(known)}.")
    return found


def _parse_end(text: str) -> datetime:
    """A day lasts until its end; a time without an offset is UTC."""
    try:
        moment = datetime.fromisoformat(text)
        if len(text) <= len("2026-01-31"):
            moment += timedelta(days=1)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _ColumnError(
            "expires_at", "Write a day or a time as in 2027-01-31 or 2027-01-31T12:00:00Z."
        ) from None
