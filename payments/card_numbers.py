"""Where card numbers stand in a text, whatever their dress, and what only looks like one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

# --- the issuers --------------------------------------------------------------------------------------------
# First and last prefix, and the lengths that are issued under it.
_ISSUERS: tuple[tuple[str, str, frozenset[int]], ...] = (
    ("4", "4", frozenset({13, 16, 19})),  # Visa
    ("51", "55", frozenset({16})),  # Mastercard
    ("2221", "2720", frozenset({16})),
    ("34", "34", frozenset({15})),  # American Express
    ("37", "37", frozenset({15})),
    ("300", "305", frozenset({14, 16, 19})),  # Diners Club
    ("3095", "3095", frozenset({14, 16, 19})),
    ("36", "36", frozenset({14, 16, 19})),
    ("38", "39", frozenset({14, 16, 19})),
    ("3528", "3589", frozenset(range(16, 20))),  # JCB
    ("6011", "6011", frozenset(range(16, 20))),  # Discover
    ("644", "659", frozenset(range(16, 20))),  # Discover, RuPay, Elo, Verve, Troy
    ("62", "62", frozenset(range(16, 20))),  # UnionPay
    ("81", "82", frozenset(range(16, 20))),  # UnionPay, RuPay
    ("60", "60", frozenset({16, 19})),  # RuPay, Hipercard
    ("2200", "2205", frozenset(range(16, 20))),  # Mir, Borica
    ("5018", "5018", frozenset(range(12, 20))),  # Maestro
    ("5020", "5020", frozenset(range(12, 20))),
    ("5038", "5038", frozenset(range(12, 20))),
    ("5612", "5899", frozenset(range(16, 20))),
    ("5893", "5893", frozenset(range(12, 20))),
    ("6304", "6304", frozenset(range(12, 20))),
    ("6390", "6390", frozenset(range(12, 20))),
    ("6759", "6763", frozenset(range(12, 20))),
    ("5019", "5019", frozenset({16})),  # Dankort
    ("506", "509", frozenset({16, 18, 19})),  # Elo, Verve, RuPay
    ("636", "639", frozenset({16})),  # Elo, InstaPayment
    ("8600", "8600", frozenset({16})),  # Uzcard
    ("9792", "9792", frozenset({16})),  # Troy
    ("9860", "9860", frozenset({16})),  # Humo
)
SHORTEST, _LONGEST = 12, 19
WEAK = 13  # up to this length barcodes and phone numbers look the same: a card word must stand before
_DOUBLED = str.maketrans("0123456789", "0246813579")


@lru_cache(maxsize=8192)
def issued_lengths(prefix: str) -> frozenset[int]:
    matching = (lengths for low, high, lengths in _ISSUERS if low <= prefix[: len(low)] <= high)
    return frozenset().union(*matching)


def _passes_luhn(digits: str) -> bool:
    """The check digit of ISO/IEC 7812-1, Annex B."""
    odd, even = digits[-1::-2], digits[-2::-2].translate(_DOUBLED)
    return sum(map(int, odd + even)) % 10 == 0


def is_card_number(digits: str) -> bool:
    """Whether the bare digits have an issuer's prefix, one of its lengths, and the right check digit."""
    if not (digits.isascii() and digits.isdigit()):
        return False
    return len(digits) in issued_lengths(digits[:6]) and _passes_luhn(digits)


# --- reading a text -----------------------------------------------------------------------------------------
# Everything below looks at a shadow of the text: of the same length, so that offsets are good for both.
_ENCODED_GAP = re.compile(
    r"%(?:[cC]2%[aA]0|20|2[dDeEbB]|5[fF]|09|0[aAdD])|&nbsp;|&#160;|&#[xX][aA]0;|\\{1,8}(?:[nrt]|u00[aA]0|xa0)"
)
_GAP_TEXT = r"[\s\-._]"
_MAY_HOLD_CARD = re.compile(
    rf"(?<![0-9])[0-9](?:[0-9]|(?:{_GAP_TEXT}|{_ENCODED_GAP.pattern}){{1,3}}+[0-9]|\+[0-9]){{11}}"
)
# A lone plus is an encoded space; after a space it begins a phone number.
_GAP = re.compile(rf"\+\0*|(?:{_GAP_TEXT}\0*+){{1,3}}")
_DIGITS = re.compile(r"[0-9]+")
_EDGE = r"(?<![0-9A-Za-z])"
_END = r"(?![0-9A-Za-z])"
_NOT_CARDS = re.compile(
    rf"{_EDGE}(?:"
    r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"  # UUID
    r"|[a-z]{2,4}_[0-9a-hjkmnp-tv-z]{26}"  # our ids
    rf"|(?=[0-9]*+[a-fA-F])(?:[0-9a-fA-F]{{16}}|[0-9a-fA-F]{{32}}|[0-9a-fA-F]{{40}}|[0-9a-fA-F]{{56}}"
    rf"|[0-9a-fA-F]{{64}}|[0-9a-fA-F]{{96}}|[0-9a-fA-F]{{128}})"  # digests, trace and span ids
    r"|(?<![0-9]\.)[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?!\.?[0-9])"  # IPv4
    rf"){_END}"
    rf"|{_EDGE}(?:19|20)[0-9]{{2}}([-.])(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12][0-9]|3[01])(?![0-9])"  # dates
)
_IBAN = re.compile(rf"{_EDGE}[A-Z]{{2}}[0-9]{{2}}(?: ?[0-9A-Z]{{4}}){{2,7}}(?: ?[0-9A-Z]{{1,3}})?{_END}")
_CARD_WORD = re.compile(r"(?i)card|visa|maestro|credit|debit|(?<![a-z])(?:pan|ccn?|ccnum)(?![a-z])")
_CARD_WORD_REACH = 40  # characters before the number
_DOTS = "·•․‧∙・。"


class _Fold(dict[int, str]):
    """Maps each character to the ASCII one that a reader sees: digits, spaces, dashes, dots."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = folded = self._fold(char) if code > 127 else char
        return folded

    @staticmethod
    def _fold(char: str) -> str:
        digit = unicodedata.digit(char, None)
        if digit is not None:
            return str(digit)
        category = unicodedata.category(char)
        if category in {"Zs", "Zl", "Zp", "Cf"}:
            return " "
        if category == "Pd" or char == "−":
            return "-"
        return "." if char in _DOTS else char


_FOLD = _Fold()


def make_shadow(text: str) -> str | None:
    """The text as the detector reads it, or None when it holds no chain of twelve digits."""
    shadow = text if text.isascii() else text.translate(_FOLD)
    if not _MAY_HOLD_CARD.search(shadow):
        return None
    shadow = _ENCODED_GAP.sub(
        lambda match: ("+" if match[0].upper() == "%2B" else " ").ljust(len(match[0]), "\0"), shadow
    )
    shadow = _NOT_CARDS.sub(lambda match: "x" * len(match[0]), shadow)
    return _IBAN.sub(_blank_iban, shadow)


def _blank_iban(match: re.Match[str]) -> str:
    """ISO 13616: the rearranged account number is 1 modulo 97. A word behind may look like its last group."""
    candidate = match[0]
    while len(candidate) >= 15:
        compact = candidate.replace(" ", "")
        if int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4])) % 97 == 1:
            return "x" * len(candidate) + match[0][len(candidate) :]
        candidate = candidate.rpartition(" ")[0]
    return match[0]


_Span = tuple[int, int]


def _iter_chains(shadow: str) -> Iterator[list[_Span]]:
    """Runs of digit groups that a reader would see as one number."""
    chain: list[_Span] = []
    for group in _DIGITS.finditer(shadow):
        if chain and not _GAP.fullmatch(shadow, chain[-1][1], group.start()):
            yield chain
            chain = []
        chain.append(group.span())
    if chain:
        yield chain


def _iter_windows(shadow: str, chain: list[_Span]) -> Iterator[tuple[int, int, str]]:
    """Card numbers that begin and end on the edges of groups: at most 19 groups per start, so linear."""
    for first in range(len(chain)):
        digits = ""
        for last in range(first, len(chain)):
            begin, end = chain[last]
            if len(digits) + end - begin > _LONGEST:
                break
            digits += shadow[begin:end]
            if (
                len(digits) >= SHORTEST
                and is_card_number(digits)
                and _is_plausible(shadow, chain, first, last, digits)
            ):
                yield chain[first][0], end, digits


def _is_plausible(shadow: str, chain: list[_Span], first: int, last: int, digits: str) -> bool:
    groups = chain[first : last + 1]
    gaps = [shadow[left[1] : right[0]] for left, right in pairwise(groups)]
    if gaps == ["."]:
        return False  # a decimal number
    if not gaps and first and shadow[chain[first - 1][1] : groups[0][0]] == ".":
        return False  # its fraction
    if len(digits) > WEAK:
        return True
    start = groups[0][0]
    return bool(_CARD_WORD.search(shadow[max(0, start - _CARD_WORD_REACH) : start]))


def find_cards(shadow: str) -> list[tuple[int, int, str]]:
    """Where card numbers stand, and their masks. Overlapping readings become one span that shows no digit."""
    found: list[tuple[int, int, str]] = []
    for chain in _iter_chains(shadow):
        for start, end, digits in _iter_windows(shadow, chain):
            if found and start < found[-1][1]:
                found[-1] = (found[-1][0], max(end, found[-1][1]), "*" * 16)
            else:
                found.append((start, end, mask_card_number(digits)))
    return found


def mask_card_number(digits: str) -> str:
    """First six and last four, as PCI DSS 3.4.1 allows; of less than 14 digits the last four alone."""
    if len(digits) < 14:
        return "*" * (len(digits) - 4) + digits[-4:]
    return digits[:6] + "*" * (len(digits) - 10) + digits[-4:]
