"""Adyen's payment accounting report of a day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from urllib.parse import quote

from payments.errors import ReportNotReadyError
from payments.gateways.adyen.errors import error_for_status
from payments.gateways.download import read_chunks, request_file

REPORT_NAME = "payments_accounting_report_{day:%Y_%m_%d}.csv"


def download(
    server: str, account: str, day: date, *, api_key: str, timeout: tuple[float, float]
) -> Iterator[bytes]:
    """The file in chunks. Raises `ReportNotReadyError` until it exists."""
    name = REPORT_NAME.format(day=day)
    url = f"{server}/MerchantAccount/{quote(account, safe='')}/{name}"
    response = request_file("Adyen", url, headers={"x-api-key": api_key}, timeout=timeout)
    if response.status_code == 200:
        return read_chunks("Adyen", response)
    response.close()
    if response.status_code == 404:
        raise ReportNotReadyError(f"Adyen has no report {name} of {account} yet")
    raise error_for_status(response.status_code, f"Adyen's report {name} answered {response.status_code}")
