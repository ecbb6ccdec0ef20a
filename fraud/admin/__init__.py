"""The admin pages of fraud."""

from fraud.admin import panels, reviews, rules, rulesets

__all__ = ["panels", "reviews", "rules", "rulesets"]
from fraud.admin import labels, panels, reviews, rules
__all__ = ["labels", "panels", "reviews", "rules"]
