"""The measures equal figures worked out by hand: overlaps, several currencies, shadow, and what nobody knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from fraud.measures import (
    Period,
    Proportion,
    RuleMeasure,
    count_judged,
    find_drift,
    find_examples,
    keep_judged,
    measure_days,
    measure_overall,
    measure_queue,
    measure_rules,
    report_drift,
)
from fraud.measures.statistics import compare
from fraud.models import Assessment, RuleDay, Verdict
from payments.models import OnCallPage, Order, Payment
from tests.factories.fraud import AssessmentFactory, LabelFactory, ReviewFactory, VerdictFactory
from tests.factories.payments import GatewayAccountFactory, OrderFactory, PaymentFactory

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)


# --- the statistics, against published values ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),  # Newcombe 1998, and R's binom.confint(method = "wilson")
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilsons(hits: int, n: int, low: float, high: float) -> None:
    share = Proportion(hits, n)
    assert share.interval == pytest.approx((low, high), abs=5e-5)
    assert share.value == hits / n


def test_of_nothing_nothing_is_known() -> None:
    assert (Proportion(0, 0).value, Proportion(0, 0).interval) == (None, (0.0, 1.0))
    assert [Proportion(1, n).is_too_few for n in (9, 10)] == [True, False]


def test_two_shares_are_compared_by_the_z_test() -> None:
    assert compare(Proportion(30, 100), Proportion(50, 100)) == pytest.approx(0.003892, abs=1e-6)
    assert compare(Proportion(20, 100), Proportion(20, 100)) == pytest.approx(1.0)
    assert compare(Proportion(1, 20), Proportion(2, 20)) is None
    assert compare(Proportion(0, 0), Proportion(0, 0)) is None


# --- a small world, worked out by hand ----------------------------------------------------------------------


@dataclass
class World:
    """Ten orders by number; rules A, B and S are asked about each unless it is said otherwise."""

    orders: dict[int, Order] = field(default_factory=dict)

    def screen(
        self,
        number: int,
        currency: str,
        *,
        before: Mapping[str, str],
        after: Mapping[str, str] | None = None,
        decision: str = "approve",
        is_fraud: bool | None = None,
        review: str = "",
        captured: bool = False,
        days_ago: int = 1,
    ) -> None:
        at = NOW - timedelta(days=days_ago)
        order = OrderFactory(amount=number * 100, currency=currency, created_at=at)
        payment = PaymentFactory(order=order, is_captured=captured)
        self.orders[number] = order
        self._assess(payment, "before", {"A": "miss", "B": "miss", "S": "miss", **before}, at, decision)
        if after is not None:
            assessment = self._assess(payment, "after", after, at, "review" if review else "approve")
            if review:
                state = {"state": review, "decided_at": at + timedelta(hours=number), "created_at": at}
                who = "system" if review == "expired" else "user:ana"
                ReviewFactory(assessment=assessment, decided_by=who, **state)
        if is_fraud is not None:
            LabelFactory(order=order, is_fraud=is_fraud, at=at + timedelta(days=2))

    def _assess(
        self, payment: Payment, stage: str, verdicts: Mapping[str, str], at: datetime, decision: str
    ) -> Assessment:
        made: Assessment = AssessmentFactory(payment=payment, stage=stage, decision=decision, created_at=at)
        for rule, status in verdicts.items():
            kind = "total" if rule == "T" else "expression"
            VerdictFactory(assessment=made, rule_key=rule, rule_name=rule, rule_kind=kind, status=status)
        return made


@pytest.fixture
def world(db: None) -> World:
    world = World()
    world.screen(
        1, "EUR", before={"A": "hit"}, after={"A": "hit", "B": "hit"}, is_fraud=True, review="rejected"
    )
    world.screen(2, "EUR", before={"A": "hit"}, after={}, is_fraud=False, review="rejected")
    world.screen(3, "USD", before={"A": "hit"}, decision="block")
    world.screen(4, "USD", before={"A": "hit"}, after={}, is_fraud=True, review="approved", captured=True)
    world.screen(5, "JPY", before={"B": "hit", "S": "shadow"}, after={}, is_fraud=True, review="expired")
    world.screen(6, "EUR", before={"S": "shadow"}, is_fraud=False, captured=True, days_ago=3)
    world.screen(7, "EUR", before={}, is_fraud=True, captured=True, days_ago=3)
    world.screen(8, "EUR", before={"A": "hit", "T": "hit"}, after={}, is_fraud=True, review="rejected")
    world.screen(9, "EUR", before={"A": "hit"}, is_fraud=True, days_ago=40)
    world.screen(10, "EUR", before={"A": "error", "B": "snoozed"}, decision="challenge")
    payment = world.orders[4].payment
    for stage, reference in (("chargeback", "dp_1"), ("inquiry", "dp_2")):
        payment.disputes.create(
            account=payment.account,
            gateway_reference=reference,
            stage=stage,
            state="lost",
            amount=250,
            currency="USD",
            opened_at=NOW,
        )
    return world


@pytest.fixture
def period() -> Period:
    return Period.last(28, now=NOW)


def by_name(rules: list[RuleMeasure]) -> dict[str, RuleMeasure]:
    return {rule.rule: rule for rule in rules}


def tell(rule: RuleMeasure) -> dict[str, Any]:
    return {
        "mode": rule.mode,
        "judged": rule.judged,
        "hits": rule.hits,
        "labelled": rule.labelled,
        "fraud": rule.fraud,
        "recall": (rule.recall.hits, rule.recall.n),
        "unique": rule.unique,
        "overlaps": [(other.rule, other.mode, other.share.hits, other.share.n) for other in rule.overlaps],
    }


@pytest.mark.usefixtures("world")
def test_each_rule_is_measured_by_its_own_hits(period: Period) -> None:
    rules = by_name(measure_rules(period))
    assert {name: tell(rule) for name, rule in rules.items()} == {
        "A": {
            "mode": "on",
            "judged": 9,
            "hits": 5,  # 1, 2, 3, 4, 8: the first, hit in both screenings, once
            "labelled": 4,
            "fraud": 3,
            "recall": (3, 5),  # of 1, 4, 5, 7, 8
            "unique": 2,  # 4, and 8: a total score is no other rule
            "overlaps": [("B", "on", 1, 5), ("T", "on", 1, 5)],
        },
        "B": {
            "mode": "on",
            "judged": 9,
            "hits": 2,
            "labelled": 2,
            "fraud": 2,
            "recall": (2, 5),
            "unique": 1,  # 5: a rule in shadow has caught nothing
            "overlaps": [("A", "on", 1, 2), ("S", "shadow", 1, 2)],
        },
        "S": {
            "mode": "shadow",
            "judged": 9,
            "hits": 2,
            "labelled": 2,
            "fraud": 1,
            "recall": (1, 5),
            "unique": 0,
            "overlaps": [("B", "on", 1, 2)],
        },
        "T": {
            "mode": "on",
            "judged": 1,
            "hits": 1,
            "labelled": 1,
            "fraud": 1,
            "recall": (1, 1),
            "unique": 0,
            "overlaps": [("A", "on", 1, 1)],
        },
    }


@pytest.mark.usefixtures("world")
def test_money_is_told_by_currency_and_never_added_up(period: Period) -> None:
    rules = by_name(measure_rules(period))
    assert rules["A"].saved == {"EUR": (2, 900)}
    assert rules["A"].blocked_wrongly == {"EUR": (1, 200)}
    assert rules["A"].blocked_unknown == {"USD": (1, 300)}
    assert rules["A"].let_through == {"USD": (1, 400)}
    assert rules["B"].saved == {"EUR": (1, 100), "JPY": (1, 500)}
    assert rules["S"].saved == {"JPY": (1, 500)}  # not its own doing, but it would have
    assert rules["S"].good_let_through == {"EUR": (1, 600)}


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(("mode", "names"), [("on", ["A", "B", "T"]), ("shadow", ["S"])])
def test_one_mode_can_be_asked_for(period: Period, mode: str, names: list[str]) -> None:
    assert [rule.rule for rule in measure_rules(period, mode=mode)] == names


def test_a_rule_that_was_on_in_one_screening_counts_as_on(world: World, period: Period) -> None:
    order = world.orders[6]
    VerdictFactory(assessment__payment=order.payment, assessment__created_at=NOW, rule_name="S", status="hit")
    found = [(rule.mode, rule.hits) for rule in measure_rules(period) if rule.rule == "S"]
    assert found == [("on", 1), ("shadow", 1)]


def test_a_rule_that_never_hit_is_there(db: None, period: Period) -> None:
    VerdictFactory(assessment__created_at=NOW, rule_name="Quiet", status="miss")
    [rule] = measure_rules(period)
    assert (rule.rule, rule.mode, rule.hits, rule.judged, rule.precision.value) == ("Quiet", "on", 0, 1, None)


@pytest.mark.usefixtures("world")
def test_the_rules_are_measured_in_few_queries(
    period: Period, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    savepoints_and_settings = 3 * 3
    with django_assert_num_queries(4 + savepoints_and_settings):
        measure_rules(period)


# --- all together -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("world")
def test_rates_are_told_by_count_and_by_money(period: Period) -> None:
    rates = {rate.name: (rate.share, rate.money) for rate in measure_overall(period).rates}
    assert rates == {
        "review": (Proportion(5, 9), {"EUR": (1100, 3400), "JPY": (500, 500), "USD": (400, 700)}),
        "block": (Proportion(1, 9), {"EUR": (0, 3400), "JPY": (0, 500), "USD": (300, 700)}),
        "challenge": (Proportion(1, 9), {"EUR": (1000, 3400), "JPY": (0, 500), "USD": (0, 700)}),
        "approved after review": (Proportion(1, 4), {"EUR": (0, 1100), "USD": (400, 400)}),
        "overturned": (Proportion(2, 4), {"EUR": (200, 1100), "USD": (400, 400)}),  # 2 and 4
        "chargebacks": (Proportion(1, 3), {"EUR": (0, 1300), "JPY": (0, 0), "USD": (250, 400)}),
    }


@pytest.mark.usefixtures("world")
def test_it_says_how_much_is_not_known(period: Period) -> None:
    overall = measure_overall(period)
    assert overall.labelled == Proportion(7, 9)
    assert overall.blocked_labelled == Proportion(0, 1)
    assert overall.fraud == Proportion(5, 7)
    [source] = overall.sources
    assert (source.source, source.orders, source.fraud, source.delay) == ("manual", 7, 5, timedelta(days=2))
    assert source.newest == NOW + timedelta(days=1)


@pytest.mark.django_db
def test_nothing_at_all_is_measured_too(period: Period) -> None:
    assert measure_rules(period) == []
    overall = measure_overall(period)
    assert (overall.screened, overall.sources) == (0, [])
    assert {rate.share.n for rate in overall.rates} == {0}
    assert measure_queue(period).oldest is None


@pytest.mark.usefixtures("world")
def test_the_queue_is_measured_by_analyst(period: Period) -> None:
    waiting = ReviewFactory(created_at=NOW, expires_at=timezone.now() - timedelta(hours=1))
    ReviewFactory(created_at=timezone.now())
    queue = measure_queue(period)
    assert (queue.open, queue.late, queue.oldest) == (2, 1, waiting.created_at)
    assert queue.in_time == Proportion(4, 5)
    [ana] = queue.analysts  # 1, 2, 4 and 8 took as many hours
    assert (ana.actor, ana.approved, ana.overturned) == ("user:ana", Proportion(1, 4), Proportion(2, 4))
    assert (ana.median, ana.slow) == (timedelta(hours=3), timedelta(hours=6, minutes=48))


# --- one rule -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("world")
def test_a_rules_days_are_all_there(period: Period) -> None:
    days = {day.day: day for day in measure_days(period, "A")}
    assert len(days) == 28
    yesterday = days[(NOW - timedelta(days=1)).date()]
    assert (yesterday.judged, yesterday.hits, yesterday.labelled, yesterday.fraud) == (7, 5, 4, 3)
    assert days[(NOW - timedelta(days=3)).date()].judged == 2
    assert days[NOW.date()].judged == 0


def test_examples_show_some_of_each_kind(world: World, period: Period) -> None:
    found = find_examples(period, "A", limit=4)
    numbers = {order.pk: number for number, order in world.orders.items()}
    assert [numbers[example.order_id] for example in found] == [2, 8, 3, 4]
    assert [example.is_fraud for example in found] == [False, True, None, True]
    assert [example.is_stopped for example in found] == [True, True, True, False]
    assert [bool(example.review_id) for example in found] == [True, True, False, True]


# --- the kept count -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("world")
def test_days_that_are_over_are_counted_once() -> None:
    assert keep_judged(now=NOW) == 10  # A, B, S, T of yesterday; A, B, S of three days ago, and of 40
    assert keep_judged(now=NOW) == 0


def test_the_kept_count_equals_the_verdicts(world: World, period: Period) -> None:
    live = count_judged(period)
    keep_judged(now=NOW)
    Verdict.objects.filter(assessment__order=world.orders[6]).update(rule_key="Z")  # read no more
    assert count_judged(period) == live
    world.screen(11, "EUR", before={}, days_ago=0)
    assert count_judged(period) == live | {(name, NOW.date()): 1 for name in "ABS"}
    assert not RuleDay.objects.filter(day=NOW.date()).exists()


# --- drift --------------------------------------------------------------------------------------------------


def screen_many(count: int, hits: int, days_ago: int) -> None:
    """As many orders of one day, of which the rule hit some."""
    at, account, client = NOW - timedelta(days=days_ago), GatewayAccountFactory(), OrderFactory().client
    base = {"amount": 100, "currency": "EUR", "created_at": at, "updated_at": at}
    orders = Order.objects.bulk_create(
        Order(client=client, reference=f"{days_ago}-{number}", **base) for number in range(count)
    )
    payments = Payment.objects.bulk_create(Payment(order=order, account=account, **base) for order in orders)
    screened = {"stage": "before", "decision": "approve", "score": 0, "context": {}, "microseconds": 1}
    assessments = Assessment.objects.bulk_create(
        Assessment(order=payment.order, payment=payment, created_at=at, **screened) for payment in payments
    )
    Verdict.objects.bulk_create(
        Verdict(
            assessment=each, rule_key="Drifter", rule_kind="expression", status="hit" if n < hits else "miss"
        )
        for n, each in enumerate(assessments)
    )


@pytest.mark.django_db
class TestDrift:
    def test_a_rule_that_hits_three_times_as_often_is_flagged(self) -> None:
        screen_many(400, 20, 20)
        screen_many(100, 15, 3)
        [drift] = find_drift(now=NOW)
        assert (drift.recent, drift.before) == (Proportion(15, 100), Proportion(20, 400))
        assert drift.change == pytest.approx(2.0)
        assert drift.chance == pytest.approx(0.000456, abs=1e-6)
        assert drift.is_flagged

    @pytest.mark.parametrize(("recent", "before"), [((100, 6), (400, 20)), ((9, 4), (400, 20))])
    def test_chance_and_too_little_are_not(self, recent: tuple[int, int], before: tuple[int, int]) -> None:
        screen_many(*before, 20)
        screen_many(*recent, 3)
        [drift] = find_drift(now=NOW)
        assert not drift.is_flagged

    def test_today_and_what_is_older_are_left_out(self) -> None:
        screen_many(50, 50, 0)
        screen_many(50, 50, 36)
        assert find_drift(now=NOW) == []

    def test_putting_a_rule_on_is_no_drift(self) -> None:
        screen_many(400, 40, 20)
        Verdict.objects.filter(status="hit").update(status="shadow")
        screen_many(100, 10, 3)
        [drift] = find_drift(now=NOW)
        assert drift.change == pytest.approx(0.0)

    def test_on_call_hears_of_a_rule_once_a_week(self) -> None:
        screen_many(400, 20, 20)
        screen_many(100, 15, 3)
        with time_machine.travel(NOW, tick=False):
            assert [report_drift(), report_drift()] == [1, 0]
            [page] = OnCallPage.objects.all()
            assert page.cause == "fraud_drift:Drifter"
            assert "15.00% of 100 orders in 7 days, 5.00% of 400" in page.text
            assert page.path == "/admin/fraud/label/measures/rule/?rule=Drifter"
            OnCallPage.objects.update(created_at=NOW - timedelta(days=8))
            OnCallPage.objects.update(hour=NOW - timedelta(days=8))
            assert report_drift() == 1
