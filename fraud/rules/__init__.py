"""The rules that are built in, and their typed parameters, in plain Python."""

from fraud.rules.builtin import KINDS, Finding, Hit, Miss, RuleKind
from fraud.rules.parameters import ParameterError, Parameters, VelocityParameters

__all__ = [
    "KINDS",
    "Finding",
    "Hit",
    "Miss",
    "ParameterError",
    "Parameters",
    "RuleKind",
    "VelocityParameters",
]
