"""Random and hostile texts of a seed, for the test that reads them and the benchmark that times it."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tests.fraud.language.generator import make_rule

TEXTS = 20_000
PIECES = (
    "(", ")", "((((", "))))", "not ", " and ", " or ", "true", "1", "1e400", "9" * 30, "NaN", "-", "+", " + 1", '"',
    "\\", '\\"', "\x00", "\ud800", "а", "“", "≥", "{", "}", "{limit}", "{countries}", "amount", "avs", "is_guest",
    'velocity("', 'money("2 USD")', "in_list(", ",", " in ", " between ", " is ", "known", "==", "!=", "=", "<",
    ">=", ".", "*", "/",
    "[", "lambda", "__import__", "\n", "\t", "\u2028", "\u202e", "\U0001f600", "#", "--", "/*", "%s", "';",
)  # fmt: skip
HOSTILE = (
    "(" * 1_000_000, "not " * 499 + "true", "-" * 2000, "true" + " and true" * 1000, "1" + " + 1" * 499 + " > 1",
    '"' * 1999, '"' + "\\" * 1998, '"' + "x" * 10**6, "a" * 2000, "{" * 2000, "lower(" * 333, "velocity(" * 222,
    "true == " * 249 + "true", "amount in (" + '"DE",' * 390, "9" * 2000, "0." + "0" * 1990, "\ud800" * 2000,
    " " * 2000, 'money("' + "9" * 1900 + ' USD") > amount', 'velocity("card", "' + "9" * 1900 + 'd") > 1',
    "\x00" * 10**6,
    "not (" * 16 + "true" + ")" * 16, "(" * 32 + "true" + ")" * 32, "\u0130" * 2000, "is_guest or " * 166 + "is_gest",
    "(x) or " * 250, "a_very_wrong_name or " * 90,
)  # fmt: skip


def make_texts() -> Iterator[str]:
    yield from HOSTILE
    random = Random(5)
    for number in range(TEXTS - len(HOSTILE)):
        yield (
            make_noise(random)
            if number % 4 == 0
            else mutate(random, make_rule(random, random.choice((0, 0, 1, 2))))
        )


def make_noise(random: Random) -> str:
    return "".join(random.choices(PIECES, k=random.randrange(1, 40)))


def mutate(random: Random, text: str) -> str:
    """A few cuts, copies and insertions."""
    for _ in range(random.randrange(1, 4)):
        start, end = sorted(random.randrange(len(text) + 1) for _ in range(2))
        piece = random.choice((random.choice(PIECES), "", text[start:end] * 2))
        text = text[:start] + piece + text[end if random.random() < 0.3 else start :]
    return text
