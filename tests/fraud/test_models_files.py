"""Reading a model's file: what is missing, wrong or dangerous is a status, never a failed checkout."""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from fraud.scores.base import ScoreStatus
from fraud.scores.features import FeatureSpec
from fraud.scores.model import Model, ModelScorer

CONTEXT = {"amount": 1999, "currency": "EUR"}


def write(folder: Path, content: bytes = b"x", *, suffix: str = ".onnx", **changes: Any) -> ModelScorer:
    path = folder / f"model{suffix}"
    path.write_bytes(content)
    description = {"version": "3", "features": ["amount"], "means": {}, **changes}
    path.with_suffix(".json").write_text(json.dumps(description))
    return ModelScorer(path)


def refused(scorer: ModelScorer) -> str:
    score = scorer.score(CONTEXT)
    assert (score.status, score.value) == (ScoreStatus.ERROR, None)
    return score.error


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    assert "model.json is missing" in refused(ModelScorer(tmp_path / "model.onnx"))
    scorer = write(tmp_path)
    scorer.path.unlink()
    assert "cannot be read" in refused(scorer)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sha256": "0" * 64}, "not the file"),
        ({"features": ["shoe_size"]}, "shoe_size"),
        ({"features": None}, "features cannot be read"),
        ({"means": {"amount": "much"}}, "features cannot be read"),
        ({"means": [1]}, "features cannot be read"),
    ],
)
def test_a_wrong_description_is_told(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    assert why in refused(write(tmp_path, **changes))


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_description_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    scorer = write(tmp_path)
    scorer.path.with_suffix(".json").write_text(text)
    assert "description" in refused(scorer)


class Bomb:
    """A pickle of it runs what it likes where it is read."""

    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('the pickle ran')",)


@pytest.mark.parametrize("suffix", [".pkl", ".pickle", ".joblib", ".skops", ".onnx"])
def test_a_pickle_is_never_read_whatever_it_is_called(tmp_path: Path, suffix: str) -> None:
    scorer = write(tmp_path, pickle.dumps(Bomb()), suffix=suffix)
    assert refused(scorer)


@pytest.mark.parametrize(("suffix", "library"), [(".onnx", "onnxruntime"), (".skops", "skops")])
def test_a_missing_library_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"{library}.io", raising=False)
    monkeypatch.delitem(sys.modules, f"fraud.scores.{suffix[1:]}_file", raising=False)
    assert "needs the library" in refused(write(tmp_path, suffix=suffix))


def test_a_failure_is_kept_too_and_not_tried_again(tmp_path: Path) -> None:
    scorer = ModelScorer(tmp_path / "model.onnx")
    first = refused(scorer)
    write(tmp_path)
    assert refused(scorer) == first


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), -0.1, 1.1, "0.5", None, True])
def test_what_a_model_says_is_checked(tmp_path: Path, answer: Any) -> None:
    scorer = ModelScorer(tmp_path / "model.onnx")
    scorer._loaded = Model("3", "d" * 64, FeatureSpec(("amount",)), lambda row: answer)
    score = scorer.score(CONTEXT)
    assert (score.status, score.value, score.version) == (ScoreStatus.ERROR, None, "3 dddddddddddd")


def test_facts_that_make_no_sense_are_an_error(tmp_path: Path) -> None:
    scorer = ModelScorer(tmp_path / "model.onnx")
    scorer._loaded = Model("3", "d" * 64, FeatureSpec(("amount",)), lambda row: 0.5)
    assert scorer.score({"amount": "much"}).status is ScoreStatus.ERROR
    assert scorer.score(CONTEXT).value == 0.5


class TestScikitLearn:
    """Models in the skops format."""

    @pytest.fixture
    def classifier(self) -> Any:
        linear = pytest.importorskip("sklearn.linear_model")
        pytest.importorskip("skops")
        return linear.LogisticRegression().fit([[0.0], [9.0]], [0, 1])

    def test_it_scores(self, tmp_path: Path, classifier: Any) -> None:
        content = pytest.importorskip("skops.io").dumps(classifier)
        scorer = write(tmp_path, content, suffix=".skops", sha256=hashlib.sha256(content).hexdigest())
        score = scorer.score(CONTEXT)
        assert score.status is ScoreStatus.OK
        assert score.value == pytest.approx(classifier.predict_proba([[3.04452]])[0, 1], abs=1e-4)
        assert score.version == f"3 {hashlib.sha256(content).hexdigest()[:12]}"

    def test_types_that_nobody_vouches_for_are_refused(self, tmp_path: Path, classifier: Any) -> None:
        classifier.extra = write
        content = pytest.importorskip("skops.io").dumps(classifier)
        assert "not trusted" in refused(write(tmp_path, content, suffix=".skops"))
