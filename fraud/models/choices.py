"""What the words of the domain are as choices of a column."""

from __future__ import annotations

from enum import StrEnum


def choices_of(words: type[StrEnum]) -> list[tuple[str, str]]:
    return [(word.value, word.value.replace("_", " ").capitalize()) for word in words]


def values_of(words: type[StrEnum]) -> list[str]:
    return [word.value for word in words]
