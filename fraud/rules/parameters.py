"""Typed parameters of the built-in rules: read from JSON, refused in words when they are wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from typing import Any, Self

from payments.money import Money, exponent

DIMENSIONS = ("card", "email", "ip", "device", "customer")
LISTS = ("block", "review")
ANSWERS = ("fail", "unavailable", "unchecked")
COUNTRIES = ("billing", "shipping", "ip", "card")
MIN_WINDOW_SECONDS = 60
MAX_WINDOW_SECONDS = 24 * 60 * 60


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
class ListParameters(Parameters):
    """Which list is looked up."""

    list: str = "block"

    def __post_init__(self) -> None:
        require_choice("list", self.list, LISTS)


@dataclass(frozen=True, slots=True)
class AnswerParameters(Parameters):
    """Which answers of the issuer count as a hit."""

    hit_on: tuple[str, ...] = ("fail",)

    def __post_init__(self) -> None:
        require_choices("hit_on", self.hit_on, ANSWERS, at_least=1)


@dataclass(frozen=True, slots=True)
class VelocityParameters(Parameters):
    """More than `limit` orders of one `dimension` within `window_seconds` is a hit."""

    dimension: str = "card"
    limit: int = 10
    window_seconds: int = 3600

    def __post_init__(self) -> None:
        require_choice("dimension", self.dimension, DIMENSIONS)
        require_whole("limit", self.limit, 1, 1_000_000)
        require_whole("window_seconds", self.window_seconds, MIN_WINDOW_SECONDS, MAX_WINDOW_SECONDS)


@dataclass(frozen=True, slots=True)
class CountryParameters(Parameters):
    """These countries must be the same."""

    between: tuple[str, ...] = ("billing", "shipping")

    def __post_init__(self) -> None:
        require_choices("between", self.between, COUNTRIES, at_least=2)


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


@dataclass(frozen=True, slots=True)
class ScoreParameters(Parameters):
    """This many points, of both screenings together, are a hit."""

    threshold: int = 50

    def __post_init__(self) -> None:
        require_whole("threshold", self.threshold, 1, 10_000)


def require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ParameterError(f"“{name}” is {value!r}; it must be one of: {', '.join(choices)}")


def require_choices(name: str, values: object, choices: tuple[str, ...], *, at_least: int) -> None:
    if not isinstance(values, tuple) or len(set(values)) != len(values) or len(values) < at_least:
        raise ParameterError(f"“{name}” must be a list of at least {at_least} of: {', '.join(choices)}")
    for value in values:
        require_choice(name, value, choices)


def require_whole(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ParameterError(f"“{name}” is {value!r}; it must be a whole number from {low} to {high}")


def require_amount(name: str, value: object) -> None:
    try:
        is_amount = isinstance(value, str) and Decimal(value).is_finite() and 0 < Decimal(value) < 10**12
    except InvalidOperation:
        is_amount = False
    if not is_amount:
        raise ParameterError(f'“{name}” is {value!r}; it must be a string such as "1000.00"')
