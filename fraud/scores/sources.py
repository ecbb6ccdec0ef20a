"""Which scores the settings name, what they are told of an order, and what is written down of their answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings

from fraud.decision import Status
from fraud.facts import FraudContext
from fraud.models import Assessment, Verdict
from fraud.models.assessment import MAX_NANOSECONDS
from fraud.scores.base import NoScorer, RiskScore, RiskScorer, ScoreRequest, ScoreStatus
from fraud.scores.http import HttpRiskScorer, Provider
from fraud.scores.model import ModelScorer
from fraud.velocity.keys import hash_values, values_of
from payments.models import Order, Payment

OUTSIDE, MODEL = "outside", "model"
LABELS = {OUTSIDE: "Outside score", MODEL: "Model score"}
PURPOSE = "risk-score"  # of the keyed hashes: they fit no list and no count of ours
# All that leaves the house of a context: no names, no addresses, nothing of the card but where it was issued.
SHARED = (
    *("amount", "currency", "assessed_at", "is_guest", "is_saved_card", "is_merchant_initiated"),
    *("line_count", "item_count", "email_domain", "customer_age_days", "is_same_postcode"),
    *("billing_country", "shipping_country", "ip_country", "card_country", "card_brand", "card_funding"),
    *("orders_before", "paid_before", "declined_before", "refunded_before", "chargebacks_before"),
    *("linked_orders", "linked_fraud", "velocity"),
)
SHARED_KEYS = ("customer", "email", "ip", "device", "card")


def with_scores(context: FraudContext, order: Order, payment: Payment) -> FraudContext:
    """The context with both scores as facts. It may use the network: before the authorization alone."""
    outside = get_risk_scorer().score(build_request(context, order, payment))
    known = replace(context, outside_score=outside.value)
    model = get_model_scorer().score(known.to_dict()) if settings.FRAUD_MODEL_PATH else NO_SCORE
    scores = {OUTSIDE: outside.to_dict(), MODEL: model.to_dict()}
    asked = {name: told for name, told in scores.items() if told["status"] != ScoreStatus.OFF}
    return replace(known, model_score=model.value, scores={**context.scores, **asked})


def build_request(context: FraudContext, order: Order, payment: Payment) -> ScoreRequest:
    """Personal values only as keyed hashes, by which a provider knows them again and nothing else."""
    values = values_of(order, payment)
    values["card"] = payment.card_fingerprint or payment.payment_method
    facts = context.to_dict()
    return ScoreRequest(
        order_id=order.pk,
        facts={name: facts[name] for name in SHARED if name in facts},
        keys=hash_values({name: values[name] for name in SHARED_KEYS}, purpose=PURPOSE),
    )


def build_verdicts(assessment: Assessment, context: FraudContext) -> list[Verdict]:
    """A row for each score that was asked for, whether or not a rule reads it. Not saved yet."""
    return [
        _build_verdict(assessment, name, context.scores[name]) for name in LABELS if name in context.scores
    ]


def _build_verdict(assessment: Assessment, name: str, told: Mapping[str, Any]) -> Verdict:
    score = read_score(told)
    return Verdict(
        assessment=assessment,
        rule_key=f"{name}-score",
        rule_name=LABELS[name],
        rule_kind=f"{name}_score",
        status=Status.MISS if score.status is ScoreStatus.OK else Status.ERROR,
        value=score.describe()[:200],
        nanoseconds=min(score.latency_ms * 1_000_000, MAX_NANOSECONDS),
    )


def read_score(told: Mapping[str, Any]) -> RiskScore:
    """What `RiskScore.to_dict` gave."""
    return RiskScore(
        **{**told, "status": ScoreStatus(told["status"]), "reasons": tuple(told.get("reasons", ()))}
    )


NO_SCORE = RiskScore(ScoreStatus.OFF)


def get_risk_scorer() -> RiskScorer:
    """Whoever FRAUD_RISK_URL names; one of each process, so that its connections and its breaker last."""
    if not settings.FRAUD_RISK_URL:
        return NoScorer()
    return _make_scorer(
        Provider(
            url=settings.FRAUD_RISK_URL,
            secret=settings.FRAUD_RISK_SECRET,
            name=settings.FRAUD_RISK_PROVIDER,
            timeout_ms=settings.FRAUD_RISK_TIMEOUT_MS,
            allows_private=settings.FRAUD_RISK_ALLOW_PRIVATE,
        )
    )


@cache
def _make_scorer(provider: Provider) -> HttpRiskScorer:
    return HttpRiskScorer(provider)


def get_model_scorer() -> ModelScorer:
    """The model of FRAUD_MODEL_PATH, loaded once in each process."""
    return _make_model(Path(settings.FRAUD_MODEL_PATH))


@cache
def _make_model(path: Path) -> ModelScorer:
    return ModelScorer(path)
