"""Fraud screening and review; its plain words can be imported from here."""

from fraud.decision import FraudResult, RuleVerdict
from fraud.facts import FraudContext
from payments.decisions import Decision

__all__ = ["Decision", "FraudContext", "FraudResult", "RuleVerdict"]
