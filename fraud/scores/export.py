"""Writes screened orders with their labels as Parquet, for training and for whoever asks what the rules are worth."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from django.db.models import Prefetch

from fraud.facts import FACTS, FactType
from fraud.models import Assessment, EffectiveLabel, Verdict
from fraud.scores.features import FEATURES, raw_features
from payments.encryption import keyed_hash
from payments.ids import lowest_id

CHUNK = 5_000
PURPOSE = "training"  # of the keyed hashes: they fit no list and no count of ours


@dataclass(frozen=True, slots=True)
class KnownLabel:
    """What became of an order, who says so, and since when."""

    is_fraud: bool
    source: str
    at: datetime


def load_labels(order_ids: Sequence[str]) -> dict[str, KnownLabel]:
    """The label that counts of each order that has one."""
    rows = EffectiveLabel.objects.filter(order_id__in=order_ids)
    return {
        order_id: KnownLabel(is_fraud, source, at)
        for order_id, is_fraud, source, at in rows.values_list("order_id", "is_fraud", "source", "at")
    }


# --- the columns --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: Any  # of polars
    help: str


_TYPES = {
    FactType.NUMBER: pl.Float64(),
    FactType.MONEY: pl.Int64(),
    FactType.TEXT: pl.String(),
    FactType.BOOLEAN: pl.Boolean(),
    FactType.TIME: pl.Int64(),
}
_UNITS = {FactType.MONEY: " In minor units.", FactType.TIME: " In seconds since 1970."}
_VERDICT = pl.Struct({"rule": pl.String(), "kind": pl.String(), "status": pl.String(), "points": pl.Int64()})
COLUMNS: tuple[Column, ...] = (
    Column("assessment_id", pl.String(), "The screening."),
    Column("order_id", pl.String(), "The order: it may be screened twice."),
    Column(
        "customer_key", pl.String(), "A keyed hash of the customer, to keep one customer's orders together."
    ),
    Column("stage", pl.String(), "before or after the authorization."),
    Column("at", pl.Datetime("us", "UTC"), "When it was screened."),
    Column("decision", pl.String(), "What was decided then: approve, challenge, review or block."),
    Column("points", pl.Int64(), "The points of all rules."),
    Column("is_fraud", pl.Boolean(), "The label; null: nobody knows."),
    Column("label_source", pl.String(), "Who says so."),
    Column("labelled_at", pl.Datetime("us", "UTC"), "Since when it is known."),
    *(Column(fact.name, _TYPES[fact.type], fact.help + _UNITS.get(fact.type, "")) for fact in FACTS.values()),
    Column("velocity", pl.String(), "Every count, as JSON: “card:3600” is orders of this card in an hour."),
    Column(
        "lists", pl.List(pl.String()), "The lists that something of the order is on, such as block.email."
    ),
    Column("verdicts", pl.List(_VERDICT), "What each rule said."),
    *(
        Column(f"feature_{name}", pl.Float64(), f"What a model is told as {name!r}; null: not known.")
        for name in FEATURES
    ),
)
SCHEMA = pl.Schema({column.name: column.type for column in COLUMNS})


@dataclass(frozen=True, slots=True)
class Export:
    """What was written."""

    rows: int
    labelled: int
    fraud: int


def export_training_data(out: Path, *, since: datetime, until: datetime) -> Export:
    """Write `out` and its data dictionary beside it (`.dictionary.json`); one chunk is in memory at a time.

    Raises `OSError` when the files cannot be written.
    """
    rows = labelled = fraud = 0
    with TemporaryDirectory(dir=out.parent) as folder:
        for number, chunk in enumerate(read_chunks(since=since, until=until)):
            frame = pl.DataFrame(chunk, schema=SCHEMA, strict=False)
            frame.write_parquet(Path(folder) / f"{number:06}.parquet")
            rows += frame.height
            labelled += frame["is_fraud"].count()
            fraud += int(frame["is_fraud"].sum())
        if not rows:
            pl.DataFrame(schema=SCHEMA).write_parquet(Path(folder) / "empty.parquet")
        pl.scan_parquet(Path(folder) / "*.parquet").sink_parquet(out)
    out.with_suffix(".dictionary.json").write_text(json.dumps(describe_columns(), indent=2) + "\n")
    return Export(rows, labelled, fraud)


def describe_columns() -> list[dict[str, str]]:
    """The data dictionary."""
    return [{"name": each.name, "type": str(each.type), "help": each.help} for each in COLUMNS]


# --- the rows -----------------------------------------------------------------------------------------------


def read_chunks(*, since: datetime, until: datetime) -> Iterator[list[dict[str, Any]]]:
    """The screenings of [since, until), oldest first, by the ids' order of time."""
    last, end = lowest_id("asm", since.astimezone(UTC)), lowest_id("asm", until.astimezone(UTC))
    verdicts = Prefetch("verdicts", Verdict.objects.order_by("id"))
    while True:
        page = Assessment.objects.filter(pk__gt=last, pk__lt=end).order_by("pk")
        found = list(page.prefetch_related(verdicts)[:CHUNK])
        if not found:
            return
        labels = load_labels([each.order_id for each in found])
        yield [_make_row(each, labels.get(each.order_id)) for each in found if "amount" in each.context]
        last = found[-1].pk


def _make_row(assessment: Assessment, label: KnownLabel | None) -> dict[str, Any]:
    context = assessment.context
    return {
        "assessment_id": assessment.pk,
        "order_id": assessment.order_id,
        "customer_key": _hash(context.get("customer_id", "")),
        "stage": assessment.stage,
        "at": assessment.created_at,
        "decision": assessment.decision,
        "points": assessment.score,
        "is_fraud": label.is_fraud if label else None,
        "label_source": label.source if label else None,
        "labelled_at": label.at if label else None,
        **{name: _read_fact(context, name) for name in FACTS},
        "velocity": json.dumps(context.get("velocity", {}), sort_keys=True),
        "lists": sorted({f"{match['list']}.{match['kind']}" for match in context.get("list_matches", ())}),
        "verdicts": [_describe(verdict) for verdict in assessment.verdicts.all()],
        **{f"feature_{name}": value for name, value in raw_features(context).items()},
    }


def _read_fact(context: Mapping[str, Any], name: str) -> Any:
    value = context.get(name)
    return float(value) if FACTS[name].type is FactType.NUMBER and value is not None else value


def _describe(verdict: Verdict) -> dict[str, Any]:
    return {
        "rule": verdict.rule_name,
        "kind": verdict.rule_kind,
        "status": verdict.status,
        "points": verdict.points,
    }


def _hash(value: str) -> str | None:
    return keyed_hash(value, purpose=PURPOSE) if value else None
