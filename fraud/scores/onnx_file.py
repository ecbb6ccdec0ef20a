"""Reads a model in the ONNX format: a graph of arithmetic, nothing that could run by being read."""

from __future__ import annotations

import numpy
import onnxruntime

from fraud.scores.base import ScoreError
from fraud.scores.model import Predict

ROUNDING = 1e-6  # single precision may end a hair above 1


def read(content: bytes) -> Predict:
    """A classifier of one row of floats whose last output is the probabilities. Raises what the library raises."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # one row; the processes share the cores
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name, output = session.get_inputs()[0].name, session.get_outputs()[-1].name

    def predict(row: list[float]) -> float:
        (answer,) = session.run([output], {name: numpy.asarray([row], dtype=numpy.float32)})
        if not isinstance(answer, numpy.ndarray) or answer.shape != (1, 2):
            raise ScoreError("the model's last output is not the probabilities of two classes (zipmap off)")
        value = float(answer[0, 1])
        return float(round(value)) if abs(value - round(value)) < ROUNDING else value

    return predict
