"""The values of a rule's {parameters}: numbers, texts and lists of texts, all bounded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from fraud.language import values
from fraud.language.errors import LanguageError, quote
from fraud.language.tree import ParameterValue

MAX_LIST = 1000
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")


def read_parameters(text: str, given: Mapping[str, Any]) -> dict[str, ParameterValue]:
    """Those that the text uses, typed by their values. Raises `LanguageError` where the text uses a wrong one."""
    used = {name: text.find(f"{{{name}}}") for name in given if isinstance(name, str) and _NAME.match(name)}
    return {name: _read(name, given[name], at + 1) for name, at in used.items() if at >= 0}


def _read(name: str, value: Any, column: int) -> ParameterValue:
    try:
        return _typed(value)
    except ValueError as error:
        raise LanguageError(f"the parameter {{{name}}} cannot be used: {error}", column) from None


def _typed(value: Any) -> ParameterValue:
    match value:
        case bool():
            pass
        case int() | float() | Decimal():
            return values.exact_number(value)
        case str():
            return values.check_text(value)
        case [*texts] if 0 < len(texts) <= MAX_LIST and all(isinstance(text, str) for text in texts):
            return tuple(values.check_text(text) for text in texts)
    raise ValueError(
        f"parameters are numbers, texts or lists of 1 to {MAX_LIST} texts, not {quote(repr(value)[:99])}"
    )
