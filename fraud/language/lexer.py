"""A rule's text as tokens, each with the column where it begins."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from fraud.language.errors import LanguageError, quote, suggest
from fraud.language.vocabulary import KEYWORDS

MAX_LENGTH = 2000
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |(?P<number>[0-9][0-9A-Za-z_.]*)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<parameter>\{[a-z][a-z0-9_]{0,39}\})
    |(?P<text>"(?:[^"\\]|\\["\\])*")
    |(?P<operator>==|!=|<=|>=|[<>+\-(),])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r'\\(["\\])')
_INSTEAD = {  # longest first
    "===": "==", "!==": "!=", "<>": "!=", "=>": ">=", "=<": "<=", "&&": "and", "||": "or",
    "=": "==", "&": "and", "|": "or", "!": "not", "≥": ">=", "≤": "<=", "≠": "!=", "−": "-", "–": "-",
    "“": '"', "”": '"', "„": '"', "‘": '"', "’": '"', "'": '"',
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Token:
    """`kind`: number, name, keyword, parameter, text (unquoted), operator or end."""

    kind: str
    text: str
    column: int

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else quote(self.text)


def tokenize(text: str) -> list[Token]:
    """The tokens and an end. Raises `LanguageError` at the first character that begins none."""
    if len(text) > MAX_LENGTH:
        raise LanguageError(f"rules have at most {MAX_LENGTH} characters, not {len(text)}", MAX_LENGTH + 1)
    tokens, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if not match:
            raise _describe_stray(text, position)
        if match.lastgroup != "space":
            tokens.append(_make_token(str(match.lastgroup), match[0], position + 1))
        position = match.end()
    return [*tokens, Token("end", "", len(text) + 1)]


def _make_token(kind: str, text: str, column: int) -> Token:
    if kind == "text":
        return Token(kind, _ESCAPE.sub(r"\1", text[1:-1]), column)
    if kind == "parameter":
        return Token(kind, text[1:-1], column)
    return Token("keyword" if text in KEYWORDS else kind, text, column)


def _describe_stray(text: str, position: int) -> LanguageError:
    column, character = position + 1, text[position]
    if character == '"':
        return LanguageError('the text that begins here has no end, or a \\ that is not \\" or \\\\', column)
    if character == "{":
        return LanguageError("parameters are written {name}, in small letters, digits and _", column)
    for wrong in sorted(_INSTEAD, key=len, reverse=True):
        if text.startswith(wrong, position):
            return LanguageError(f"rules do not know {quote(wrong)}", column, _INSTEAD[wrong])
    return LanguageError(f"unexpected {quote(character)}{_name(character)}", column)


def _name(character: str) -> str:
    """Told for what looks like something else."""
    name = "" if character.isascii() else unicodedata.name(character, "")
    return f" ({name.lower()})" if name else ""


def suggest_keyword(word: str) -> str:
    return suggest(word.lower(), KEYWORDS)
