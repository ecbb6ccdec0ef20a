"""The screener of settings.PAYMENT_SCREENER: gathers the facts, decides by the live rules, keeps every verdict."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.utils import timezone

from fraud.authentication import choose_authentication
from fraud.decision import FraudResult, decide
from fraud.gathering import gather_after, gather_before
from fraud.links import record_links
from fraud.lists import record_hits
from fraud.live import live_plan
from fraud.models import Assessment, Review, ReviewState, Verdict
from fraud.models.assessment import MAX_NANOSECONDS
from fraud.plans import LivePlan
from fraud.scores.sources import build_verdicts, with_scores
from fraud.three_d_secure import SWITCHED_OFF, ScaDecision
from payments.decisions import Decision, Stage
from payments.models import Order, Payment
from payments.screening import Screening

# A review ends before the bank lets the authorization go, so that its money can still be voided in order.
EXPIRY_MARGIN = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class _Judged:
    """What `screen` found out and `record` writes down."""

    live: LivePlan
    result: FraudResult
    microseconds: int


class RuleScreener:
    """Decides by the rule set in force; see payments.screening.Screener."""

    def screen(self, order: Order, payment: Payment, *, stage: Stage) -> Screening:
        """Decide. Raises what the database raises, and `NoRulesError`; what that means is the saga's policy."""
        started = time.perf_counter_ns()
        live = live_plan()
        if stage is Stage.BEFORE_AUTHORIZATION:
            result, sca = _decide_first(live, order, payment)
        else:
            result, sca = _decide_again(live, order, payment), None
        judged = _Judged(live, result, (time.perf_counter_ns() - started) // 1000)
        return Screening(
            stage=stage,
            decision=result.decision,
            score=result.score,
            reasons=list(result.reasons),
            data=judged,
            requests_challenge=bool(sca and sca.requests_challenge),
            sca_exemption=sca.sca_exemption if sca else "",
        )

    def record(self, order: Order, payment: Payment, screening: Screening) -> None:
        """Keep the decision, the facts and every verdict, in the transaction in which the saga moves on."""
        judged = screening.data
        assessment = Assessment.objects.create(
            order=order,
            payment=payment,
            ruleset_id=judged.live.ruleset_id if judged else None,
            stage=screening.stage,
            decision=screening.decision,
            score=screening.score,
            context=judged.result.context.to_dict() if judged else {"error": list(screening.reasons)},
            microseconds=judged.microseconds if judged else 0,
        )
        if judged:
            context = judged.result.context
            rows = list(_verdict_rows(assessment, judged.result))
            if screening.stage is Stage.BEFORE_AUTHORIZATION:  # who scored it was asked then
                rows += build_verdicts(assessment, context)
            Verdict.objects.bulk_create(rows)
            record_hits(order, context)
        record_links(order, payment)

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


def _decide_first(live: LivePlan, order: Order, payment: Payment) -> tuple[FraudResult, ScaDecision]:
    """The screening before the authorization may ask others, and settles whether 3-D Secure is asked for."""
    facts = gather_before(order, payment, live.velocity_keys)
    result = decide(live.plan, with_scores(facts, order, payment), is_timed=True)
    sca = choose_authentication(order, payment, decision=result.decision, score=result.score)
    if sca.row == SWITCHED_OFF:
        return result, sca
    told = {**result.context.scores, "authentication": sca.to_dict()}
    return result._replace(context=replace(result.context, scores=told)), sca


def _decide_again(live: LivePlan, order: Order, payment: Payment) -> FraudResult:
    """The screening after the authorization knows the one before: its facts, its points, who hit, what it wished."""
    prior = order.assessments.filter(stage=Stage.BEFORE_AUTHORIZATION).first()
    context = gather_after(order, payment, prior.context if prior else {}, score=prior.score if prior else 0)
    if prior is None:
        return decide(live.plan, context, is_timed=True)
    hits = prior.verdicts.exclude(outcome="").values_list("rule_key", "outcome")
    wanted_review = prior.decision == Decision.REVIEW or any(outcome == "review" for _, outcome in hits)
    settled = frozenset(key for key, _ in hits)
    return decide(live.plan, context, wants_review=wanted_review, settled=settled, is_timed=True)


def _verdict_rows(assessment: Assessment, result: FraudResult) -> Iterable[Verdict]:
    for verdict, nanoseconds in zip(result.verdicts, result.nanoseconds, strict=True):
        rule, seen = verdict.rule, verdict.explain(result.context)
        yield Verdict(
            assessment=assessment,
            rule_id=rule.id,
            rule_key=rule.key,
            rule_name=rule.name,
            rule_kind="total" if rule.is_total else rule.source,
            status=verdict.status,
            outcome=verdict.outcome or "",
            value=seen.value[:200],
            threshold=seen.threshold[:200],
            points=verdict.points,
            nanoseconds=min(nanoseconds, MAX_NANOSECONDS),
        )
