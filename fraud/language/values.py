"""The constants of rules, all bounded: numbers, texts, amounts and windows."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from functools import lru_cache

from payments.money import Money

MAX_DIGITS = 15  # so every number survives as a double: history and live compare alike
MAX_PLACES = 6
MAX_TEXT = 200
MIN_WINDOW_SECONDS, MAX_WINDOW_SECONDS = 60, 30 * 86400
Number = int | Decimal
_PLAIN_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?\Z")
_WINDOW = re.compile(r"([0-9]{1,7})([smhd])\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_AMOUNT = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,6})?) ([A-Z]{3})\Z")


def read_number(text: str) -> Number:
    """`2`, `0.25`: at most 15 digits, six of them behind the point. Raises `ValueError`."""
    if not _PLAIN_NUMBER.match(text):
        raise ValueError("write numbers in digits, such as 25 or 0.25")
    whole, _, part = text.partition(".")
    whole, part = whole.lstrip("0"), part.rstrip("0")
    if len(whole) + len(part) > MAX_DIGITS or len(part) > MAX_PLACES:
        raise ValueError(f"numbers have at most {MAX_DIGITS} digits, {MAX_PLACES} of them behind the point")
    return Decimal(f"{whole or '0'}.{part}") if part else int(whole or "0")


def exact_number(value: int | float | Decimal) -> Number:
    """A parameter's number as rules hold it. Raises `ValueError` if it is out of bounds, or none (NaN)."""
    if isinstance(value, int):
        text = str(value) if abs(value) < 10**MAX_DIGITS else "too long"
    else:
        decimal = Decimal(repr(value)) if isinstance(value, float) else value
        is_bounded = decimal.is_finite() and abs(decimal.adjusted()) <= MAX_DIGITS
        text = f"{decimal:f}" if is_bounded and len(decimal.as_tuple().digits) <= 40 else "too long"
    if text == "too long":
        raise ValueError(f"numbers have at most {MAX_DIGITS} digits, {MAX_PLACES} of them behind the point")
    number = read_number(text.removeprefix("-"))
    return -number if text.startswith("-") else number


def check_text(text: str) -> str:
    """The text itself: 1 to 200 characters, none of them invisible control. Raises `ValueError`."""
    if not text:
        raise ValueError('nothing is ever "": ask with `is unknown`')
    if len(text) > MAX_TEXT:
        raise ValueError(f"texts have at most {MAX_TEXT} characters")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValueError("texts have no control characters")
    return text


@lru_cache(maxsize=1024)
def read_amount(text: str) -> Money:
    """`2000 USD`, exactly. Raises `ValueError`."""
    match = _AMOUNT.match(text)
    if not match:
        raise ValueError("amounts are digits, a space and a currency, such as 2000 USD")
    return Money.from_major(*match.groups())


def read_window(text: str) -> int:
    """Seconds of `10m`, `1h`, `24h`, `7d`, from 60 s to 30 days. Raises `ValueError`."""
    match = _WINDOW.match(text)
    if not match:
        raise ValueError("windows are a number and s, m, h or d, such as 10m, 1h or 7d")
    seconds = int(match[1]) * _UNITS[match[2]]
    if not MIN_WINDOW_SECONDS <= seconds <= MAX_WINDOW_SECONDS:
        raise ValueError("windows are from 60s to 30d")
    return seconds


def format_window(seconds: int) -> str:
    """The shortest usual form: 3600 is `1h`, 86400 `24h`, 172800 `2d`."""
    if seconds > _UNITS["d"] and seconds % _UNITS["d"] == 0:
        return f"{seconds // _UNITS['d']}d"
    unit = next(unit for unit in "hms" if seconds % _UNITS[unit] == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


def lower(text: str) -> str:
    """A to Z in lower case and nothing else, which is what all back ends do alike."""
    return text.lower() if text.isascii() else text.translate(_LOWER)


_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
