"""Brings the rows of a report into the database: COPY to scratch, then one statement that keeps each row once."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from django.db import connection, transaction
from django.utils import timezone

from reconciliation.formats import find_report_parser
from reconciliation.models import ReportFile, ReportLine
from reconciliation.parsers import BadRow, ReportFormatError, ReportRow

BATCH = 20_000  # rows between two signs of progress
LISTED_BAD_ROWS = 200

_COLUMNS = (
    "line",
    "external_id",
    "kind",
    "category",
    "reference",
    "payment_reference",
    "amount",
    "currency",
    "gross",
    "fee",
    "net",
    "settlement_currency",
    "created_at",
    "available_on",
    "payout_id",
    "source_id",
    "description",
    "our_payment_id",
    "our_operation_id",
)
_LIST = ", ".join(_COLUMNS)

# The ladder by which a row `r` finds our payment or refund: the gateway's reference, then what its metadata says.
# Each rung joins on a unique index, so a row stays one row.
LADDER = """
LEFT JOIN payments_attempt attempt
  ON r.kind = 'charge' AND attempt.account_id = %(account)s AND attempt.gateway_reference = r.reference
LEFT JOIN payments_operation refund
  ON r.kind = 'refund' AND refund.kind = 'refund' AND refund.account_id = %(account)s
  AND refund.gateway_reference = r.reference
LEFT JOIN payments_operation named
  ON named.id = r.our_operation_id AND named.account_id = %(account)s
  AND (r.kind = 'charge' OR r.kind = 'refund' AND named.kind = 'refund')
LEFT JOIN payments_payment payment
  ON r.kind = 'charge' AND payment.id = r.our_payment_id AND payment.account_id = %(account)s
"""
OURS = """CASE r.kind WHEN 'charge' THEN coalesce(attempt.payment_id, named.payment_id, payment.id)
     WHEN 'refund' THEN coalesce(refund.id, named.id) END"""

# A row that came before is the same row: a later report may correct it, or add its payout.
_KEEP = f"""
INSERT INTO reconciliation_reportline AS kept
    (account_id, file_id, row_key, occurrence, group_key, is_resolved, {_LIST})
SELECT %(account)s, %(file)s, r.external_id, r.occurrence,
    coalesce({OURS}, r.reference), {OURS} IS NOT NULL, {", ".join(f"r.{name}" for name in _COLUMNS)}
FROM (
    SELECT *, row_number() OVER (PARTITION BY external_id ORDER BY line) AS occurrence
    FROM reconciliation_staging WHERE file_id = %(file)s
) r
{LADDER}
ON CONFLICT (account_id, row_key, occurrence) DO UPDATE SET
    payout_id = coalesce(nullif(excluded.payout_id, ''), kept.payout_id),
    available_on = coalesce(excluded.available_on, kept.available_on),
    is_resolved = kept.is_resolved OR excluded.is_resolved,
    group_key = CASE WHEN kept.is_resolved AND NOT excluded.is_resolved THEN kept.group_key ELSE excluded.group_key END,
    file_id = excluded.file_id,
    {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS if name not in ("payout_id", "available_on"))}
"""  # noqa: S608 - the names are constants

_RESOLVE = f"""
WITH found AS (
    UPDATE reconciliation_reportline kept SET group_key = x.ours, is_resolved = true
    FROM (
        SELECT r.id, {OURS} AS ours FROM reconciliation_reportline r {LADDER}
        WHERE r.account_id = %(account)s AND NOT r.is_resolved AND r.kind IN ('charge', 'refund')
    ) x
    WHERE kept.id = x.id AND x.ours IS NOT NULL
    RETURNING kept.reference, kept.group_key
)
UPDATE reconciliation_discrepancy d SET group_key = found.group_key
FROM found WHERE d.account_id = %(account)s AND d.group_key = found.reference
"""  # noqa: S608


@dataclass(slots=True)
class _BadRows:
    """All are counted; the first are kept to be shown."""

    count: int = 0
    listed: list[BadRow] = field(default_factory=list)

    def add(self, row: BadRow) -> None:
        self.count += 1
        if len(self.listed) < LISTED_BAD_ROWS:
            self.listed.append(row)


def read_chunks(file: ReportFile) -> Iterator[bytes]:
    """The bytes of a stored report, piece by piece."""
    for data in file.chunks.order_by("number").values_list("data", flat=True).iterator(chunk_size=4):
        yield zlib.decompress(bytes(data))


def import_report(file: ReportFile, *, on_progress: Callable[[int], None]) -> None:
    """Keep all rows of a stored report, or none. Doing it again changes nothing.

    Raises `ReportFormatError` when the file cannot be read; its bad lines are listed on the file.
    """
    if file.imported_at:
        return
    clear_staging(file)
    try:
        bad = _BadRows()
        rows = _copy_rows(file, _iter_good_rows(file, bad), on_progress=on_progress)
        if bad.count and not rows:
            first = bad.listed[0]
            raise ReportFormatError(
                f"None of the {bad.count} lines could be read; line {first.line} {first.reason}"
            )
        _keep_rows(file, rows=rows, bad=bad)
    finally:
        clear_staging(file)


def clear_staging(file: ReportFile) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM reconciliation_staging WHERE file_id = %s", [file.pk])


def resolve_lines(account_id: str) -> None:
    """Look again for our payment or refund of every kept row that had none."""
    with connection.cursor() as cursor:
        cursor.execute(_RESOLVE, {"account": account_id})


def _iter_good_rows(file: ReportFile, bad: _BadRows) -> Iterator[ReportRow]:
    for row in find_report_parser(file.account.gateway)(read_chunks(file)):
        if isinstance(row, BadRow):
            bad.add(row)
        else:
            yield row


def _copy_rows(file: ReportFile, rows: Iterator[ReportRow], *, on_progress: Callable[[int], None]) -> int:
    """COPY in batches, each committed, so that the progress shows; nothing else reads the scratch table."""
    done = 0
    while batch := list(islice(rows, BATCH)):
        _copy_batch(file, batch)
        done += len(batch)
        on_progress(done)
    return done


def _copy_batch(file: ReportFile, batch: Iterable[ReportRow]) -> None:
    statement = f"COPY reconciliation_staging (file_id, {_LIST}) FROM STDIN"
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in batch:
            copy.write_row((file.pk, *(getattr(row, name) for name in _COLUMNS)))


def _keep_rows(file: ReportFile, *, rows: int, bad: _BadRows) -> None:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = '10min'")
            cursor.execute("ANALYZE reconciliation_staging")
            cursor.execute(_KEEP, {"account": file.account_id, "file": file.pk})
            _withdraw_older(file)
            cursor.execute("ANALYZE reconciliation_reportline")  # what follows at once reads these very rows
        file.rows = rows
        file.bad_rows = bad.count
        file.bad_row_list = [{"line": row.line, "reason": row.reason} for row in bad.listed]
        file.imported_at = timezone.now()
        file.save(update_fields=["rows", "bad_rows", "bad_row_list", "imported_at"])


def _withdraw_older(file: ReportFile) -> None:
    """What the gateway says of a day takes the place of what it said before; the older files stay, as files."""
    older = ReportFile.objects.filter(account=file.account_id, day=file.day).exclude(pk=file.pk)
    if file.is_fetched:
        ReportLine.objects.filter(file__in=older.filter(is_fetched=True)).delete()
    older.update(imported_at=None)  # the same bytes may come again, and must then be read again
