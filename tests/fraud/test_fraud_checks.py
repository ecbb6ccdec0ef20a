"""The system checks of fraud: a setting that is wrong is told at the start, not by the first order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from fraud.checks import check_authentication, check_scores

URL = "https://risk.example/score"


def ids(settings: Settings, **values: Any) -> list[str | None]:
    for name, value in values.items():
        setattr(settings, name, value)
    return [message.id for message in (*check_authentication(), *check_scores())]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, []),
        ({"SCA_FRAUD_RATE": "low"}, ["fraud.E001"]),
        ({"SCA_ENABLED": True}, ["fraud.W001"]),
        ({"SCA_ENABLED": True, "SCA_MERCHANT_COUNTRY": "DE"}, []),
        ({"FRAUD_RISK_URL": URL}, ["fraud.E002"]),
        ({"FRAUD_RISK_URL": URL, "FRAUD_RISK_SECRET": "s"}, []),
        (
            {"FRAUD_RISK_URL": URL, "FRAUD_RISK_SECRET": "s", "FRAUD_RISK_TIMEOUT_MS": 60_000},
            ["fraud.E002"],
        ),
        ({"FRAUD_RISK_URL": URL, "FRAUD_RISK_SECRET": "s", "FRAUD_RISK_TIMEOUT_MS": 0}, ["fraud.E002"]),
        ({"FRAUD_RISK_URL": "http://risk.example", "FRAUD_RISK_SECRET": "s"}, ["fraud.E002"]),
        ({"FRAUD_RISK_URL": "https://risk.example:x", "FRAUD_RISK_SECRET": "s"}, ["fraud.E002"]),
        (
            {
                "FRAUD_RISK_URL": "http://risk.local",
                "FRAUD_RISK_SECRET": "s",
                "FRAUD_RISK_ALLOW_PRIVATE": True,
            },
            [],
        ),
        ({"FRAUD_MODEL_PATH": "/nowhere/model.onnx"}, ["fraud.W002"]),
    ],
)
def test_settings_are_checked(settings: Settings, values: dict[str, Any], expected: list[str]) -> None:
    assert ids(settings, **values) == expected


def test_a_model_with_its_description_is_fine(settings: Settings, tmp_path: Path) -> None:
    for name in ("model.onnx", "model.json"):
        (tmp_path / name).write_text("{}")
    assert ids(settings, FRAUD_MODEL_PATH=str(tmp_path / "model.onnx")) == []
