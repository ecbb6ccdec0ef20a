"""The admin pages of fraud."""

from fraud.admin import assessments, backtests, labels, lists, panels, records, reviews, rulesets

__all__ = ["assessments", "backtests", "labels", "lists", "panels", "records", "reviews", "rulesets"]
