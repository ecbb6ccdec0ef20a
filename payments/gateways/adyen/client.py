"""Adyen's SDK as we use it: its addresses, our transport under it, and its answers as plain dicts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import Adyen
import requests

Doc = dict[str, Any]
_LIVE_PREFIX = re.compile(r"[A-Za-z0-9-]{1,100}")


def build_client(api_key: str, timeout: tuple[float, float]) -> Any:
    """The SDK's client over our own transport, and with addresses as they are: it would rewrite `-live` and `-test`."""
    client = Adyen.AdyenClient(xapikey=api_key, platform="test")
    client.http_client = Transport(timeout)
    client.http_init = True
    client._determine_api_url = lambda platform, endpoint: endpoint
    return client


class Transport:
    """What the SDK calls to send. Its own follows redirects, and would take the key along; neither retries."""

    user_agent = f"countinghouse {Adyen.settings.LIB_NAME}/{Adyen.settings.LIB_VERSION}"

    def __init__(self, timeout: tuple[float, float]) -> None:
        self._timeout = timeout

    def request(
        self, method: str, url: str, *, json: Any = None, xapikey: str = "", headers: Mapping[str, str]
    ) -> tuple[bytes, Any, int, Mapping[str, str]]:
        response = requests.request(
            method,
            url,
            json=json,
            headers={**headers, "User-Agent": self.user_agent, "x-api-key": xapikey},
            timeout=self._timeout,
            allow_redirects=False,
        )
        return response.content, json, response.status_code, response.headers


def to_doc(answer: Any) -> Doc:
    """Raises `TypeError` when the body was not a JSON object."""
    return {**answer.message}


# --- addresses ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Addresses:
    checkout: str
    disputes: str
    reports: str


def find_addresses(api_base: str) -> Addresses:
    """Raises `ValueError` for what is neither nothing, an address, nor an account's live prefix."""
    if not api_base or api_base.startswith("https://checkout-test.adyen.com"):
        return join_addresses("https://checkout-test.adyen.com", "https://ca-test.adyen.com")
    if "://" in api_base:
        return join_addresses(f"{api_base}/checkout", api_base)
    if not _LIVE_PREFIX.fullmatch(api_base):
        raise ValueError(f"{api_base!r} is neither an address nor the live prefix of an Adyen account")
    live = f"https://{api_base}-checkout-live.adyenpayments.com/checkout"
    return join_addresses(live, "https://ca-live.adyen.com")


def join_addresses(checkout: str, customer_area: str) -> Addresses:
    return Addresses(
        checkout=f"{checkout}/v72",
        disputes=f"{customer_area}/ca/services/DisputeService/v30",
        reports=f"{customer_area}/reports/download",
    )
