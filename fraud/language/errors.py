"""What is wrong with a rule's text: the cause, where, and what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

_SHOWN = 40  # characters of somebody's text that a message repeats


class LanguageError(ValueError):
    """A rule cannot be read. `column` is 1-based; `others` are further errors of the same text, in their order."""

    def __init__(
        self, message: str, column: int = 1, suggestion: str = "", others: Sequence[LanguageError] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.column = column
        self.suggestion = suggestion
        self.others = tuple(others)

    def __str__(self) -> str:
        hint = f"; did you mean “{self.suggestion}”?" if self.suggestion else ""
        return f"column {self.column}: {self.message}{hint}"

    @property
    def errors(self) -> tuple[LanguageError, ...]:
        """All that was found, from left to right."""
        return (self, *self.others)

    @classmethod
    def of(cls, errors: Iterable[LanguageError]) -> LanguageError:
        """One error out of several: the leftmost, with the others."""
        first, *others = sorted(errors, key=lambda error: error.column)
        return cls(first.message, first.column, first.suggestion, others)


def suggest(word: str, candidates: Iterable[str]) -> str:
    """The candidate that was probably meant, or ""."""
    known = sorted(set(candidates))
    short = word[:_SHOWN]
    for spelling in (short, short.lower(), short.upper()):
        if close := get_close_matches(spelling, known, 1, 0.7):
            return close[0]
    begun = [name for name in known if len(name) > 2 and short.lower().startswith(name.lower())]
    return max(begun, key=len, default="")


def quote(text: str) -> str:
    """Somebody's text inside a message, cut to a readable length and without what cannot be printed."""
    shown = "".join(
        character if character.isprintable() else f"\\u{ord(character):04x}" for character in text[:_SHOWN]
    )
    return f"“{shown}…”" if len(text) > _SHOWN else f"“{shown}”"
