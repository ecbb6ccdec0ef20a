"""The admin pages of fraud."""

from fraud.admin import backtests, labels, lists, panels, reviews, rules, rulesets

__all__ = ["backtests", "labels", "lists", "panels", "reviews", "rules", "rulesets"]
