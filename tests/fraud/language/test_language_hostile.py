"""Whatever is typed ends as a rule or as a `LanguageError`, after work that its length bounds."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import pytest

from fraud.language import Expression, LanguageError, parse
from fraud.language.help import complete
from fraud.language.lexer import MAX_LENGTH, tokenize
from fraud.language.parser import Parser
from tests.fraud.language.generator import PARAMETERS
from tests.fraud.language.hostile import HOSTILE, make_noise, make_texts


def test_every_text_is_a_rule_or_an_error_in_it() -> None:
    rules = sum(is_rule(text) for text in make_texts())
    assert rules > 1000, "some changes leave a rule a rule"


def is_rule(text: str) -> bool:
    try:
        rule = parse(text, PARAMETERS)
    except LanguageError as error:
        check_error(error, text)
        return False
    assert Expression.from_json(rule.to_json()) == rule
    return True


def check_error(error: LanguageError, text: str) -> None:
    assert all(1 <= each.column <= len(text) + 1 for each in error.errors), text[:200]
    assert len(str(error)) < 1000


@pytest.mark.parametrize("text", [text[:MAX_LENGTH] for text in HOSTILE], ids=lambda text: ascii(text[:8]))
def test_the_work_is_bounded_by_the_length(text: str) -> None:
    try:
        parser = Parser(text, {})
    except LanguageError:
        return  # not even its letters were read to the end
    with suppress(LanguageError):
        parser.parse()
    assert parser.steps <= len(tokenize(text)) <= len(text) + 1


def test_the_editor_bears_every_text() -> None:
    random = Random(6)
    for text in [*HOSTILE, *(make_noise(random) for _ in range(2000))]:
        for each in complete(text, random.choice((-1, 0, len(text), random.randrange(len(text) + 1)))):
            assert 0 <= each.start <= len(text)
