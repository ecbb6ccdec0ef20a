"""Public ids: a typed prefix and a time-ordered 128-bit value; sortable, unguessable, unlike a card."""

from __future__ import annotations

import base64
import secrets
import time
from datetime import UTC, datetime

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base32, in lower case
_FROM_HEX32 = str.maketrans("0123456789ABCDEFGHIJKLMNOPQRSTUV", _ALPHABET)
_LENGTH = 26  # 130 bits hold 128

PREFIXES = {
    "ord": "order",
    "pay": "payment",
    "att": "attempt",
    "op": "operation",
    "re": "refund",
    "dp": "dispute",
    "cus": "customer",
    "spm": "saved payment method",
    "sag": "saga run",
    "evt": "event",
    "whe": "webhook endpoint",
    "acc": "gateway account",
    "cli": "API client",
    "key": "API key",
    "tok": "token signing key",
    "shp": "shipment",
    "rev": "review",
    "asm": "assessment",
    "rset": "rule set",
    "btr": "back-test",
    "lst": "list entry",
    "lim": "list import",
    "rec": "reconciliation run",
    "dis": "discrepancy",
    "dlv": "delivery",
    "inb": "inbound webhook",
    "req": "request",
}
MAX_LENGTH = 32
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)  # before the first id; they know no time before 1970


def new_id(prefix: str) -> str:
    """A fresh id such as `ord_01k9...`: 60 bits of time, in 4096ths of a millisecond, then 68 random bits.

    So ids that one process makes one after the other are in that order. Raises `ValueError` for a prefix that
    is not in `PREFIXES`.
    """
    if prefix not in PREFIXES:
        raise ValueError(f"unknown id prefix {prefix!r}")
    value = (time.time_ns() * 4096 // 1_000_000) << 68 | secrets.randbits(68)
    return f"{prefix}_{_encode(value)}"


def lowest_id(prefix: str, moment: datetime) -> str:
    """The id below which every id made before `moment` lies: a bound for searching by time."""
    return f"{prefix}_{_encode(int(moment.timestamp() * 1000) << 80)}"


def is_id(text: str, prefix: str) -> bool:
    """Whether the text has the form of an id with this prefix."""
    head, _, tail = text.partition("_")
    return head == prefix and len(tail) == _LENGTH and all(letter in _ALPHABET for letter in tail)


def _encode(value: int) -> str:
    # b32hexencode groups five bits from the left; 130 bits shifted to a whole number of bytes come out in our order.
    digits = base64.b32hexencode((value << 6).to_bytes(17)).decode()[:_LENGTH]
    return digits.translate(_FROM_HEX32)
