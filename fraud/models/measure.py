"""How many orders each rule judged on each day: counted once the day is over, as it takes long to count."""

from __future__ import annotations

from django.db import models


class RuleDay(models.Model):
    """One rule on one day, by UTC. A count kept, never a truth: it could be made anew from the verdicts."""

    rule = models.CharField(max_length=80)
    day = models.DateField()
    judged = models.PositiveIntegerField(help_text="Orders, each once.")

    class Meta:
        ordering = ["day", "rule"]
        constraints = [models.UniqueConstraint(fields=["day", "rule"], name="fraud_rule_day_once")]

    def __str__(self) -> str:
        return f"{self.rule} on {self.day}"
