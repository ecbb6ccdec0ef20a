"""Rules written as code, for what the rule language cannot say, and their typed parameters."""

from fraud.rules.code import CODE_RULES, CodeRule, register
from fraud.rules.parameters import ParameterError, Parameters

__all__ = ["CODE_RULES", "CodeRule", "ParameterError", "Parameters", "register"]
