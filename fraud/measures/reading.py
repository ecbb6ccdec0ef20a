"""Runs the large statements of the measures with what suits them."""

from __future__ import annotations

from typing import Any

from django.db import connection, transaction

from fraud.measures.period import Period

# Compiling such a statement to machine code takes a second, many times what it saves; a sort on disk costs as much.
_SUITED = "SET LOCAL jit = off; SET LOCAL work_mem = '64MB'"


def fetch(statement: str, period: Period, **more: str | int | None) -> list[tuple[Any, ...]]:
    """Every row. Planned anew each time: a week and a quarter want different plans."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_SUITED)
        cursor.execute(statement, {"since": period.since, "until": period.until, **more})
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows
