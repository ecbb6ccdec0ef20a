"""A gateway's report file: asked for at its own address alone, and read in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import requests

from payments.gateways.doubt import reached

CHUNK_BYTES = 64 * 1024
SUBJECT = "settlement_report"


def request_file(
    gateway: str, url: str, *, headers: Mapping[str, str], timeout: tuple[float, float]
) -> requests.Response:
    """The answer, whatever its status; a redirect is not followed: it would take the key along."""
    with reached(gateway, SUBJECT):
        return requests.get(url, headers=headers, timeout=timeout, stream=True, allow_redirects=False)


def read_chunks(gateway: str, response: requests.Response) -> Iterator[bytes]:
    """Raises `GatewayTimeoutError` when the file ends early."""
    with response, reached(gateway, SUBJECT):
        yield from response.iter_content(CHUNK_BYTES)
