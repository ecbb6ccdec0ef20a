"""The look of the admin: unfold's settings, and nothing but settings."""

from __future__ import annotations

from typing import Any

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Countinghouse",
    "SITE_HEADER": "Countinghouse",
    "SITE_SYMBOL": "account_balance",
    "SHOW_BACK_BUTTON": True,
}
