"""The screener of settings.PAYMENT_SCREENER: gathers the facts, decides by the rules, keeps every verdict."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from fraud.decision import FraudResult, Rule, decide
from fraud.facts import FraudContext, ListMatch
from fraud.lists import find_matches, mask_email
from fraud.models import Assessment, ListEntry, Review, ReviewState, RuleConfig, Verdict
from fraud.rules import VelocityParameters
from fraud.velocity import Counts, count_order
from payments.decisions import Decision, Stage
from payments.models import Order, Payment
from payments.screening import Screening

# A review ends before the bank lets the authorization go, so that its money can still be voided in order.
EXPIRY_MARGIN = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class _Judged:
    """What `screen` found out and `record` writes down."""

    context: FraudContext
    result: FraudResult
    microseconds: int


class RuleScreener:
    """Decides by the rows of RuleConfig; see payments.screening.Screener."""

    def screen(self, order: Order, payment: Payment, *, stage: Stage) -> Screening:
        """Decide. Raises what the database raises; what that means is the saga's policy."""
        started = time.perf_counter_ns()
        rules = RuleConfig.objects.load()
        prior = None if stage is Stage.BEFORE_AUTHORIZATION else _prior_assessment(order)
        context = gather_facts(order, payment, stage=stage, rules=rules, score=prior.score if prior else 0)
        result = decide(rules, context, wants_review=bool(prior and _wanted_review(prior)))
        judged = _Judged(context, result, (time.perf_counter_ns() - started) // 1000)
        return Screening(
            stage=stage,
            decision=result.decision,
            score=result.score,
            reasons=[verdict.describe() for verdict in result.verdicts if verdict.is_reason],
            data=judged,
        )

    def record(self, order: Order, payment: Payment, screening: Screening) -> None:
        """Keep the decision, the facts and every verdict, in the transaction in which the saga moves on."""
        judged = screening.data
        assessment = Assessment.objects.create(
            order=order,
            payment=payment,
            stage=screening.stage,
            decision=screening.decision,
            score=screening.score,
            context=judged.context.to_dict() if judged else {"error": list(screening.reasons)},
            microseconds=judged.microseconds if judged else 0,
        )
        if judged:
            Verdict.objects.bulk_create(_verdict_rows(assessment, judged.result))

    def open_review(self, order: Order, payment: Payment, *, expires_at: datetime) -> None:
        """Put the order into the queue; of one that is there, only the deadline moves."""
        assessment = order.assessments.first()
        if payment.authorization_expires_at:
            expires_at = min(expires_at, payment.authorization_expires_at - EXPIRY_MARGIN)
        if Review.objects.open().filter(order=order).update(expires_at=expires_at):
            return
        Review.objects.bulk_create(
            [
                Review(
                    order=order,
                    payment=payment,
                    assessment=assessment,
                    score=assessment.score if assessment else 0,
                    amount=order.amount,
                    expires_at=expires_at,
                )
            ],
            ignore_conflicts=True,  # one open review per order: the database says so
        )

    def close_review(self, order: Order, *, reason: str) -> None:
        """Take the order out of the queue: the saga went on without an analyst."""
        state = ReviewState.EXPIRED if reason == "expired" else ReviewState.CLOSED
        Review.objects.open().filter(order=order).update(
            state=state, note=reason, decided_by="system", decided_at=timezone.now()
        )


def gather_facts(
    order: Order, payment: Payment, *, stage: Stage, rules: Sequence[Rule], score: int = 0
) -> FraudContext:
    """Everything that is known now. The order is counted before the authorization, never after it."""
    is_before = stage is Stage.BEFORE_AUTHORIZATION
    counts = _count(order, payment, rules) if is_before else Counts({}, "")
    card = payment.card
    return FraudContext(
        stage=stage,
        amount=order.amount,
        currency=order.currency,
        order_id=order.pk,
        customer_id=order.customer_id,
        customer_email=mask_email(order.customer_email),
        customer_age_days=(timezone.now() - order.customer_created_at).days
        if order.customer_created_at
        else None,
        ip=_text(order.context, "ip"),
        device=_text(order.context, "device"),
        billing_country=_text(order.billing, "country").upper(),
        shipping_country=_text(order.shipping, "country").upper(),
        ip_country=_text(order.context, "ip_country").upper(),
        card_country=_text(card, "country").upper(),
        card_brand=_text(card, "brand"),
        card_last4=_text(card, "last4"),
        avs=_text(card, "avs"),
        cvv=_text(card, "cvc"),
        three_d_secure=_text(card, "three_d_secure"),
        risk_score=card.get("risk_score"),
        list_matches=_find_matches(order, payment, is_before=is_before),
        velocity=counts.by_window,
        velocity_source=counts.source,
        score=score,
    )


def _count(order: Order, payment: Payment, rules: Iterable[Rule]) -> Counts:
    """Count by what is known before the gateway is asked; a card is its token until then."""
    windows = {
        rule.parameters.window_seconds for rule in rules if isinstance(rule.parameters, VelocityParameters)
    }
    values = {
        "card": payment.payment_method,
        "email": order.customer_email.strip().casefold(),
        "ip": _text(order.context, "ip"),
        "device": _text(order.context, "device"),
        "customer": order.customer_id,
    }
    return count_order(order.pk, order.total, values, windows)


def _listed_values(order: Order, payment: Payment, *, is_before: bool) -> dict[str, set[str]]:
    """What is looked up in the lists; of the countries, the card's only once the gateway has named it."""
    kinds = ListEntry.Kind
    addresses = {_text(order.billing, "country"), _text(order.shipping, "country")}
    return {
        kinds.EMAIL: {order.customer_email},
        kinds.IP: {_text(order.context, "ip")},
        kinds.DEVICE: {_text(order.context, "device")},
        kinds.CUSTOMER: {order.customer_id},
        kinds.CARD: {payment.card_fingerprint},
        kinds.COUNTRY: addresses if is_before else {_text(payment.card, "country")},
    }


def _find_matches(order: Order, payment: Payment, *, is_before: bool) -> tuple[ListMatch, ...]:
    """Each entry counts once: after the authorization only what was not known before, and who is allowed."""
    found = find_matches(_listed_values(order, payment, is_before=is_before))
    if is_before:
        return found
    news = (ListEntry.Kind.CARD, ListEntry.Kind.COUNTRY)
    return tuple(match for match in found if match.kind in news or match.list == ListEntry.List.ALLOW)


def _prior_assessment(order: Order) -> Assessment | None:
    return order.assessments.filter(stage=Stage.BEFORE_AUTHORIZATION).first()


def _wanted_review(assessment: Assessment) -> bool:
    """A review that a challenge overruled at first is not forgotten."""
    return assessment.decision == Decision.REVIEW or assessment.verdicts.filter(outcome="review").exists()


def _verdict_rows(assessment: Assessment, result: FraudResult) -> list[Verdict]:
    return [
        Verdict(
            assessment=assessment,
            rule_id=verdict.rule.id,
            rule_name=verdict.rule.name,
            rule_kind=verdict.rule.kind,
            status=verdict.status,
            outcome=verdict.outcome or "",
            value=verdict.value[:200],
            threshold=verdict.threshold[:200],
            points=verdict.points,
            microseconds=verdict.microseconds,
        )
        for verdict in result.verdicts
    ]


def _text(data: dict[str, object], name: str) -> str:
    value = data.get(name)
    return value.strip() if isinstance(value, str) else ""
