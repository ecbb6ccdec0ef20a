"""The admin pages of fraud."""

from fraud.admin import panels, reviews, rules

__all__ = ["panels", "reviews", "rules"]
