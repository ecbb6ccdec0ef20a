"""The reports server: the payment accounting report of each day that is over."""

import csv
import io
import re
from datetime import UTC, datetime, timedelta

from payments.sandbox.books import Session

from . import ledger
from .wire import refuse

FILE = re.compile(
    r"/reports/download/MerchantAccount/([^/]+)/payments_accounting_report_(\d{4}_\d\d_\d\d)\.csv"
)


def download(session: Session, path: str) -> str:
    """The file as CSV. Raises ApiError 404 for a day that is not over, and for any other name."""
    match = FILE.fullmatch(path)
    try:
        day = datetime.strptime(match[2], "%Y_%m_%d").replace(tzinfo=UTC) if match else None
    except ValueError:
        day = None
    end = int((day + timedelta(days=1)).timestamp()) if day else 0
    if match is None or day is None or session.now < end:
        raise refuse("000", "Not Found", status=404)
    rows = ledger.list_rows(session, match[1], int(day.timestamp()), end)
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([ledger.COLUMNS, *rows])
    return out.getvalue()
