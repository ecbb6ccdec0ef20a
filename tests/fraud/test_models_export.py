"""The training export: labelled, masked, in chunks; and the drift of what a model said."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.utils import timezone

from fraud.facts import FACTS
from fraud.labels import label_decision
from fraud.models import Assessment
from fraud.scores import export
from fraud.scores.drift import MIN_SCORES, measure_drift, read_model_scores
from fraud.scores.evaluation import Distribution
from fraud.scores.export import COLUMNS, SCHEMA, load_labels
from fraud.scores.features import FEATURES, FeatureSpec
from fraud.scores.model import Model
from payments.models import Payment
from tests.factories.fraud import AssessmentFactory, ReviewFactory, VerdictFactory

pytestmark = pytest.mark.django_db
CONTEXT = {
    "stage": "before",
    "amount": 12950,
    "currency": "EUR",
    "assessed_at": 1_790_000_000,
    "is_guest": True,
    "orders_before": 2,
    "customer_id": "cus_secret",
    "customer_email": "b***r@example.com",
    "email_domain": "example.com",
    "ip": "198.51.100.7",
    "device": "device-secret",
    "card_last4": "4242",
    "velocity": {"card:3600": 3},
    "list_matches": [{"list": "review", "kind": "email", "value": "b***r@example.com"}],
}


def decide(assessment: Assessment, state: str, reason: str = "") -> None:
    review = ReviewFactory.create(
        assessment=assessment,
        state=state,
        reason_code=reason,
        decided_at=timezone.now(),
        decided_by="user:ana",
    )
    label_decision(review)


def run(out: Path, capsys: pytest.CaptureFixture[str], **options: Any) -> tuple[pl.DataFrame, str]:
    call_command("export_training_data", out=out, **options)
    return pl.read_parquet(out), capsys.readouterr().out


def test_labels_are_what_reviews_ended_with() -> None:
    ended = {
        ("approved", "genuine"): False,
        ("rejected", "confirmed_fraud"): True,
        ("rejected", "stolen_card"): True,
        ("rejected", "policy_abuse"): None,
        ("expired", ""): None,
    }
    orders = {}
    for (state, reason), is_fraud in ended.items():
        assessment = AssessmentFactory.create()
        decide(assessment, state, reason)
        orders[assessment.order_id] = is_fraud
    orders[AssessmentFactory.create().order_id] = None
    labels = load_labels(list(orders))
    assert {order: labels[order].is_fraud if order in labels else None for order in orders} == orders
    assert {label.source for label in labels.values()} == {"decision"}


def test_each_screening_is_a_row_with_facts_features_verdicts_and_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "CHUNK", 2)
    screened = [AssessmentFactory.create(context=CONTEXT, stage="before") for _ in range(5)]
    decide(screened[0], "rejected", "stolen_card")
    decide(screened[3], "approved", "genuine")
    VerdictFactory.create(assessment=screened[1], points=30)
    AssessmentFactory.create(context={"error": ["screening failed"]})
    frame, told = run(tmp_path / "orders.parquet", capsys)
    assert told.startswith("5 screenings, 2 with a label, 1 of them fraud: ")
    assert frame.schema == SCHEMA
    assert frame["is_fraud"].to_list() == [True, None, None, False, None]
    assert frame["assessment_id"].to_list() == [each.pk for each in screened]
    first = frame.row(0, named=True)
    assert (first["amount"], first["orders_before"], first["lists"]) == (12950, 2.0, ["review.email"])
    assert json.loads(first["velocity"]) == {"card:3600": 3}
    assert first["feature_on_review_list"] == 1.0
    assert first["feature_paid_before"] is None
    assert frame.row(1, named=True)["verdicts"] == [
        {"rule": "Card velocity", "kind": "expression", "status": "hit", "points": 30}
    ]
    assert frame["customer_key"].n_unique() == 1


def test_nothing_personal_is_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    AssessmentFactory.create(context=CONTEXT)
    frame, _ = run(tmp_path / "orders.parquet", capsys)
    told = frame.write_json()
    for secret in ("cus_secret", "b***r", "198.51.100.7", "device-secret", "4242"):
        assert secret not in told


def test_every_column_is_described_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "orders.parquet", capsys)
    described = json.loads((tmp_path / "orders.dictionary.json").read_text())
    assert [each["name"] for each in described] == SCHEMA.names()
    assert len(COLUMNS) == len(SCHEMA)
    assert {*FACTS, *(f"feature_{name}" for name in FEATURES)} <= set(SCHEMA.names())
    assert all(each["help"] for each in described)


def test_days_are_of_utc_and_the_last_is_left_out(tmp_path: Path) -> None:
    for hour in (-1, 0, 23, 24):
        with time_machine.travel(datetime(2026, 3, 2, tzinfo=UTC) + timedelta(hours=hour), tick=False):
            AssessmentFactory.create(context=CONTEXT)
    out = tmp_path / "orders.parquet"
    days = ["--since", "2026-03-02", "--until", "2026-03-03"]
    call_command("export_training_data", *days, "--out", str(out))
    assert pl.read_parquet(out)["at"].dt.hour().to_list() == [0, 23]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--since", "2026-03-03", "--until", "2026-03-02", "--out", "x.parquet"], "not before"),
        (["--since", "yesterday", "--out", "x.parquet"], "since"),
        (["--out", "x.csv"], "parquet"),
        (["--out", "/nowhere/x.parquet"], "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_said(arguments: list[str], why: str) -> None:
    with pytest.raises(CommandError, match=why):
        call_command("export_training_data", *arguments)


# --- drift --------------------------------------------------------------------------------------------------


def make_model(version: str = "1", training: Distribution | None = None) -> Model:
    return Model(version, "d" * 64, FeatureSpec(()), lambda row: 0.5, training)


def say(payment: Payment, score: float, model: Model, *, stage: str = "before") -> None:
    told = {"model": {"status": "ok", "value": score, "version": model.label}}
    context = {**CONTEXT, "model_score": score, "scores": told}
    AssessmentFactory.create(context=context, stage=stage, payment=payment)


def test_drift_compares_the_last_week_of_this_model_with_its_training() -> None:
    model, older = make_model(training=Distribution((0.5,), (0.5, 0.5))), make_model("0")
    payment = AssessmentFactory.create().payment
    with time_machine.travel(timezone.now() - timedelta(days=8)):
        say(payment, 0.9, model)
    say(payment, 0.9, older)
    say(payment, 0.9, model, stage="after")
    assert (measure_drift(model).scores, measure_drift(model).reading) == (0, "unknown")
    for number in range(MIN_SCORES):
        say(payment, 0.2 if number % 2 else 0.8, model)
    drift = measure_drift(model, now=timezone.now() + timedelta(seconds=1))
    assert (drift.scores, drift.reading) == (MIN_SCORES, "stable")
    assert drift.index == pytest.approx(0)
    now = timezone.now()
    assert sorted(set(read_model_scores(model, since=now - timedelta(days=9), until=now))) == [0.2, 0.8, 0.9]
    assert measure_drift(make_model(training=None)).index is None
