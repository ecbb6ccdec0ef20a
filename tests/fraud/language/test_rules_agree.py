"""The live rules, SQL and frames give the same answers to random rules on random orders, unknown ones included."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random

import polars as pl
import pytest
from django.db import connection

from fraud.facts import FraudContext
from fraud.language import Expression, parse
from fraud.language.closures import compile_expression
from fraud.language.frames import columns, to_polars
from fraud.language.sql import from_json, to_sql
from tests.fraud.language.generator import PARAMETERS, make_context, make_rule

RULES, CONTEXTS, BATCH = 2000, 1000, 100

Answers = list[list[bool | None]]  # one list for each rule


@pytest.fixture(scope="module")
def contexts() -> list[FraudContext]:
    random = Random(20)
    return [make_context(random) for _ in range(CONTEXTS)]


@pytest.fixture(scope="module")
def rules() -> list[Expression]:
    random = Random(21)
    return [parse(make_rule(random), PARAMETERS) for _ in range(RULES)]


def ask_closures(rules: Sequence[Expression], contexts: Sequence[FraudContext]) -> Answers:
    return [list(map(compile_expression(rule), contexts)) for rule in rules]


def fill_table(contexts: Sequence[FraudContext]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE seen (id int, context jsonb)")
        rows = [(number, json.dumps(context.to_dict())) for number, context in enumerate(contexts)]
        cursor.executemany("INSERT INTO seen VALUES (%s, %s)", rows)


def ask_sql(rules: Sequence[Expression]) -> Answers:
    answers: Answers = []
    for start in range(0, len(rules), BATCH):
        batch = [to_sql(rule, "seen.context") for rule in rules[start : start + BATCH]]
        statement = f"SELECT {', '.join(sql.text for sql in batch)} FROM seen ORDER BY id"
        with connection.cursor() as cursor:
            cursor.execute(statement, [parameter for sql in batch for parameter in sql.parameters])
            answers.extend(map(list, zip(*cursor.fetchall(), strict=True)))
    return answers


def load_frame(rules: Sequence[Expression]) -> pl.DataFrame:
    wanted = columns(rules)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(column.sql for column in wanted.values())} FROM seen ORDER BY id")
        rows = cursor.fetchall()
    schema = {name: column.dtype for name, column in wanted.items()}
    return pl.DataFrame(rows, schema=schema, orient="row")


def ask_polars(rules: Sequence[Expression], frame: pl.DataFrame) -> Answers:
    wanted = [to_polars(rule).alias(str(number)) for number, rule in enumerate(rules)]
    found = frame.with_columns(wanted)
    return [found[str(number)].to_list() for number in range(len(rules))]


@pytest.mark.django_db
def test_three_back_ends_answer_alike(rules: list[Expression], contexts: list[FraudContext]) -> None:
    live = ask_closures(rules, contexts)
    fill_table(contexts)
    in_sql = ask_sql(rules)
    in_frames = ask_polars(rules, load_frame(rules))
    assert [describe(*each) for each in zip(rules, live, in_sql, strict=True) if each[1] != each[2]] == []
    assert [describe(*each) for each in zip(rules, live, in_frames, strict=True) if each[1] != each[2]] == []
    given = {answer for answers in live for answer in answers}
    assert given == {True, False, None}, "the comparison saw every answer"


def describe(
    rule: Expression, live: list[bool | None], other: list[bool | None]
) -> tuple[str, int, object, object]:
    """The rule and the first order that it is answered differently for."""
    at = next(number for number, pair in enumerate(zip(live, other, strict=True)) if pair[0] != pair[1])
    return rule.text, at, live[at], other[at]


@pytest.mark.django_db
def test_typed_columns_answer_like_the_json(rules: list[Expression], contexts: list[FraudContext]) -> None:
    """`row` as a function: here of a table with one typed column for each name."""
    few = rules[:BATCH]
    fill_table(contexts)
    wanted = columns(few)
    listing = ", ".join(f'{column.sql} AS "{name}"' for name, column in wanted.items())
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMP TABLE typed AS SELECT id, {listing} FROM seen")
        batch = [to_sql(rule, lambda name: f'typed."{name}"') for rule in few]
        statement = f"SELECT {', '.join(sql.text for sql in batch)} FROM typed ORDER BY id"
        cursor.execute(statement, [parameter for sql in batch for parameter in sql.parameters])
        assert list(map(list, zip(*cursor.fetchall(), strict=True))) == ask_closures(few, contexts)


@pytest.mark.parametrize("row", ["context; DROP TABLE x", "a.b.c", "", 'a"b', "Context"])
def test_the_row_is_the_name_of_a_column(row: str) -> None:
    with pytest.raises(ValueError, match="not the name of a column"):
        from_json(row)
