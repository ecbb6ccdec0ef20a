"""The admin pages of fraud."""

from fraud.admin import panels, reviews, rules, rulesets

__all__ = ["panels", "reviews", "rules", "rulesets"]
