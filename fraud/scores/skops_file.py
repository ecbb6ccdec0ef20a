"""Reads a scikit-learn model in the skops format: known types alone, no code."""

from __future__ import annotations

import numpy
import skops.io

from fraud.scores.base import ScoreError
from fraud.scores.model import Predict


def read(content: bytes) -> Predict:
    """A classifier with `predict_proba`. Raises `ScoreError` for types that skops does not trust by itself."""
    untrusted = skops.io.get_untrusted_types(data=content)
    if untrusted:
        raise ScoreError(f"the model holds types that are not trusted: {', '.join(untrusted)[:100]}")
    classifier = skops.io.loads(content)

    def predict(row: list[float]) -> float:
        return float(classifier.predict_proba(numpy.asarray([row], dtype=numpy.float64))[0, 1])

    return predict
