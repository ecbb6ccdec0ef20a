"""How long fraud keeps what it knew of an order and counted of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fraud.models import Assessment
from payments.models import Order
from payments.retention import DAYS_30, DAYS_90, MONTHS_13, Deed, Rule

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
            "Orders are counted over thirty days at most; the rest is for looking into a case.",
        ),
        Rule(
            "fraud_entitylink",
            Deed.DELETE,
            MONTHS_13,
            "at",
            "Keyed hashes of what orders share, as long as their payments can be disputed.",
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
        Rule(
            "fraud_listimportline",
            Deed.DELETE,
            DAYS_30,
            "created_at",
            "What a file would have done; what it did is in the history of the entries.",
        ),
        Rule(
            "fraud_listhit",
            Deed.DELETE,
            DAYS_90,
            "at",
            "Hits are added to their entry within a minute; these belong to an entry that is gone.",
        ),
        Rule(
            "fraud_listchange",
            Deed.DELETE,
            MONTHS_13,
            "at",
            "The history of an entry that ended long ago, whose orders can be disputed no more.",
            condition="EXISTS (SELECT FROM fraud_listentry entry WHERE entry.id = row.entry_id "
            "AND entry.expires_at < %(before)s)",
            is_guarded=True,
        ),
        Rule(
            "fraud_listentry",
            Deed.DELETE,
            MONTHS_13,
            "expires_at",
            "A value that is on no list any more, once its history is gone.",
            condition="NOT EXISTS (SELECT FROM fraud_listchange change WHERE change.entry_id = row.id)",
            follows_time=False,
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
        "fraud_ruleday": "How many orders each rule judged, by day.",
        "fraud_reviewevent": "How a case came to its decision, and by whose hands.",
        "fraud_eventposition": "One row per reader of payments' events.",
        "fraud_listentry": "Keyed hashes with a masked form, each until its own end.",
        "fraud_listchange": "Who put what on a list or took it off, as long as it is in force.",
        "fraud_listimport": "Who brought which file, by its hash; no value of it.",
    }

    def erase_order(self, order: Order) -> None:
        """The facts as they were. Lists, links and counts are keyed hashes: they stay, or fraud could be asked away."""
        for assessment in Assessment.objects.filter(order=order):
            context = {name: value for name, value in assessment.context.items() if name not in PERSONAL}
            Assessment.objects.filter(pk=assessment.pk).update(context=context)
