"""What an analyst reads on one case: why it is here, what matches, linked orders, money, history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Min
from django.utils import timezone

from fraud.labels import find_frauds
from fraud.links import LinkCount, Links, find_links
from fraud.measures import Proportion
from fraud.models import Assessment, Review, Verdict
from payments import sql
from payments.models import Event, Order, OrderState, Payment
from payments.money import Money

MAX_LINKED = 8
MAX_EVENTS = 12
ANSWER_TONES = {"pass": "good", "fail": "bad"}
PRECISION_HITS = 1_000
PRECISION_SPAN = timedelta(days=90)
YOUNG, OLD = timedelta(days=1), timedelta(days=30)

_PRECISION = """
SELECT rule.key, count(*), count(*) FILTER (WHERE label.is_fraud)
FROM unnest(%(keys)s::text[]) AS rule (key)
CROSS JOIN LATERAL (
    SELECT DISTINCT assessment.order_id
    FROM (
        SELECT assessment_id FROM fraud_verdict WHERE rule_key = rule.key AND status = 'hit'
        ORDER BY id DESC LIMIT %(most)s
    ) newest JOIN fraud_assessment assessment ON assessment.id = newest.assessment_id
    WHERE assessment.created_at >= %(since)s
) hit
CROSS JOIN LATERAL (
    SELECT is_fraud FROM fraud_label WHERE order_id = hit.order_id ORDER BY precedence, at DESC, id DESC LIMIT 1
) label
GROUP BY rule.key
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One cell of the match strip; `tone` is good, bad, unknown or plain."""

    label: str
    value: str
    tone: str


@dataclass(frozen=True, slots=True)
class Reason:
    """A verdict that speaks against the order, and how often its rule was right; None: it never hit before."""

    verdict: Verdict
    precision: Proportion | None

    @property
    def record(self) -> str:
        """How often its rule was right, in words; of few orders no share."""
        if self.precision is None:
            return "never decided before"
        hits, n = self.precision.hits, self.precision.n
        return (
            f"fraud in {hits} of {n}"
            if self.precision.is_too_few
            else f"precision {round(100 * hits / n)} % of {n}"
        )


@dataclass(frozen=True, slots=True)
class LinkedOrder:
    """Another order that shares something with this one, and what became of it; `tone` as of a `Check`."""

    order: Order
    shares: tuple[str, ...]
    fate: str
    tone: str


@dataclass(frozen=True, slots=True)
class HistoryLine:
    at: datetime
    what: str
    who: str


@dataclass(frozen=True, slots=True)
class Case:
    """One review with everything beside it."""

    review: Review
    reasons: tuple[Reason, ...]
    others: tuple[Verdict, ...]
    checks: tuple[Check, ...]
    money: tuple[tuple[str, Money], ...]
    linked: tuple[LinkedOrder, ...]
    link_count: LinkCount
    history: tuple[HistoryLine, ...]
    assessments: tuple[Assessment, ...]


def build_case(review: Review) -> Case:
    """Read everything about a case, in a fixed number of queries."""
    order, payment = review.order, review.payment
    assessments = tuple(order.assessments.order_by("id").prefetch_related("verdicts"))
    verdicts = [verdict for assessment in assessments for verdict in assessment.verdicts.all()]
    links = find_links([order.pk]).get(order.pk, {})
    frauds = find_frauds(links)
    return Case(
        review=review,
        reasons=_weigh(verdicts),
        others=tuple(verdict for verdict in verdicts if not verdict.is_reason),
        checks=(*match_strip(order, payment), *_ages(order)),
        money=tuple(_money_lines(payment)),
        linked=_load_linked(links, frauds),
        link_count=LinkCount(len(links), len(frauds)),
        history=tuple(_history(review, assessments)),
        assessments=assessments,
    )


def rule_precision(keys: Iterable[str]) -> Mapping[str, Proportion | None]:
    """By rule: of the orders of 90 days that it hit and that have a label, the share of fraud. None without any.

    Of a rule that hits all the time, the newest thousand hits stand for the others: the page must not wait.
    """
    wanted = sorted(set(keys))
    since = timezone.now() - PRECISION_SPAN
    rows = sql.fetch_all(_PRECISION, {"keys": wanted, "since": since, "most": PRECISION_HITS})
    known = {key: Proportion(frauds, count) for key, count, frauds in rows}
    return {key: known.get(key) for key in wanted}


def _weigh(verdicts: Iterable[Verdict]) -> tuple[Reason, ...]:
    """The reasons, the heaviest first."""
    hits = top_reasons(verdicts, count=None)
    precision = rule_precision(verdict.rule_key for verdict in hits)
    return tuple(Reason(verdict, precision[verdict.rule_key]) for verdict in hits)


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


def _ages(order: Order) -> Iterable[Check]:
    """How long the customer, and the e-mail address, have been known."""
    yield _age_check("Customer", order.customer_created_at)
    if not order.customer_email:
        return
    before = Order.objects.filter(customer_email=order.customer_email, created_at__lt=order.created_at)
    seen = before.aggregate(first=Min("created_at"), count=Count("pk"))
    if not seen["count"]:
        yield Check("E-mail", "new", "plain")
        return
    check = _age_check("E-mail", seen["first"])
    yield Check(check.label, f"{check.value}, {seen['count']} before", check.tone)


def _age_check(label: str, since: datetime | None) -> Check:
    if since is None:
        return Check(label, "guest", "plain")
    span = timezone.now() - since
    tone = "bad" if span < YOUNG else "good" if span >= OLD else "plain"
    return Check(label, "today" if span < YOUNG else f"{span.days} d", tone)


def _load_linked(links: Links, frauds: set[str]) -> tuple[LinkedOrder, ...]:
    """Fraud first, then what shares the most, the newest first among equals."""
    newest = sorted(links, reverse=True)
    best = sorted(newest, key=lambda order_id: (order_id not in frauds, -len(links[order_id])))[:MAX_LINKED]
    orders = Order.objects.select_related("payment").in_bulk(best)
    return tuple(
        LinkedOrder(
            orders[order_id], tuple(sorted(links[order_id])), *_fate(orders[order_id], order_id in frauds)
        )
        for order_id in best
    )


def _fate(order: Order, is_fraud: bool) -> tuple[str, str]:
    """What became of an order in a word, with its tone."""
    payment = getattr(order, "payment", None)
    if is_fraud:
        return "fraud", "bad"
    if payment is not None and payment.dispute_state != "none":
        return "disputed", "bad"
    if payment is not None and payment.refund_state != "none":
        return "refunded", "plain"
    if order.state in (OrderState.BLOCKED, OrderState.DECLINED):
        return str(order.get_state_display()).lower(), "bad"
    tone = "good" if order.state in (OrderState.PAID, OrderState.FULFILLED) else "plain"
    return str(order.get_state_display()).lower(), tone


def _money_lines(payment: Payment) -> Iterable[tuple[str, Money]]:
    for label, minor in (
        ("Order", payment.amount),
        ("Authorized", payment.authorized),
        ("Captured", payment.captured),
        ("Refunded", payment.refunded),
    ):
        yield label, Money(minor, payment.currency)


def _history(review: Review, assessments: Iterable[Assessment]) -> list[HistoryLine]:
    told = ("review.approved", "review.rejected", "review.opened")  # as lines of the review's own
    events = Event.objects.filter(order=review.order_id).exclude(type__in=told).order_by("-id")[:MAX_EVENTS]
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
    lines += [
        HistoryLine(event.at, ": ".join(filter(None, [event.get_kind_display(), event.note])), event.actor)
        for event in review.events.all()[:MAX_EVENTS]
    ]
    lines.append(HistoryLine(review.created_at, "review opened", "system"))
    if review.decided_at and all(line.at < review.decided_at for line in lines):
        lines.append(
            HistoryLine(review.decided_at, f"review {review.state}", review.decided_by)
        )  # by its saga
    return sorted(lines, key=lambda line: line.at, reverse=True)


def top_reasons(verdicts: Iterable[Verdict], *, count: int | None = 2) -> list[Verdict]:
    """What weighs most: hard outcomes, then points; the total comes last, it only adds up the others."""
    hits = [verdict for verdict in verdicts if verdict.is_reason]
    return sorted(hits, key=_weigh_reason)[:count]


def _weigh_reason(verdict: Verdict) -> tuple[bool, bool, int]:
    return verdict.rule_kind == "total", verdict.outcome == "score", -verdict.points
