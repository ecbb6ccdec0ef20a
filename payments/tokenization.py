"""Tokens in place of cards: the protocol of a vault, and one in memory for tests."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from typing import Protocol

from payments.card_numbers import is_card_number


@dataclass(frozen=True, slots=True)
class CardEntry:
    """A card as a customer typed it. Its repr shows no digit, so that no log or traceback can.

    Raises `ValueError`, without repeating the number, when it is not a card number.
    """

    number: str = field(repr=False)
    exp_month: int
    exp_year: int
    cvc: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not is_card_number(self.number):
            raise ValueError("the number is not a card number")
        if not 1 <= self.exp_month <= 12:
            raise ValueError("the expiry month is 1 to 12")


@dataclass(frozen=True, slots=True)
class TokenDescription:
    """What may be shown and stored of a card (PCI DSS 3.4.1)."""

    token: str
    last4: str
    exp_month: int
    exp_year: int


class Tokenizer(Protocol):
    """Turns a card into a token that is worthless elsewhere.

    In production this is the gateway's vault, filled by its hosted fields in the customer's browser: no
    card number reaches this site, so no implementation of ours ever gives one back.
    """

    def tokenize(self, card: CardEntry) -> str:
        """A token for the card; the security code is used and forgotten."""
        ...

    def describe(self, token: str) -> TokenDescription:
        """What may be shown of the card behind the token. Raises `LookupError` for an unknown token."""
        ...


class EphemeralTokenizer:
    """A vault for tests, gone with the process; it keeps descriptions, not numbers.

    Raises `RuntimeError` in production, by the argument or by `DJANGO_ENV=production`.
    """

    def __init__(self, *, production: bool = False) -> None:
        if production or os.environ.get("DJANGO_ENV") == "production":
            raise RuntimeError("EphemeralTokenizer is for tests; in production the gateway holds the vault")
        self._cards: dict[str, TokenDescription] = {}

    def tokenize(self, card: CardEntry) -> str:
        token = f"tok_{secrets.token_hex(12)}"
        self._cards[token] = TokenDescription(token, card.number[-4:], card.exp_month, card.exp_year)
        return token

    def describe(self, token: str) -> TokenDescription:
        if token not in self._cards:
            raise LookupError(f"no card has the token {token!r}")
        return self._cards[token]
