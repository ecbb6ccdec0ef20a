"""The page about models is true: what it trains from an export is read, scores live orders, and is of some use."""

from __future__ import annotations

import json
import re
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import polars as pl
import pytest
import time_machine
from django.core.management import call_command
from pytest_django import Settings

from fraud.facts import FraudContext
from fraud.models import Assessment
from fraud.scores.base import ScoreStatus
from fraud.scores.evaluation import find_stability_index, measure_thresholds
from fraud.scores.export import export_training_data
from fraud.scores.features import FEATURES, FeatureSpec, features
from fraud.scores.model import Model, ModelScorer, load_model
from fraud.scores.sources import build_verdicts, with_scores
from payments.decisions import Stage
from tests.factories.fraud import AssessmentFactory, LabelFactory

for library in ("onnxruntime", "sklearn", "skl2onnx"):
    pytest.importorskip(library, reason="the libraries of requirements/models.in are not installed")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
ORDERS = 120


def read_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def make_context(dice: Random, *, is_fraud: bool) -> FraudContext:
    """Fraud is dear, of guests, and with many orders of one card; mostly."""
    return FraudContext(
        Stage.BEFORE_AUTHORIZATION,
        amount=dice.randint(200_00, 900_00) if is_fraud else dice.randint(10_00, 400_00),
        currency="EUR",
        assessed_at=dice.randint(1, 86_400 * 1000),
        is_guest=dice.random() < (0.8 if is_fraud else 0.3),
        orders_before=None if dice.random() < 0.2 else dice.randint(0, 1 if is_fraud else 9),
        velocity={"card:3600": dice.randint(2, 6) if is_fraud else dice.randint(1, 2)},
    )


def live_a_past(dice: Random, *, orders: int = ORDERS) -> None:
    """Reviewed orders of fifty days, one in four of them fraud."""
    for number in range(orders):
        is_fraud = dice.random() < 0.25
        with time_machine.travel(BEGIN + timedelta(hours=10 * number), tick=False):
            assessment = AssessmentFactory.create(
                stage="before", context=make_context(dice, is_fraud=is_fraud).to_dict()
            )
            LabelFactory.create(order=assessment.order, is_fraud=is_fraud, at=assessment.created_at)


@pytest.mark.django_db
def test_a_model_trained_by_the_page_scores_live_orders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    live_a_past(Random(7))
    monkeypatch.chdir(tmp_path)
    (command,) = [block for block in read_blocks("bash") if "export_training_data" in block]
    call_command(*shlex.split(command)[2:])
    exec(compile("\n".join(read_blocks("python")), str(PAGE), "exec"), {"__name__": "page"})  # noqa: S102
    assert re.search(r"^0\.5: flags \d+ of 36, catches \d+ of \d+$", capsys.readouterr().out, re.MULTILINE)

    model = load_model(tmp_path / "model.onnx")
    check_use(model)
    settings.FRAUD_MODEL_PATH = str(tmp_path / "model.onnx")
    assessment = Assessment.objects.latest("pk")
    context = make_context(Random(1), is_fraud=True)
    scored = with_scores(context, assessment.order, assessment.payment)
    assert scored.model_score == model.predict(features(context.to_dict(), model.spec))
    (verdict,) = build_verdicts(assessment, scored)
    assert (verdict.rule_kind, verdict.status) == ("model_score", "miss")
    assert f"from model baseline 1 {model.digest[:12]} in " in verdict.value


def check_use(model: Model) -> None:
    """The new orders are scored as the page's own code scores them, better than by chance, and spread as before."""
    dice = Random(8)
    truth = [dice.random() < 0.25 for _ in range(300)]
    scores = [
        model.predict(features(make_context(dice, is_fraud=is_fraud).to_dict(), model.spec))
        for is_fraud in truth
    ]
    (point,) = measure_thresholds(zip(scores, truth, strict=True), [0.5])
    assert point.precision is not None
    assert point.recall is not None
    assert point.precision > 0.6
    assert point.recall > 0.6
    assert model.training is not None
    assert find_stability_index(model.training, [1.0] * 100) > 0.25


@pytest.mark.django_db
def test_export_and_live_give_a_model_the_same_numbers(tmp_path: Path) -> None:
    """What is null in the export is the mean for both."""
    live_a_past(Random(3), orders=20)
    export_training_data(tmp_path / "o.parquet", since=BEGIN, until=BEGIN + timedelta(days=20))
    frame = pl.read_parquet(tmp_path / "o.parquet")
    spec = FeatureSpec(tuple(FEATURES), dict.fromkeys(FEATURES, 0.25))
    for row in frame.iter_rows(named=True):
        stored = Assessment.objects.get(pk=row["assessment_id"]).context
        exported = [row[f"feature_{name}"] for name in spec.names]
        filled = [0.25 if value is None else value for value in exported]
        assert features(stored, spec) == pytest.approx(filled)


@pytest.mark.parametrize("content", [b"", b"\x08\x07garbage"])
def test_a_file_that_is_no_model_is_an_error_and_no_exception(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    path.with_suffix(".json").write_text(json.dumps({"features": ["amount"]}))
    score = ModelScorer(path).score({"amount": 1, "currency": "EUR"})
    assert (score.status, score.value) == (ScoreStatus.ERROR, None)
