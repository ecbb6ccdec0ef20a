"""Money: exact in every currency of the ISO table, and never a float."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from moneyed import CURRENCIES

from payments.money import MAX_MINOR_UNITS, CurrencyMismatchError, Money, exponent

NOT_PAYABLE = {f"X{rest}" for rest in ("AG", "AU", "BA", "BB", "BC", "BD", "DR", "FU", "PD", "PT", "SU")}
NOT_PAYABLE |= {"XTS", "XUA", "XXX"}
TABLE = sorted(set(CURRENCIES) - NOT_PAYABLE)

minors = st.integers(-MAX_MINOR_UNITS, MAX_MINOR_UNITS)
currencies = st.sampled_from(TABLE)
moneys = st.builds(Money, minors, currencies)
weights = st.lists(st.integers(0, 10**6), min_size=1, max_size=12).filter(any)

# ISO 4217: every currency in circulation whose minor unit is not two digits, and some with two.
WITHOUT_DIGITS = ["BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW"]
WITHOUT_DIGITS += ["PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"]
DIGITS = dict.fromkeys(WITHOUT_DIGITS, 0)
DIGITS |= dict.fromkeys(["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"], 3) | {"CLF": 4, "UYW": 4}
DIGITS |= dict.fromkeys(["AUD", "BRL", "CAD", "CHF", "CNY", "CZK", "DKK", "EUR", "GBP", "HUF", "IDR"], 2)
DIGITS |= dict.fromkeys(["INR", "MGA", "MRU", "MXN", "NOK", "PLN", "SEK", "TRY", "USD", "ZAR"], 2)


@pytest.mark.parametrize(("currency", "digits"), DIGITS.items())
def test_exponents_are_those_of_iso_4217(currency: str, digits: int) -> None:
    assert exponent(currency) == digits


@pytest.mark.parametrize("currency", ["", "eur", "EU", "EURO", "EUR\n", "QQQ", *sorted(NOT_PAYABLE)])
def test_what_is_no_payable_currency_is_refused(currency: str) -> None:
    with pytest.raises(ValueError, match="not a payable ISO 4217 currency"):
        Money(1, currency)


@settings(deadline=None)
@given(moneys)
def test_major_units_come_back_to_the_same_money(money: Money) -> None:
    assert Money.from_major(money.amount, money.currency) == money
    assert Money.from_major(str(money).split()[0], money.currency) == money
    assert Fraction(money.amount) == Fraction(money.minor, 10 ** exponent(money.currency))


@settings(deadline=None)
@given(moneys)
def test_exactness_does_not_hang_on_the_decimal_context(money: Money) -> None:
    with localcontext() as context:
        context.prec = 3
        assert Money.from_major(money.amount, money.currency) == money


@pytest.mark.parametrize("currency", TABLE)
def test_one_digit_too_many_is_refused_in_every_currency(currency: str) -> None:
    with pytest.raises(ValueError, match="whole number of minor units"):
        Money.from_major(Decimal(1).scaleb(-exponent(currency) - 1), currency)


@pytest.mark.parametrize(
    "amount",
    ["", "x", "1,50", "nan", "inf", "-Infinity", "1.001", "1e19", "1e999999999", "1e-999999999", "1" * 19],
)
def test_what_is_no_amount_is_refused(amount: str) -> None:
    with pytest.raises(ValueError, match=r"amount|minor units|digits"):
        Money.from_major(amount, "EUR")


def test_an_amount_with_more_digits_than_any_context_holds_is_not_rounded() -> None:
    with pytest.raises(ValueError, match="whole number of minor units"):
        Money.from_major("1.0000000000000000000000000000001", "EUR")


@pytest.mark.parametrize("minor", [1.0, "1", True, None, Decimal(1)])
def test_minor_units_are_an_int_and_nothing_else(minor: Any) -> None:
    with pytest.raises(TypeError, match="minor units are an int"):
        Money(minor, "EUR")


@pytest.mark.parametrize(
    "operation", [lambda m: m * 1.5, lambda m: 1.5 * m, lambda m: m * Decimal(1), lambda m: m * True]
)
def test_money_is_multiplied_by_whole_numbers_only(operation: Any) -> None:
    with pytest.raises(TypeError):
        operation(Money(100, "EUR"))


@pytest.mark.parametrize(
    "operation", [lambda m: m + 1, lambda m: m - 1.0, lambda m: m < 1, lambda m: sum([m])]
)
def test_money_does_not_mix_with_numbers(operation: Any) -> None:
    with pytest.raises(TypeError):
        operation(Money(100, "EUR"))


def test_floats_are_refused_as_major_units() -> None:
    with pytest.raises(TypeError, match="not float"):
        Money.from_major(19.99, "EUR")  # type: ignore[arg-type]


@settings(deadline=None)
@given(minors, minors, currencies, currencies)
def test_currencies_are_never_mixed(left: int, right: int, one: str, other: str) -> None:
    assume(one != other)
    a, b = Money(left, one), Money(right, other)
    assert a != b
    for operation in ("__add__", "__sub__", "__lt__", "__le__", "__gt__", "__ge__"):
        with pytest.raises(CurrencyMismatchError):
            getattr(a, operation)(b)


@settings(deadline=None)
@given(st.integers(-(10**17), 10**17), st.integers(-(10**17), 10**17), currencies)
def test_arithmetic_is_that_of_the_minor_units(left: int, right: int, currency: str) -> None:
    a, b = Money(left, currency), Money(right, currency)
    assert (a + b).minor == left + right
    assert a + b - b == a
    assert (-a).minor == -left
    assert (a * 3).minor == (3 * a).minor == left * 3
    assert (a < b, a <= b, a > b, a >= b) == (left < right, left <= right, left > right, left >= right)
    assert bool(a) == (left != 0)


def test_amounts_have_at_most_eighteen_digits() -> None:
    most = Money(MAX_MINOR_UNITS, "EUR")
    beyond: list[Callable[[], Money]] = [lambda: most + Money(1, "EUR"), lambda: -most * 2]
    beyond.append(lambda: Money(MAX_MINOR_UNITS + 1, "EUR"))
    for calculate in beyond:
        with pytest.raises(ValueError, match="18 digits"):
            calculate()


@settings(deadline=None)
@given(moneys, weights)
def test_allocation_loses_no_cent_and_favours_nobody(money: Money, shares: list[int]) -> None:
    parts = money.allocate(shares)
    assert sum(part.minor for part in parts) == money.minor
    assert {part.currency for part in parts} == {money.currency}
    for part, share in zip(parts, shares, strict=True):
        assert abs(Fraction(part.minor) - Fraction(money.minor * share, sum(shares))) < 1
        assert share or not part
    by_weight = sorted(zip(shares, (abs(part.minor) for part in parts), strict=True))
    assert all(low[1] <= high[1] for low, high in pairwise(by_weight) if low[0] < high[0])


def test_the_remainder_goes_to_the_largest_fractions_then_to_the_first() -> None:
    assert [part.minor for part in Money(100, "EUR").allocate([1, 1, 1])] == [34, 33, 33]
    assert [part.minor for part in Money(-100, "EUR").allocate([1, 1, 1])] == [-34, -33, -33]
    assert [part.minor for part in Money(10, "EUR").allocate([1, 5])] == [2, 8]
    assert [part.minor for part in Money(1, "JPY").allocate([0, 1])] == [0, 1]


@pytest.mark.parametrize("shares", [[], [0], [0, 0], [1, -1], [2, -1]])
def test_weights_that_share_nothing_are_refused(shares: list[int]) -> None:
    with pytest.raises(ValueError, match="weights"):
        Money(100, "EUR").allocate(shares)


@settings(deadline=None)
@given(moneys, st.sampled_from(["en_US", "de_DE", "fr_FR", "ja_JP", "ar_EG", "hi_IN"]))
def test_every_format_shows_the_digits_of_iso_4217(money: Money, locale: str) -> None:
    shown = money.format(locale).replace("XPF", "").replace("F\u202fCFA", "")
    digits = "".join(filter(str.isdigit, shown))
    assert digits == f"{abs(money.minor):0{exponent(money.currency) + 1}d}"


@pytest.mark.parametrize(
    ("money", "locale", "text"),
    [
        (Money(1999, "EUR"), "en_US", "€19.99"),
        (Money(1999, "EUR"), "de_DE", "19,99\u00a0€"),
        (Money(-123456, "USD"), "en_US", "-$1,234.56"),
        (Money(1999, "JPY"), "en_US", "¥1,999"),
        (Money(12345, "MGA"), "en_US", "MGA123.45"),
        (Money(12345, "KWD"), "en_US", "KWD12.345"),
        (Money(12345, "CLF"), "en_US", "CLF1.2345"),
        (Money(5, "HUF"), "en_US", "HUF0.05"),
    ],
)
def test_formats_for_people(money: Money, locale: str, text: str) -> None:
    assert money.format(locale) == text


def test_the_api_form_is_minor_units_and_code() -> None:
    assert Money(1999, "EUR").to_dict() == {"amount": 1999, "currency": "EUR"}
    assert str(Money(1999, "EUR")) == "19.99 EUR"
    assert str(Money(-5, "KWD")) == "-0.005 KWD"
    assert str(Money(MAX_MINOR_UNITS, "CLF")) == "99999999999999.9999 CLF"


def test_money_is_a_value() -> None:
    assert len({Money(1, "EUR"), Money(1, "EUR"), Money(1, "USD")}) == 2
    with pytest.raises(AttributeError):
        Money(1, "EUR").minor = 2  # type: ignore[misc]
