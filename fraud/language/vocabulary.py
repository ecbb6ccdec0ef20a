"""The words of rules beyond the facts: list kinds, countries, currencies, and what a text can be."""

from __future__ import annotations

import dataclasses
from functools import cache

from babel import Locale
from moneyed import CURRENCIES

from fraud.facts import FACTS, FraudContext
from payments.money import exponent

LISTS = ("block", "allow", "review")
LIST_KINDS = (
    "email", "domain", "ip", "network", "card", "device", "customer", "phone", "address", "country",
)  # fmt: skip
COUNTRY_SOURCES = ("card", "billing", "shipping", "ip")
KEYWORDS = ("and", "or", "not", "in", "between", "is", "known", "unknown", "true", "false")
# Codes of CLDR that are no country: regions of one, groups of several, test and private codes.
_NO_COUNTRIES = frozenset(
    ["AC", "CP", "CQ", "DG", "EA", "EU", "EZ", "IC", "QO", "TA", "UN", "XA", "XB", "ZZ"]
)
# Facts that may have digits behind the point; all other numbers are whole.
FRACTIONS = frozenset(
    field.name
    for field in dataclasses.fields(FraudContext)
    if "float" in str(field.type) and field.name in FACTS
)


@cache
def countries() -> frozenset[str]:
    """The two-letter codes of ISO 3166, and XK."""
    codes = {str(code) for code in Locale("en").territories}
    codes = {code for code in codes if len(code) == 2 and code.isalpha()}
    return frozenset(codes - _NO_COUNTRIES)


@cache
def currencies() -> frozenset[str]:
    """The payable currencies of ISO 4217."""
    return frozenset(code for code in CURRENCIES if _is_payable(code))


def possible_values(name: str) -> frozenset[str]:
    """All that this text can be; nothing when that is not known."""
    if name == "currency":
        return currencies()
    if name.endswith("_country"):
        return countries()
    return frozenset(FACTS[name].values) if name in FACTS else frozenset()


def _is_payable(code: str) -> bool:
    try:
        exponent(code)
    except ValueError:
        return False
    return True
