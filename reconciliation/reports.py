"""Takes a settlement report in, from the gateway or from a person, and keeps it byte for byte."""

from __future__ import annotations

import hashlib
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from datetime import date
from typing import IO, Any

from django.db import transaction
from django.utils import timezone

from payments.errors import InvalidRequestError
from payments.models import GatewayAccount
from reconciliation.formats import find_report_parser
from reconciliation.models import ReportChunk, ReportFile
from reconciliation.parsers import BadRow, ReportFormatError

CHUNK_BYTES = 1 << 20
_IN_MEMORY_BYTES = 8 << 20


def keep_fetched_report(account: GatewayAccount, chunks: Iterable[bytes], *, day: date) -> ReportFile:
    """Store what the gateway handed out for a day: all of that day."""
    return _keep_report(account, chunks, day=day, name=f"{account.name}-{day}.csv", is_fetched=True)


def keep_uploaded_report(
    account: GatewayAccount, chunks: Iterable[bytes], *, day: date, name: str, actor: str
) -> ReportFile:
    """Check a report that a person brought, wholly, then keep it.

    Raises `InvalidRequestError` when it is no readable report, or was brought for another day; then nothing is kept.
    """
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as spool:
        digest, _ = _spool_bytes(spool, chunks)
        rows = check_report(account, _iter_pieces(spool))
        other = ReportFile.objects.filter(account=account, sha256=digest).exclude(day=day).first()
        if other and rows:
            raise InvalidRequestError(
                f"This report was already imported for {other.day} ({other}); nothing was imported for {day}."
            )
        return _keep_report(account, _iter_pieces(spool), day=day, name=name, received_by=actor)


def check_report(account: GatewayAccount, chunks: Iterable[bytes]) -> int:
    """How many good rows a report has. Raises `InvalidRequestError` when it cannot be read as a whole."""
    rows = 0
    first_bad: BadRow | None = None
    try:
        for row in find_report_parser(account.gateway)(chunks):
            if isinstance(row, BadRow):
                first_bad = first_bad or row
            else:
                rows += 1
    except ReportFormatError as error:
        raise InvalidRequestError(f"{error}. Nothing was imported.") from error
    if first_bad and not rows:
        raise InvalidRequestError(
            f"No line could be read; line {first_bad.line} {first_bad.reason}. Nothing was imported."
        )
    return rows


def _keep_report(
    account: GatewayAccount, chunks: Iterable[bytes], *, day: date, **details: Any
) -> ReportFile:
    """Once per account, day and content: the same bytes under another name are the same report."""
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as spool:
        digest, size = _spool_bytes(spool, chunks)
        with transaction.atomic():
            file, is_new = ReportFile.objects.get_or_create(
                account=account,
                day=day,
                sha256=digest,
                defaults={"size": size, "received_at": timezone.now(), **details},
            )
            if is_new:
                for number, piece in enumerate(_iter_pieces(spool)):
                    ReportChunk.objects.create(file=file, number=number, data=zlib.compress(piece))
    return file


def _spool_bytes(spool: IO[bytes], chunks: Iterable[bytes]) -> tuple[str, int]:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        spool.write(chunk)
    return digest.hexdigest(), spool.tell()


def _iter_pieces(spool: IO[bytes]) -> Iterator[bytes]:
    spool.seek(0)
    while piece := spool.read(CHUNK_BYTES):
        yield piece
