"""The rule language: one typed tree for live decisions, for SQL and for data frames."""

from fraud.language.errors import LanguageError
from fraud.language.expression import Expression, parse

__all__ = ["Expression", "LanguageError", "parse"]
