"""Routing: which accounts an order is tried at, in which order, with which token, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from payments import ids, sql
from payments.errors import GatewayUnavailableError
from payments.gateways import get_gateway, resilience
from payments.gateways.base import ChargeRequest
from payments.gateways.kill_switch import switch_board
from payments.models import GatewayAccount, RoutingRule, RoutingTarget
from payments.models.routing import check_targets
from payments.money import Money
from payments.route_replay import MOST_ORDERS, NOWHERE, draft_rule, put_in_place, replay_orders
from payments.routing import (
    RouteSubject,
    Rule,
    Target,
    choose_routes,
    draw_point,
    draw_target,
    list_routes,
    load_rules,
    rank_accounts,
)
from tests.factories.payments import (
    ApiClientFactory,
    GatewayAccountFactory,
    OrderFactory,
    PaymentFactory,
)
from tests.payments.gateways.conftest import forget

Queries = Callable[[int], Any]


@pytest.fixture
def stripe(db: None) -> GatewayAccount:
    GatewayAccount.objects.update(is_active=False)
    return GatewayAccountFactory(gateway="stripe", name="routed", priority=1)


@pytest.fixture
def second(stripe: GatewayAccount) -> GatewayAccount:
    return GatewayAccountFactory(gateway="stripe", name="routed-too", priority=2)


@pytest.fixture
def adyen(stripe: GatewayAccount) -> GatewayAccount:
    return GatewayAccountFactory(gateway="adyen", name="routed", priority=3)


@pytest.fixture(autouse=True)
def _clean_breakers() -> Iterator[None]:
    yield
    forget("gateway-breaker:*/routed*")


def subject(**changes: Any) -> RouteSubject:
    order = {
        "order_id": "ord_1",
        "amount": Money(12950, "EUR"),
        "country": "DE",
        "payment_method": "pm_plain",
    }
    return RouteSubject(**{**order, **changes})


def make_rule(*accounts: GatewayAccount, shares: tuple[int | None, ...] = (), **fields: Any) -> RoutingRule:
    rule = RoutingRule(**{"name": "Europe", **fields})
    rule.full_clean()
    rule.save()
    for place, account in enumerate(accounts):
        share = shares[place] if shares else None
        RoutingTarget.objects.create(rule=rule, account=account, position=place, share=share)
    return rule


def tried(**changes: Any) -> list[tuple[str, str]]:
    return [(str(route.account), route.token) for route in choose_routes(subject(**changes))]


DRAWN = [58, 80, 86, 18, 92]  # by orders ord_0 to ord_4, for ever
TOKENS = {"stripe": "pm_stripe", "adyen": "tok_adyen"}


class TestOrder:
    def test_without_a_rule_the_lowest_priority_goes_first(
        self, stripe: GatewayAccount, adyen: GatewayAccount
    ) -> None:
        assert tried(payment_methods=TOKENS) == [
            ("stripe/routed", "pm_stripe"),
            ("adyen/routed", "tok_adyen"),
        ]

    def test_the_first_rule_that_fits_goes_before_the_rest(
        self, stripe: GatewayAccount, second: GatewayAccount, adyen: GatewayAccount
    ) -> None:
        make_rule(adyen, second, name="later", priority=2)
        make_rule(second, name="first", priority=1)
        make_rule(stripe, name="off", priority=0, is_active=False)
        make_rule(stripe, name="other", priority=0, currencies=["USD"])
        routes = choose_routes(subject(payment_methods=TOKENS))
        assert [route.account for route in routes] == [second, stripe, adyen]
        assert [route.why for route in routes] == [
            "rule “first”, number 1",
            "after the rule “first”, by priority",
            "after the rule “first”, by priority",
        ]

    def test_a_target_that_is_not_active_any_more_is_passed_over(
        self, stripe: GatewayAccount, adyen: GatewayAccount
    ) -> None:
        make_rule(adyen, stripe)
        GatewayAccount.objects.filter(pk=adyen.pk).update(is_active=False)
        assert tried(payment_methods=TOKENS) == [("stripe/routed", "pm_stripe")]

    def test_no_active_account_is_no_route(self, stripe: GatewayAccount) -> None:
        GatewayAccount.objects.update(is_active=False)
        assert tried() == []

    def test_the_reason_fits_its_column(self, stripe: GatewayAccount) -> None:
        make_rule(stripe, name="x" * 80, shares=(100,))
        resilience.breaker_store().trip(str(stripe), 0.0)
        (route,) = choose_routes(subject())
        assert len(f"{route.why}; last, because its breaker is open") <= 200

    def test_what_it_costs(
        self,
        stripe: GatewayAccount,
        adyen: GatewayAccount,
        django_assert_num_queries: Queries,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        by_hand: list[str] = []  # Django counts its own queries alone

        def fetch_one(statement: str, parameters: list[Any]) -> Any:
            by_hand.append(statement)
            return fetch(statement, parameters)

        fetch = sql.fetch_one
        monkeypatch.setattr(sql, "fetch_one", fetch_one)
        for number in range(20):
            make_rule(adyen, stripe, name=f"rule {number}", shares=(40, 60), currencies=["EUR"])
        with django_assert_num_queries(1):
            choose_routes(subject(payment_methods=TOKENS))
        assert len(by_hand) == 1

    def test_a_lonely_account_asks_no_breaker(
        self, stripe: GatewayAccount, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(resilience, "breaker_store")
        assert tried() == [("stripe/routed", "pm_plain")]


class TestConditions:
    @pytest.mark.parametrize(
        ("condition", "fitting", "other"),
        [
            ({"currencies": ["EUR", "CHF"]}, {}, {"amount": Money(12950, "USD")}),
            ({"countries": ["DE"]}, {"country": "de"}, {"country": "FR"}),
            ({"countries": ["DE"]}, {}, {"country": ""}),
            ({"is_merchant_initiated": True}, {"is_merchant_initiated": True}, {}),
            ({"is_merchant_initiated": False}, {}, {"is_merchant_initiated": True}),
            (
                {"currencies": ["EUR"], "min_amount": 12950},
                {},
                {"amount": Money(12949, "EUR")},
            ),
            (
                {"currencies": ["EUR"], "max_amount": 12950},
                {},
                {"amount": Money(12951, "EUR")},
            ),
            (
                {"currencies": ["EUR"], "min_amount": 1},
                {},
                {"amount": Money(12950, "USD")},
            ),
        ],
    )
    def test_each_is_asked(
        self,
        stripe: GatewayAccount,
        adyen: GatewayAccount,
        condition: dict[str, Any],
        fitting: dict[str, Any],
        other: dict[str, Any],
    ) -> None:
        make_rule(adyen, **condition)
        assert tried(payment_methods=TOKENS, **fitting)[0][0] == "adyen/routed"
        assert tried(payment_methods=TOKENS, **other)[0][0] == "stripe/routed"

    def test_the_client(self, stripe: GatewayAccount, adyen: GatewayAccount) -> None:
        client = ApiClientFactory()
        make_rule(adyen, client=client)
        assert tried(payment_methods=TOKENS, client_id=client.pk)[0][0] == "adyen/routed"
        assert tried(payment_methods=TOKENS, client_id="cli_other")[0][0] == "stripe/routed"

    def test_a_bound_without_its_currency_fits_nothing(self) -> None:
        """Whoever writes rows past the form must not compare yen with euros."""
        assert not Rule("x", 1, [], min_amount=1).fits(subject())


class TestTokens:
    def test_the_most_exact_one_is_taken(
        self, stripe: GatewayAccount, second: GatewayAccount, adyen: GatewayAccount
    ) -> None:
        tokens = {"stripe/routed-too": "pm_too", "stripe": "pm_stripe"}
        assert tried(payment_methods=tokens, payment_method="") == [
            ("stripe/routed", "pm_stripe"),
            ("stripe/routed-too", "pm_too"),
        ]

    def test_the_plain_one_belongs_to_the_first_account_alone(
        self, stripe: GatewayAccount, second: GatewayAccount, adyen: GatewayAccount
    ) -> None:
        assert tried() == [("stripe/routed", "pm_plain")]

    def test_the_plain_one_goes_to_an_account_that_shares_tokens(
        self, stripe: GatewayAccount, second: GatewayAccount, adyen: GatewayAccount
    ) -> None:
        GatewayAccount.objects.filter(pk=second.pk).update(options={"shares_tokens_with": "stripe/routed"})
        assert tried() == [("stripe/routed", "pm_plain"), ("stripe/routed-too", "pm_plain")]

    def test_a_token_never_leaves_its_gateway(self, stripe: GatewayAccount, adyen: GatewayAccount) -> None:
        GatewayAccount.objects.filter(pk=adyen.pk).update(options={"shares_tokens_with": "stripe/routed"})
        assert tried() == [("stripe/routed", "pm_plain")]

    def test_the_plain_one_belongs_to_the_first_account_without_one_of_its_own(
        self, stripe: GatewayAccount, adyen: GatewayAccount
    ) -> None:
        make_rule(adyen)
        assert tried(payment_methods={"adyen": "tok_adyen"}) == [
            ("adyen/routed", "tok_adyen"),
            ("stripe/routed", "pm_plain"),
        ]

    def test_the_plain_one_stays_at_home_when_that_is_switched_off(
        self, stripe: GatewayAccount, adyen: GatewayAccount
    ) -> None:
        resilience.switch_off(stripe, by="user:ann", reason="x")
        assert tried() == []
        assert tried(payment_methods=TOKENS) == [("adyen/routed", "tok_adyen")]

    def test_the_plain_one_stays_at_home_when_that_is_tripped(
        self, stripe: GatewayAccount, adyen: GatewayAccount
    ) -> None:
        resilience.breaker_store().trip(str(stripe), 1e12)
        assert tried() == [("stripe/routed", "pm_plain")]

    def test_a_saved_one_goes_to_its_own_account_alone(
        self, stripe: GatewayAccount, second: GatewayAccount, adyen: GatewayAccount
    ) -> None:
        make_rule(adyen, stripe)
        assert tried(saved_account_id=second.pk, payment_methods=TOKENS) == [
            ("stripe/routed-too", "pm_plain")
        ]
        GatewayAccount.objects.filter(pk=second.pk).update(is_active=False)
        assert tried(saved_account_id=second.pk, payment_methods=TOKENS) == []


class TestHealth:
    def test_a_tripped_account_goes_last(self, stripe: GatewayAccount, adyen: GatewayAccount) -> None:
        resilience.breaker_store().trip(str(stripe), 1e12)
        routes = choose_routes(subject(payment_methods=TOKENS))
        assert [route.account for route in routes] == [adyen, stripe]
        assert routes[1].why == "by priority; last, because its breaker is open"

    def test_an_account_that_wants_a_probe_keeps_its_place(
        self, stripe: GatewayAccount, adyen: GatewayAccount
    ) -> None:
        resilience.breaker_store().trip(str(stripe), 0.0)
        assert tried(payment_methods=TOKENS)[0][0] == "stripe/routed"

    def test_a_rule_for_healthy_accounts_gives_way_when_none_is(
        self, stripe: GatewayAccount, second: GatewayAccount, adyen: GatewayAccount
    ) -> None:
        make_rule(adyen, name="healthy", priority=1, healthy_only=True)
        make_rule(second, name="next", priority=2)
        assert tried(payment_methods=TOKENS)[0][0] == "adyen/routed"
        resilience.breaker_store().trip(str(adyen), 1e12)
        routes = choose_routes(subject(payment_methods=TOKENS))
        assert [route.account for route in routes] == [second, stripe, adyen]
        assert routes[0].why == "rule “next”, number 1"

    def test_a_switched_off_account_is_out_at_once(
        self, stripe: GatewayAccount, adyen: GatewayAccount
    ) -> None:
        resilience.switch_off(stripe, by="user:ann", reason="x")
        assert [name for name, _ in tried(payment_methods=TOKENS)] == ["adyen/routed"]
        resilience.switch_on(stripe, by="user:ann", reason="x")
        assert [name for name, _ in tried(payment_methods=TOKENS)] == ["stripe/routed", "adyen/routed"]

    def test_a_real_adapter_refuses_too(self, stripe: GatewayAccount) -> None:
        """Of an order that was routed there a moment before the switch."""
        resilience.switch_off(stripe, by="user:ann", reason="x")
        charge = ChargeRequest("key-1", "op_1", "pay_1", "ord_1", Money(1, "EUR"), "pm_card_visa")
        with pytest.raises(GatewayUnavailableError, match="switched off by user:ann"):
            get_gateway(stripe).authorize(charge)
        switch_board().forget()


class TestShares:
    TARGETS = [Target("a", 50), Target("b", 30), Target("c", 20), Target("d")]

    def draw(self, order_id: str) -> str:
        return draw_target(self.TARGETS, draw_point(order_id)).account_id

    def test_the_split_is_kept_within_one_percent(self) -> None:
        drawn = Counter(self.draw(f"ord_{number}") for number in range(10_000))
        for target in self.TARGETS:
            assert abs(drawn[target.account_id] / 100 - (target.share or 0)) <= 1, drawn

    def test_ids_made_in_one_burst_are_split_too(self) -> None:
        """They share their first half, the time."""
        drawn = Counter(self.draw(ids.new_id("ord")) for _ in range(10_000))
        assert abs(drawn["a"] / 100 - 50) <= 3  # six standard deviations
        assert drawn["d"] == 0

    @given(st.text(min_size=1))
    def test_an_order_always_draws_the_same(self, order_id: str) -> None:
        assert 0 <= draw_point(order_id) < 100
        assert draw_point(order_id) == draw_point(order_id)

    @given(st.lists(st.integers(min_value=0, max_value=100), max_size=4))
    def test_of_a_hundred_points_each_target_has_its_share(self, cuts: list[int]) -> None:
        edges = [0, *sorted(cuts), 100]
        targets = [Target(str(place), high - low) for place, (low, high) in enumerate(pairwise(edges))]
        drawn = Counter(draw_target(targets, point).account_id for point in range(100))
        assert drawn == Counter({target.account_id: target.share or 0 for target in targets})

    def test_another_process_draws_the_same(self) -> None:
        """No salt of a process is in it: a retry elsewhere must route the same."""
        assert [draw_point(f"ord_{number}") for number in range(5)] == DRAWN

    def test_the_rest_follows_in_its_order(
        self, stripe: GatewayAccount, second: GatewayAccount, adyen: GatewayAccount
    ) -> None:
        make_rule(adyen, stripe, second, shares=(0, 100, None))
        routes = choose_routes(subject(payment_methods=TOKENS))
        assert [route.account for route in routes] == [stripe, adyen, second]
        assert routes[0].why == "rule “Europe”, its share of 100 %"
        assert choose_routes(subject(payment_methods=TOKENS)) == routes

    def test_no_unsplit_rule_draws(self) -> None:
        rule = Rule("x", 1, [Target("a"), Target("b")])
        accounts = [
            GatewayAccount(pk="a", gateway="stripe", name="a"),
            GatewayAccount(pk="b", gateway="adyen", name="b"),
        ]
        for number in range(50):
            wish = subject(order_id=f"ord_{number}", payment_methods=TOKENS)
            routes = list_routes(rank_accounts(wish, [rule], accounts, lambda account: True))
            assert [route.account.pk for route in routes] == ["a", "b"]


class TestValidation:
    @pytest.mark.parametrize(
        ("fields", "field", "message"),
        [
            ({"currencies": ["EUR", "XTS"]}, "currencies", "No payable ISO 4217 currency: XTS"),
            ({"currencies": "EUR"}, "currencies", "a list"),
            ({"countries": ["Germany"]}, "countries", "two capital letters"),
            (
                {"currencies": ["EUR"], "min_amount": 2, "max_amount": 1},
                "min_amount",
                "no order would ever fit",
            ),
            ({"min_amount": 2}, "min_amount", "needs one currency"),
            ({"currencies": ["EUR", "USD"], "max_amount": 2}, "max_amount", "needs one currency"),
            ({"currencies": ["EUR"], "min_amount": -1}, "min_amount", "at least 0"),
        ],
    )
    @pytest.mark.django_db
    def test_a_rule_that_makes_no_sense_is_refused(
        self, fields: dict[str, Any], field: str, message: str
    ) -> None:
        with pytest.raises(ValidationError) as caught:
            RoutingRule(name="x", **fields).full_clean()
        assert message in caught.value.message_dict[field][0]

    def test_targets_are_right_or_wrong_together(
        self, stripe: GatewayAccount, second: GatewayAccount, adyen: GatewayAccount
    ) -> None:
        def check(*pairs: tuple[GatewayAccount, int | None]) -> str:
            return " ".join(check_targets([RoutingTarget(account=a, share=share) for a, share in pairs]))

        assert check((stripe, None), (second, None)) == ""
        assert check((stripe, 70), (second, 30), (adyen, None)) == ""
        assert "at least one" in check()
        assert "sum to 90, not to 100" in check((stripe, 60), (second, 30))
        assert "stripe/routed is named twice" in check((stripe, None), (stripe, None))
        adyen.is_active = False
        assert "adyen/routed is not active" in check((adyen, None))
        assert check_targets([RoutingTarget(account=adyen)], is_active=False) == []


class TestReplay:
    @pytest.fixture
    def orders(self, stripe: GatewayAccount, adyen: GatewayAccount) -> None:
        for currency in ("EUR", "EUR", "USD"):
            order = OrderFactory(currency=currency)
            PaymentFactory(order=order, account=stripe, payment_methods=TOKENS)

    def test_counts_what_the_rules_would_do(
        self, orders: None, adyen: GatewayAccount, django_assert_num_queries: Queries
    ) -> None:
        assert replay_orders(load_rules()).rows == [("stripe/routed", 3, 3)]
        make_rule(adyen, currencies=["EUR"], countries=["DE"])
        rules = load_rules()
        with django_assert_num_queries(3):
            replay = replay_orders(rules)
        assert (replay.orders, replay.moved) == (3, 2)
        assert replay.rows == [("adyen/routed", 0, 2), ("stripe/routed", 3, 1)]

    def test_looks_at_the_newest_alone(self, orders: None) -> None:
        assert replay_orders([], most=2).orders == 2
        assert MOST_ORDERS == 1000

    def test_says_what_would_go_nowhere(self, orders: None) -> None:
        GatewayAccount.objects.update(is_active=False)
        assert replay_orders([]).rows == [(NOWHERE, 0, 3), ("stripe/routed", 3, 0)]

    def test_a_draft_takes_its_place(self, stripe: GatewayAccount, adyen: GatewayAccount) -> None:
        saved = make_rule(stripe, name="saved", priority=5)
        make_rule(stripe, name="other", priority=3)
        saved.name, saved.priority = "renamed", 1
        draft = draft_rule(saved, [RoutingTarget(account=adyen, position=2), RoutingTarget(account=stripe)])
        rules = put_in_place(load_rules(), draft, instead_of="saved")
        assert [rule.name for rule in rules] == ["renamed", "other"]
        assert [target.account_id for target in rules[0].targets] == [stripe.pk, adyen.pk]
