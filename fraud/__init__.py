"""Fraud screening and review; its plain words can be imported from here.

Where to look, from an order's screening outwards:

- screening: what payments calls; gathering collects the facts (velocity, lists, links, history), scores asks models,
  decision judges by the rules in force (live, plans), authentication settles 3-D Secure.
- facts, language, rules: the vocabulary of rules, its own small language with three back ends, rules written as code.
- rulesets, rehearsal, backtest: drafts, four eyes and publishing; what a draft would have done to past orders.
- services, cases, policy: the review queue; what an analyst does, reads on one case, and what the clock does.
- collector, outcomes, labels, measures: what became of orders, and what rules and reviews are worth by it.

Each module stands on those of lower layers alone: see "inside fraud, calls go down" in pyproject.toml.
"""

from fraud.decision import FraudResult, RuleVerdict
from fraud.facts import FraudContext
from payments.decisions import Decision

__all__ = ["Decision", "FraudContext", "FraudResult", "RuleVerdict"]
