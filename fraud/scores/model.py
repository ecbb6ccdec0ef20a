"""The shop's own model: a file with a description beside it, read once, and asked for one order at a time."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import structlog

from fraud.scores.base import RiskScore, ScoreError, ScoreStatus, check_value, failed
from fraud.scores.evaluation import Distribution
from fraud.scores.features import Context, FeatureSpec, features

logger = structlog.stdlib.get_logger(__name__)

# Libraries that are not installed everywhere are imported with the first model that needs them. No pickle, whatever
# is asked for: reading one runs the code that is in it, so a file could do anything that this process may.
READERS = {".onnx": "fraud.scores.onnx_file", ".skops": "fraud.scores.skops_file"}
Predict = Callable[[list[float]], float]
PROVIDER = "model"


@dataclass(frozen=True, slots=True)
class Model:
    """A model ready to use. `digest` is the SHA-256 of its file."""

    version: str
    digest: str
    spec: FeatureSpec
    predict: Predict
    training: Distribution | None = None  # of its scores; without it no drift is told

    @property
    def label(self) -> str:
        """What is kept with each score: the version, and which file it really was."""
        return f"{self.version} {self.digest[:12]}"


def load_model(path: Path) -> Model:
    """Read the model and the JSON of its name beside it. Raises `ScoreError` saying what is wrong with them."""
    description = _read_description(path.with_suffix(".json"))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ScoreError(f"the model {path.name} cannot be read: {error.strerror}") from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != description.get("sha256", digest):
        raise ScoreError(f"the model {path.name} is not the file that its description names (sha256)")
    return Model(
        version=str(description.get("version") or "unnamed")[:20],
        digest=digest,
        spec=_read_spec(description),
        predict=_find_reader(path)(content),
        training=_read_training(description),
    )


def _read_description(path: Path) -> Mapping[str, Any]:
    try:
        description = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise ScoreError(f"the model's description {path.name} is missing or no JSON") from None
    if not isinstance(description, dict):
        raise ScoreError(f"the model's description {path.name} is no JSON object")
    return description


def _read_spec(description: Mapping[str, Any]) -> FeatureSpec:
    try:
        means = {name: float(mean) for name, mean in description.get("means", {}).items()}
        return FeatureSpec(tuple(description["features"]), means)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ScoreError(f"the model's features cannot be read: {error}") from None


def _read_training(description: Mapping[str, Any]) -> Distribution | None:
    try:
        told = description.get("training") or {}
        return Distribution(tuple(told["edges"]), tuple(told["shares"])) if told else None
    except (KeyError, TypeError, AttributeError):
        raise ScoreError("the model's training distribution needs edges and shares") from None


def _find_reader(path: Path) -> Callable[[bytes], Predict]:
    if path.suffix not in READERS:
        raise ScoreError(f"a model ends in {' or '.join(READERS)}, not {path.suffix!r}; pickles are not read")
    try:
        reader: Callable[[bytes], Predict] = import_module(READERS[path.suffix]).read
    except ImportError as error:
        raise ScoreError(f"reading {path.suffix} needs the library {error.name}, which is missing") from None
    return reader


@dataclass
class ModelScorer:
    """Loads once and keeps what came of it, a failure too: a model is changed by a new process. Never raises."""

    path: Path
    _loaded: Model | ScoreError | None = field(default=None, init=False)

    def load(self) -> Model:
        """The model. Raises `ScoreError`, the same one each time."""
        if self._loaded is None:
            self._loaded = self._try()
        if isinstance(self._loaded, ScoreError):
            raise self._loaded
        return self._loaded

    def _try(self) -> Model | ScoreError:
        try:
            return load_model(self.path)
        except ScoreError as error:
            logger.error("model_not_loaded", path=str(self.path), error=str(error))
            return error
        except Exception as error:  # a library's own, of a file that is no model
            logger.exception("model_not_loaded", path=str(self.path))
            return ScoreError(f"the model cannot be read: {type(error).__name__}")

    def score(self, context: Context) -> RiskScore:
        """Of the facts of one order, as `FraudContext.to_dict` gives them."""
        started = time.perf_counter_ns()
        version = ""
        try:
            model = self.load()
            version = model.label
            value = check_value(model.predict(features(context, model.spec)))
        except Exception as error:  # whatever it is, the checkout goes on
            return failed(error, provider=PROVIDER, version=version, latency_ms=_milliseconds_since(started))
        return RiskScore(ScoreStatus.OK, value, PROVIDER, version, latency_ms=_milliseconds_since(started))


def _milliseconds_since(started: int) -> int:
    return (time.perf_counter_ns() - started) // 1_000_000
