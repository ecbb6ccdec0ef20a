"""What a back-test found, in figures that can be stored and shown: counts, money, labels, differences, examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from fraud.backtest.replay import FrameRule
from payments.decisions import Decision

EXAMPLES = 20
_FRAUD, _GENUINE = pl.col("is_fraud").fill_null(False), ~pl.col("is_fraud").fill_null(True)
_STOPPED = pl.col("decision") != Decision.APPROVE.value


def describe_set(judged: pl.DataFrame) -> dict[str, Any]:
    """How the set decides: orders and money by decision, and how that fits the labels.

    `caught` and `missed` are frauds that it stops or lets pass; `bothered` are genuine orders that it stops.
    """
    counts = judged.group_by("decision").len().sort("decision")
    return {
        "decisions": dict(counts.iter_rows()),
        "money": _money_by(judged, "decision"),
        **_count_labels(judged, _STOPPED),
    }


def describe_rules(rules: Sequence[FrameRule], judged: pl.DataFrame) -> list[dict[str, Any]]:
    """Each rule's hits whatever its mode: how many, for how much, and how many of them were fraud."""
    return [_describe_rule(rule, judged) for rule in rules]


def compare_sets(judged: pl.DataFrame, beside: pl.DataFrame) -> list[dict[str, Any]]:
    """Each change from `beside` to the set: orders, money, labels, and examples, the largest amounts first."""
    both = judged.join(beside.select("order_id", before="decision"), on="order_id")
    changed = both.filter(pl.col("before") != pl.col("decision"))
    groups = changed.group_by("before", "decision", maintain_order=False)
    found = [_describe_change(str(before), str(after), rows) for (before, after), rows in groups]
    return sorted(found, key=lambda change: -int(change["orders"]))


def describe_sweep_value(value: Any, hit: pl.Expr, judged: pl.DataFrame) -> dict[str, Any]:
    """One point of a sweep: what the set decides and the rule says with this value of its parameter."""
    return {
        "value": value,
        "hits": _count(judged, hit),
        "hit_fraud": _count(judged, hit & _FRAUD),
        "hit_genuine": _count(judged, hit & _GENUINE),
        **_count_labels(judged, _STOPPED),
    }


def _describe_rule(rule: FrameRule, judged: pl.DataFrame) -> dict[str, Any]:
    hit = pl.col(rule.hit).fill_null(False)
    return {
        "key": rule.row.key,
        "name": rule.row.name,
        "mode": rule.row.mode,
        "hits": _count(judged, hit),
        "cannot_tell": _count(judged, pl.col(rule.hit).is_null()),
        "hit_fraud": _count(judged, hit & _FRAUD),
        "hit_genuine": _count(judged, hit & _GENUINE),
        "money": _money(judged.filter(hit)),
        "examples": _examples(judged.filter(hit)),
    }


def _describe_change(before: str, after: str, rows: pl.DataFrame) -> dict[str, Any]:
    return {
        "before": before,
        "after": after,
        "orders": rows.height,
        "fraud": _count(rows, _FRAUD),
        "genuine": _count(rows, _GENUINE),
        "money": _money(rows),
        "examples": _examples(rows),
    }


def _count_labels(judged: pl.DataFrame, stopped: pl.Expr) -> dict[str, int]:
    return {
        "orders": judged.height,
        "stopped": _count(judged, stopped),
        "labelled": _count(judged, pl.col("is_fraud").is_not_null()),
        "caught": _count(judged, stopped & _FRAUD),
        "missed": _count(judged, ~stopped & _FRAUD),
        "bothered": _count(judged, stopped & _GENUINE),
    }


def _count(frame: pl.DataFrame, condition: pl.Expr) -> int:
    return int(frame.select(condition.sum()).item() or 0)


def _money(rows: pl.DataFrame) -> dict[str, int]:
    """Minor units by currency: amounts of different currencies are never added."""
    return dict(rows.group_by("currency").agg(pl.col("amount").sum()).sort("currency").iter_rows())


def _money_by(judged: pl.DataFrame, column: str) -> Mapping[str, dict[str, int]]:
    return {str(value): _money(rows) for (value,), rows in judged.group_by(column)}


def _examples(rows: pl.DataFrame) -> list[str]:
    return [str(order_id) for order_id in rows.top_k(EXAMPLES, by="amount")["order_id"]]
