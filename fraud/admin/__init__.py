"""The admin pages of fraud."""

from fraud.admin import backtests, labels, panels, reviews, rules, rulesets

__all__ = ["backtests", "labels", "panels", "reviews", "rules", "rulesets"]
from fraud.admin import lists, panels, reviews, rules, rulesets
__all__ = ["lists", "panels", "reviews", "rules", "rulesets"]
