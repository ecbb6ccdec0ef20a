"""What scores would catch, beside the rules."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from fraud.measures import Period
from fraud.measures.scores import measure_scores
from fraud.scores.drift import find_model_drift
from tests.factories.fraud import AssessmentFactory, LabelFactory

pytestmark = pytest.mark.django_db


def score(value: float, is_fraud: bool | None, **fields: Any) -> None:
    assessment = AssessmentFactory(
        stage="before", context={"stage": "before", "model_score": value}, **fields
    )
    if is_fraud is not None:
        LabelFactory(order=assessment.order, is_fraud=is_fraud)


def test_each_threshold_has_its_precision_and_recall() -> None:
    for value, is_fraud in (
        (0.95, True),
        (0.6, False),
        (0.55, True),
        (0.2, True),
        (0.05, False),
        (0.8, None),
    ):
        score(value, is_fraud)
    AssessmentFactory(stage="after", context={"stage": "after", "model_score": 0.9})
    [model] = measure_scores(Period.last(7))
    assert (model.name, model.orders) == ("Model score", 6)
    assert [(point.threshold, point.flagged, point.caught, point.fraud) for point in model.points] == [
        (0.1, 4, 3, 3),
        (0.3, 3, 2, 3),
        (0.5, 3, 2, 3),
        (0.7, 1, 1, 3),
        (0.9, 1, 1, 3),
    ]


def test_a_shop_without_scores_reads_nothing_of_them(admin_client: Client) -> None:
    AssessmentFactory(stage="before", context={"stage": "before"})
    assert measure_scores(Period.last(7)) == []
    assert "Model score" not in admin_client.get(reverse("admin:fraud_label_measures")).content.decode()


def test_the_page_shows_them_and_that_the_model_cannot_be_read(
    admin_client: Client, settings: Settings
) -> None:
    settings.FRAUD_MODEL_PATH = "/nowhere/model.onnx"
    assert find_model_drift() is None
    score(0.8, True)
    text = admin_client.get(reverse("admin:fraud_label_measures")).content.decode()
    assert "1 order had it" in text
