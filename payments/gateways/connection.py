"""The way to a gateway: how long it may take, and whether what failed on it can have arrived."""

from __future__ import annotations

from typing import Any

import requests
import urllib3.exceptions

from payments.errors import GatewayTimeoutError, InvalidRequestError, NetworkError, PaymentError

CONNECT_SECONDS = 3.0  # what is not connected by then is not going to be; nothing was sent


def split_timeout(seconds: float) -> tuple[float, float]:
    """To connect and to read, which together are the longest that one call may take."""
    connect = min(CONNECT_SECONDS, seconds / 2)
    return connect, seconds - connect


def error_for_connection(error: Exception, gateway: str, subject: str) -> PaymentError:
    """What a failure on the way says of the request: not sent, never to be sent so, or nobody knows."""
    name = type(error).__name__
    if surely_not_sent(error):
        return NetworkError(f"{gateway} was not reached ({name}): {subject} was not sent")
    if is_bad_address(error):
        return InvalidRequestError(
            f"The address of {gateway}'s API is wrong ({name}): {subject} was not sent"
        )
    return GatewayTimeoutError(f"{gateway} did not answer {subject} ({name}): the outcome is unknown")


def surely_not_sent(error: Exception) -> bool:
    """Whether the connection itself failed: no address, nobody there, no handshake, no trust."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    reason: Any = error.args[0] if error.args else None
    reason = getattr(reason, "reason", reason)
    if isinstance(reason, urllib3.exceptions.ProxyError):
        reason = reason.original_error
    if isinstance(error, requests.exceptions.SSLError):
        return "CERTIFICATE_VERIFY_FAILED" in str(error)
    return isinstance(reason, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError)


def is_bad_address(error: Exception) -> bool:
    """The library's own refusals are `ValueError`s; so is an answer that is no JSON, which was sent for."""
    if isinstance(error, requests.exceptions.JSONDecodeError):
        return False
    return isinstance(error, requests.RequestException) and isinstance(error, ValueError)
