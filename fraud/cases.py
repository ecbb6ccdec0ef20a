"""What an analyst reads on one case: why it is here, what matches, linked orders, money, history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import or_

from django.db.models import Q

from fraud.models import Assessment, Review, VelocityEvent, Verdict
from payments.models import Event, Order, Payment
from payments.money import Money

MAX_LINKED = 8
MAX_EVENTS = 12
SCANNED_EVENTS = 500
ANSWER_TONES = {"pass": "good", "fail": "bad"}


@dataclass(frozen=True, slots=True)
class Check:
    """One cell of the match strip; `tone` is good, bad or unknown."""

    label: str
    value: str
    tone: str


@dataclass(frozen=True, slots=True)
class LinkedOrder:
    """Another order that shares something with this one."""

    order: Order
    shares: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HistoryLine:
    at: datetime
    what: str
    who: str


@dataclass(frozen=True, slots=True)
class Case:
    """One review with everything beside it."""

    review: Review
    reasons: tuple[Verdict, ...]
    others: tuple[Verdict, ...]
    checks: tuple[Check, ...]
    money: tuple[tuple[str, Money], ...]
    linked: tuple[LinkedOrder, ...]
    linked_total: int
    history: tuple[HistoryLine, ...]
    assessments: tuple[Assessment, ...]


def build_case(review: Review) -> Case:
    """Read everything about a case, in a fixed number of queries."""
    order, payment = review.order, review.payment
    assessments = tuple(order.assessments.order_by("id").prefetch_related("verdicts"))
    verdicts = [verdict for assessment in assessments for verdict in assessment.verdicts.all()]
    shared = find_linked(order, payment)
    return Case(
        review=review,
        reasons=tuple(verdict for verdict in verdicts if verdict.is_reason),
        others=tuple(verdict for verdict in verdicts if not verdict.is_reason),
        checks=tuple(match_strip(order, payment)),
        money=tuple(_money_lines(payment)),
        linked=_load_linked(shared),
        linked_total=len(shared),
        history=tuple(_history(review, assessments)),
        assessments=assessments,
    )


def match_strip(order: Order, payment: Payment) -> Iterable[Check]:
    """Countries against the card's (or the billing address's), then what the issuer said."""
    card = payment.card
    countries = {
        "Card": str(card.get("country") or ""),
        "Billing": str(order.billing.get("country") or ""),
        "Shipping": str(order.shipping.get("country") or ""),
        "IP": str(order.context.get("ip_country") or ""),
    }
    anchor = (countries["Card"] or countries["Billing"]).upper()
    for label, country in countries.items():
        is_same = country.upper() == anchor
        yield Check(
            label, country.upper() or "not known", ("good" if is_same else "bad") if country else "unknown"
        )
    for label, name in (("AVS", "avs"), ("CVV", "cvc")):
        answer = str(card.get(name) or "")
        yield Check(label, answer or "no answer", ANSWER_TONES.get(answer, "unknown"))
    secure = str(card.get("three_d_secure") or "")
    tone = {"authenticated": "good", "failed": "bad"}.get(secure, "unknown")
    yield Check("3-D Secure", secure or "not asked", tone)


def find_linked(order: Order, payment: Payment) -> dict[str, set[str]]:
    """The ids of the newest other orders that share something, with what they share."""
    shares: dict[str, set[str]] = defaultdict(set)
    keys = list(VelocityEvent.objects.filter(order=order).values_list("dimension", "key_hash"))
    if keys:
        same = reduce(or_, (Q(dimension=dimension, key_hash=digest) for dimension, digest in keys))
        found = VelocityEvent.objects.filter(same).exclude(order=order).order_by("-at")
        for order_id, dimension in found.values_list("order_id", "dimension")[:SCANNED_EVENTS]:
            shares[order_id].add(dimension)
    if payment.card_fingerprint:
        twins = Payment.objects.filter(card_fingerprint=payment.card_fingerprint).exclude(order=order)
        for order_id in twins.order_by("-id").values_list("order_id", flat=True)[:SCANNED_EVENTS]:
            shares[order_id].add("card")
    return dict(shares)


def _load_linked(shares: dict[str, set[str]]) -> tuple[LinkedOrder, ...]:
    """The orders that share the most, the newest first among equals."""
    by_id = sorted(shares, reverse=True)
    best = sorted(by_id, key=lambda order_id: -len(shares[order_id]))[:MAX_LINKED]
    orders = Order.objects.in_bulk(best)
    return tuple(LinkedOrder(orders[order_id], tuple(sorted(shares[order_id]))) for order_id in best)


def _money_lines(payment: Payment) -> Iterable[tuple[str, Money]]:
    for label, minor in (
        ("Order", payment.amount),
        ("Authorized", payment.authorized),
        ("Captured", payment.captured),
        ("Refunded", payment.refunded),
    ):
        yield label, Money(minor, payment.currency)


def _history(review: Review, assessments: Iterable[Assessment]) -> list[HistoryLine]:
    events = Event.objects.filter(order=review.order_id).order_by("-id")[:MAX_EVENTS]
    lines = [
        HistoryLine(event.created_at, event.type.replace(".", " ").replace("_", " "), event.actor)
        for event in events
    ]
    lines += [
        HistoryLine(
            assessment.created_at,
            f"screened {assessment.stage} authorization: {assessment.decision}, {assessment.score} points",
            "system",
        )
        for assessment in assessments
    ]
    lines.append(HistoryLine(review.created_at, "review opened", "system"))
    if review.decided_at:
        lines.append(HistoryLine(review.decided_at, f"review {review.state}", review.decided_by))
    return sorted(lines, key=lambda line: line.at)


def top_reasons(verdicts: Iterable[Verdict], *, count: int = 2) -> list[Verdict]:
    """What weighs most: hard outcomes, then points; the total comes last, it only adds up the others."""
    hits = [verdict for verdict in verdicts if verdict.is_reason]
    return sorted(hits, key=_weigh_reason)[:count]


def _weigh_reason(verdict: Verdict) -> tuple[bool, bool, int]:
    return verdict.rule_kind == "total", verdict.outcome == "score", -verdict.points
