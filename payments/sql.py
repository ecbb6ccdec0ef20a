"""Runs the few hot statements that are written by hand, prepared on the server so that they are planned once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import psycopg
from django.db import connection

Parameters = Sequence[Any] | Mapping[str, Any]


def run(statement: str, parameters: Parameters) -> int:
    """Execute in the caller's transaction; the number of rows touched. Raises Django's database errors."""
    with connection.wrap_database_errors, _cursor() as cursor:
        return cursor.execute(statement, parameters, prepare=True).rowcount


def fetch_one(statement: str, parameters: Parameters) -> tuple[Any, ...] | None:
    """The first row, or None. Values come as Django's cursor gives them: jsonb as text."""
    with connection.wrap_database_errors, _cursor() as cursor:
        return cursor.execute(statement, parameters, prepare=True).fetchone()


def fetch_all(statement: str, parameters: Parameters) -> list[tuple[Any, ...]]:
    """Every row, read at once. Values come as Django's cursor gives them: jsonb as text."""
    with connection.wrap_database_errors, _cursor() as cursor:
        return cursor.execute(statement, parameters, prepare=True).fetchall()


def _cursor() -> psycopg.Cursor[tuple[Any, ...]]:
    # Django's own cursors merge the parameters into the text, so that PostgreSQL plans each call anew.
    connection.ensure_connection()
    return psycopg.Cursor(cast("psycopg.Connection[Any]", connection.connection))
