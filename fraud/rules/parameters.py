"""Typed parameters of the rules that are code: read from JSON, refused in words when they are wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from typing import Any, Self

from payments.money import Money, exponent


class ParameterError(ValueError):
    """The parameters of a rule are wrong; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Base of all parameters. `from_json` raises `ParameterError`."""

    @classmethod
    def from_json(cls, data: Any) -> Self:
        if not isinstance(data, Mapping):
            raise ParameterError('the parameters must be an object such as {"limit": 10}')
        known = [field.name for field in fields(cls)]
        for name in data:
            if name not in known:
                expected = ", ".join(f"“{field}”" for field in known) or "none"
                raise ParameterError(f"unknown parameter “{name}”; known here: {expected}")
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
        return cls(**values)


@dataclass(frozen=True, slots=True)
class AmountParameters(Parameters):
    """Above the limit of its currency is a hit; amounts are strings in major units, such as "1000.00"."""

    default: str = "1000"
    limits: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        require_amount("default", self.default)
        if not isinstance(self.limits or {}, Mapping):
            raise ParameterError('“limits” must be an object such as {"JPY": "150000"}')
        for currency, amount in (self.limits or {}).items():
            try:
                exponent(currency)
            except (ValueError, TypeError):
                raise ParameterError(f"“limits”: {currency!r} is not an ISO 4217 currency") from None
            require_amount(f"limits.{currency}", amount)
            try:
                Money.from_major(amount, currency)
            except ValueError as error:
                raise ParameterError(f"“limits.{currency}”: {error}") from None

    def limit(self, currency: str) -> Money:
        """The limit in this currency; a default with too many digits for it is rounded down."""
        amount = Decimal((self.limits or {}).get(currency, self.default))
        return Money(int(amount.scaleb(exponent(currency))), currency)


def require_amount(name: str, value: object) -> None:
    try:
        is_amount = isinstance(value, str) and Decimal(value).is_finite() and 0 < Decimal(value) < 10**12
    except InvalidOperation:
        is_amount = False
    if not is_amount:
        raise ParameterError(f'“{name}” is {value!r}; it must be a string such as "1000.00"')
