"""How long fraud keeps what it knew of an order and counted of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fraud.models import Assessment
from payments.models import Order
from payments.retention import DAYS_90, MONTHS_13, Deed, Rule

# What of an assessment's context is about a person, though masked.
PERSONAL = ("customer_id", "customer_email", "ip", "device", "list_matches")


class FraudData:
    """See payments.retention.DataKeeper."""

    rules: Sequence[Rule] = (
        Rule(
            "fraud_velocityevent",
            Deed.DELETE,
            DAYS_90,
            "at",
            "Orders are counted over a day at most; the rest is for looking into a case.",
        ),
        Rule(
            "fraud_assessment",
            Deed.REDACT,
            MONTHS_13,
            "created_at",
            "The facts of a screening, as long as its payment can be disputed; the verdicts stay.",
            condition=f"row.context ?| ARRAY{list(PERSONAL)!r}",
            changes=f"context = context - ARRAY{list(PERSONAL)!r}",
        ),
    )
    kept: Mapping[str, str] = {
        "fraud_assessment": "What was decided, by which rules: what the rules are worth.",
        "fraud_verdict": "What was decided, by which rules.",
        "fraud_review": "Who decided what, and why.",
        "fraud_ruleset": "Which rules decided when, and who published them.",
        "fraud_rule": "Which rules decided when.",
        "fraud_ruleactivation": "Which rules decided when.",
        "fraud_backtest": "Figures and order ids, no facts of a person.",
        "fraud_label": "What became of an order: what the rules are worth. It names no customer.",
        "fraud_effective_label": "A view of the labels.",
        "fraud_labelcursor": "How far labels were collected: a row for each collector.",
        "fraud_ruleday": "How many orders each rule judged, by day.",
        "fraud_reviewevent": "How a case came to its decision, and by whose hands.",
        "fraud_ruleconfig": "Master data.",
        "fraud_listentry": "Keyed hashes with a masked form, each until its own end.",
    }

    def erase_order(self, order: Order) -> None:
        """The facts as they were. Lists and counts are keyed hashes: they stay, or fraud could be asked away."""
        for assessment in Assessment.objects.filter(order=order):
            context = {name: value for name, value in assessment.context.items() if name not in PERSONAL}
            Assessment.objects.filter(pk=assessment.pk).update(context=context)
