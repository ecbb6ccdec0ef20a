"""What the adapters read alike from an account's credentials."""

from __future__ import annotations

import os
from collections.abc import Mapping

DEFAULT_TIMEOUT = "25"  # seconds


def require(credentials: Mapping[str, str], account: str, *names: str) -> None:
    """Raises `ValueError` for the first of `names` that is missing or empty; `account` says whose, with its article."""
    for name in names:
        if not credentials.get(name):
            raise ValueError(f"{account} account needs the credential {name}")


def read_timeout(credentials: Mapping[str, str]) -> float:
    """The longest that one call may take, in seconds: the account's own, or the site's."""
    return float(credentials.get("timeout") or os.environ.get("GATEWAY_TIMEOUT_SECONDS") or DEFAULT_TIMEOUT)


def is_true(credentials: Mapping[str, str], name: str) -> bool:
    return credentials.get(name, "").lower() == "true"
