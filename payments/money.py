"""Money: an exact amount in minor units of one ISO 4217 currency."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import cache
from typing import Any

from babel import Locale
from moneyed import CURRENCIES, CurrencyDoesNotExist, get_currency

_MAX_DIGITS = 18
_MAX_SCALE = 40  # digits after the point that are read at all: `1e-999999999` would fill the memory
MAX_MINOR_UNITS = 10**_MAX_DIGITS - 1  # fits a PostgreSQL bigint with room for sums
_CODE = re.compile(r"[A-Z]{3}\Z")
# ISO 4217 codes without a minor unit or without circulation: not payable.
_NOT_PAYABLE = frozenset(
    {"XAG", "XAU", "XBA", "XBB", "XBC", "XBD", "XDR", "XFU", "XPD", "XPT", "XSU", "XTS", "XUA", "XXX", "XYZ"}
)


class CurrencyMismatchError(TypeError):
    """Two amounts of different currencies were added or compared."""


@cache
def exponent(currency: str) -> int:
    """Digits after the point by ISO 4217 (JPY 0, EUR 2, KWD 3, CLF 4). Raises `ValueError` if unknown."""
    if not _CODE.match(currency) or currency in _NOT_PAYABLE:
        raise ValueError(f"{currency!r} is not a payable ISO 4217 currency")
    try:
        sub_unit = int(get_currency(currency).sub_unit)
    except CurrencyDoesNotExist:
        raise ValueError(f"{currency!r} is not a payable ISO 4217 currency") from None
    return len(str(sub_unit)) - 1


@cache
def payable_currencies() -> Mapping[str, int]:
    """The exponent of every currency that has one."""
    codes = (code for code in CURRENCIES if _CODE.match(code) and code not in _NOT_PAYABLE)
    return {code: exponent(code) for code in sorted(codes)}


@dataclass(frozen=True, slots=True)
class Money:
    """`Money(1999, "EUR")` is 19.99 euros. Raises `TypeError` for a non-int, `ValueError` out of range."""

    minor: int
    currency: str

    def __post_init__(self) -> None:
        if type(self.minor) is not int:
            raise TypeError(f"minor units are an int, not {type(self.minor).__name__}")
        if abs(self.minor) > MAX_MINOR_UNITS:
            raise ValueError("amounts have at most 18 digits")
        exponent(self.currency)

    @classmethod
    def from_major(cls, amount: Decimal | str, currency: str) -> Money:
        """Exactly `amount` major units.

        Raises `ValueError` if it is no number, has more digits than the currency, or is out of range;
        `TypeError` for a float.
        """
        if not isinstance(amount, Decimal | str):
            raise TypeError(f"major units are a Decimal or a str, not {type(amount).__name__}")
        try:
            value = Decimal(amount)
        except InvalidOperation:
            raise ValueError(f"{amount!r} is not an amount") from None
        scale = value.as_tuple().exponent
        if isinstance(scale, str) or scale < -_MAX_SCALE or value.adjusted() > _MAX_DIGITS:
            raise ValueError(f"{amount} is not an amount of at most {_MAX_DIGITS} digits")
        units, rest = divmod(Fraction(value) * 10 ** exponent(currency), 1)
        if rest:
            raise ValueError(f"{amount} is not a whole number of minor units of {currency}")
        return cls(units, currency)

    @property
    def amount(self) -> Decimal:
        """The exact value in major units, whatever the precision of the thread's decimal context."""
        return Decimal(f"{self.minor}E-{exponent(self.currency)}")

    def __add__(self, other: Money) -> Money:
        return Money(self.minor + self._same(other).minor, self.currency)

    def __sub__(self, other: Money) -> Money:
        return Money(self.minor - self._same(other).minor, self.currency)

    def __neg__(self) -> Money:
        return Money(-self.minor, self.currency)

    def __mul__(self, factor: int) -> Money:
        if type(factor) is not int:
            raise TypeError("money is multiplied by whole numbers only; use allocate() for shares")
        return Money(self.minor * factor, self.currency)

    __rmul__ = __mul__

    def __lt__(self, other: Money) -> bool:
        return self.minor < self._same(other).minor

    def __le__(self, other: Money) -> bool:
        return self.minor <= self._same(other).minor

    def __gt__(self, other: Money) -> bool:
        return self.minor > self._same(other).minor

    def __ge__(self, other: Money) -> bool:
        return self.minor >= self._same(other).minor

    def __bool__(self) -> bool:
        return self.minor != 0

    def __str__(self) -> str:
        return f"{self.amount:f} {self.currency}"

    def allocate(self, weights: Sequence[int]) -> list[Money]:
        """Split by weights without losing a cent: what is left goes, one unit each, to the largest fractions.

        Raises `ValueError` when there is no positive weight, or one is negative.
        """
        total = sum(weights)
        if total <= 0 or any(weight < 0 for weight in weights):
            raise ValueError("weights must be non-negative and not all zero")
        sign = -1 if self.minor < 0 else 1
        shares = [divmod(abs(self.minor) * weight, total) for weight in weights]
        left = abs(self.minor) - sum(share for share, _ in shares)
        by_fraction = sorted(range(len(weights)), key=lambda index: (-shares[index][1], index))
        extra = set(by_fraction[:left])
        return [
            Money(sign * (share + (index in extra)), self.currency) for index, (share, _) in enumerate(shares)
        ]

    def format(self, locale: str = "en_US") -> str:
        """For people: `€19.99`, always with the digits of ISO 4217, which the locale's data may cut (MGA)."""
        pattern = copy(Locale.parse(locale).currency_formats["standard"])
        pattern.frac_prec = (exponent(self.currency),) * 2
        return str(pattern.apply(self.amount, locale, currency=self.currency, currency_digits=False))

    def to_dict(self) -> dict[str, Any]:
        """The API's form: minor units and code."""
        return {"amount": self.minor, "currency": self.currency}

    def _same(self, other: Money) -> Money:
        if not isinstance(other, Money):
            raise TypeError(f"expected Money, not {type(other).__name__}")
        if other.currency != self.currency:
            raise CurrencyMismatchError(f"{self.currency} and {other.currency} cannot be mixed")
        return other
