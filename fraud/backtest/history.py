"""Loads the facts of past orders into a frame: just the columns that some rules ask for."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

import polars as pl
import psycopg
from django.db import connection
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo

from fraud.language.frames import Column

READERS = 2  # connections at once: taking jsonb apart is the database's work, on a core each
BASE = (
    Column("order_id", pl.String(), "assessment.order_id"),
    Column("stage", pl.String(), "assessment.stage"),
    Column("amount", pl.Int64(), "(assessment.context->>'amount')::bigint"),
    Column("currency", pl.String(), "assessment.context->>'currency'"),
    Column("decided", pl.String(), "assessment.decision"),
)
_FROM = """
FROM fraud_assessment assessment
WHERE assessment.created_at >= %(since)s AND assessment.created_at < %(until)s
  AND assessment.context ? 'stage'
  AND (assessment.stage = 'after' OR NOT EXISTS (
        SELECT FROM fraud_assessment later WHERE later.order_id = assessment.order_id AND later.stage = 'after'))
  AND abs(hashtext(assessment.order_id)::bigint) %% {readers} = {reader}
"""
_LABELS = "SELECT order_id, is_fraud FROM fraud_effective_label"


@dataclass(frozen=True, slots=True)
class Period:
    """Orders screened from `since` on, before `until`."""

    since: datetime
    until: datetime


def load_history(period: Period, columns: Iterable[Column]) -> pl.DataFrame:
    """One row for each order, by its last screening; `is_fraud` is null where nobody has said.

    Read by connections of its own, outside the caller's transaction. Raises `psycopg.Error`.
    """
    wanted = {column.name: column for column in (*BASE, *columns)}
    with ThreadPoolExecutor(READERS + 1) as pool:
        labels = pool.submit(_copy, _LABELS, {}, {"order_id": pl.String(), "is_fraud": pl.Boolean()})
        parts = [pool.submit(_read_part, reader, period, tuple(wanted.values())) for reader in range(READERS)]
        history = pl.concat([part.result() for part in parts])
    return history.unique("order_id", keep="any").join(labels.result(), on="order_id", how="left")


def _read_part(reader: int, period: Period, columns: Sequence[Column]) -> pl.DataFrame:
    selected = ", ".join(column.sql.replace("%", "%%") for column in columns)
    statement = f"SELECT {selected} {_FROM.format(readers=READERS, reader=reader)}"
    parameters = {"since": period.since, "until": period.until}
    return _copy(statement, parameters, {column.name: column.dtype for column in columns})


def _copy(
    statement: str, parameters: Mapping[str, object], schema: Mapping[str, pl.DataType]
) -> pl.DataFrame:
    """The rows of a query, by COPY: what PostgreSQL writes fastest and polars reads fastest."""
    read = io.BytesIO()
    with (
        psycopg.connect(_own_conninfo()) as own,
        own.cursor() as cursor,
        cursor.copy(f"COPY ({statement}) TO STDOUT (FORMAT csv)", parameters) as copy,
    ):
        for block in copy:
            read.write(block)
    if not read.tell():
        return pl.DataFrame(schema=dict(schema))
    read.seek(0)
    flags = [name for name, dtype in schema.items() if dtype == pl.Boolean()]
    as_text = {name: pl.String() if name in flags else dtype for name, dtype in schema.items()}
    frame = pl.read_csv(read, has_header=False, schema=as_text)
    return frame.with_columns(pl.col(name) == "t" for name in flags)  # PostgreSQL writes t and f


def _own_conninfo() -> str:
    """How to reach the database of this process (a test's too) on a connection of one's own: all that libpq knows."""
    words = {option.keyword.decode() for option in Conninfo.get_defaults()}
    known = connection.get_connection_params()
    return make_conninfo(**{name: value for name, value in known.items() if name in words and value})
