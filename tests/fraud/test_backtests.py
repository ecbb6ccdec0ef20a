"""Back-tests: asked for, run by a worker, canceled, taken over, and shown with their figures."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Browser, expect
from pytest_django.live_server_helper import LiveServer

from fraud.admin.backtests import read_values
from fraud.backtest import running
from fraud.backtest.running import Sweep
from fraud.models import BackTest, BackTestState, Rule, RuleSet
from payments.errors import ConflictError, InvalidRequestError
from payments.models import Order
from tests.factories.fraud import AssessmentFactory, LabelFactory, RuleFactory, RuleSetFactory, put_in_force

ANNA = "user:anna"
FACTS: dict[str, Any] = {"stage": "after", "currency": "EUR", "card_country": "DE", "billing_country": "DE"}


def screen(amount: int, *, count: int, decision: str = "approve", is_fraud: bool | None = None) -> Order:
    """An order that was screened before and after its authorization, its card used so often in an hour."""
    facts = {**FACTS, "amount": amount, "velocity": {"card:3600": count}}
    after = AssessmentFactory(stage="after", decision=decision)
    facts["order_id"] = after.order_id
    type(after).objects.filter(pk=after.pk).update(context=facts)
    AssessmentFactory(payment=after.payment, stage="before", context={**facts, "stage": "before"})
    if is_fraud is not None:
        LabelFactory(order=after.order, is_fraud=is_fraud)
    order: Order = after.order
    return order


def velocity_rule(limit: int, **fields: Any) -> Rule:
    rule: Rule = RuleFactory.build(
        ruleset=None, key="card", name="Card velocity", parameters={"limit": limit}, **fields
    )
    return rule


@pytest.fixture
def orders() -> Mapping[str, Order]:
    return {
        "fraud": screen(5_000, count=9, is_fraud=True),
        "slow fraud": screen(7_000, count=4, is_fraud=True),
        "genuine": screen(9_000, count=6, is_fraud=False),
        "quiet": screen(1_000, count=1, is_fraud=False),
        "unknown": screen(2_000, count=8),
    }


@pytest.fixture
def live() -> RuleSet:
    return put_in_force(velocity_rule(8))


@pytest.fixture
def draft(live: RuleSet) -> RuleSet:
    draft: RuleSet = RuleSetFactory(based_on=live)
    rule = velocity_rule(5)
    rule.ruleset = draft
    rule.save()
    return draft


def ask(ruleset: RuleSet, **wish: Any) -> BackTest:
    now = timezone.now()
    return running.start(
        ruleset, actor=ANNA, since=now - timedelta(days=1), until=now + timedelta(hours=1), **wish
    )


# Rows must be committed: the history is read by connections of its own.
committed = pytest.mark.django_db(transaction=True)


@committed
def test_a_worker_finds_what_would_have_changed(
    orders: Mapping[str, Order], live: RuleSet, draft: RuleSet
) -> None:
    ask(draft, beside=live, sweep=Sweep("card", "limit", [3, 5, 8]))
    assert running.run_waiting() == 1
    backtest = BackTest.objects.get()
    result = backtest.result
    assert (backtest.state, backtest.progress, result["orders"]) == (BackTestState.DONE, 100, 5)
    assert result["set"]["decisions"] == {"approve": 2, "block": 3}
    assert result["set"]["money"] == {"approve": {"EUR": 8_000}, "block": {"EUR": 16_000}}
    labels = ("labelled", "stopped", "caught", "missed", "bothered")
    assert [result["set"][name] for name in labels] == [4, 3, 1, 1, 1]
    assert [result["beside"][name] for name in labels] == [4, 1, 1, 1, 0]
    [change] = result["changes"]
    assert {**change, "examples": 0} == {
        "before": "approve", "after": "block", "orders": 2, "fraud": 0, "genuine": 1,
        "money": {"EUR": 11_000}, "examples": 0,
    }  # fmt: skip
    assert change["examples"] == [orders["genuine"].pk, orders["unknown"].pk], "the largest first"
    [rule] = result["rules"]
    assert (rule["hits"], rule["cannot_tell"], rule["hit_fraud"], rule["hit_genuine"]) == (3, 0, 1, 1)
    assert [(point["value"], point["caught"], point["bothered"]) for point in result["sweep"]] == [
        (3, 2, 1),
        (5, 1, 1),
        (8, 1, 0),
    ]


@committed
def test_beside_nothing_it_is_compared_with_what_was_decided(draft: RuleSet) -> None:
    blocked = screen(5_000, count=1, decision="block")
    ask(draft)
    running.run_waiting()
    [change] = BackTest.objects.get().result["as_decided"]
    assert (change["before"], change["after"], change["examples"]) == ("block", "approve", [blocked.pk])


@committed
def test_a_history_without_orders_is_an_empty_answer(draft: RuleSet) -> None:
    ask(draft, sweep=Sweep("card", "limit", [1]))
    running.run_waiting()
    backtest = BackTest.objects.get()
    assert (backtest.state, backtest.result["orders"], backtest.result["set"]["decisions"]) == ("done", 0, {})


@pytest.mark.django_db
class TestRunning:
    def test_a_period_that_ends_before_it_begins_is_refused(self, draft: RuleSet) -> None:
        now = timezone.now()
        with pytest.raises(InvalidRequestError, match="ends before it begins"):
            running.start(draft, actor=ANNA, since=now, until=now)

    @pytest.mark.parametrize(
        ("sweep", "words"),
        [
            (Sweep("nobody", "limit", [1]), "No rule “nobody”"),
            (Sweep("card", "colour", [1]), "parameter “colour”"),
            (Sweep("card", "limit", []), "1 to 50 values"),
            (Sweep("card", "limit", ["many"]), "cannot be tested"),
        ],
    )
    def test_a_sweep_that_cannot_be_is_refused(self, draft: RuleSet, sweep: Sweep, words: str) -> None:
        with pytest.raises(InvalidRequestError, match=words):
            ask(draft, sweep=sweep)
        assert not BackTest.objects.exists()

    def test_a_canceled_one_is_not_run_and_cannot_be_canceled_twice(self, draft: RuleSet) -> None:
        backtest = ask(draft)
        running.cancel(backtest.pk)
        assert running.run_waiting() == 0
        with pytest.raises(ConflictError, match="has ended already"):
            running.cancel(backtest.pk)

    def test_a_click_on_cancel_stops_it_at_the_next_step(self, draft: RuleSet) -> None:
        backtest = ask(draft)

        def cancel_meanwhile(*_: Any) -> None:
            running.cancel(backtest.pk)
            return read(*_)

        read, running_load = running.load_history, "fraud.backtest.running.load_history"
        with patch(running_load, side_effect=cancel_meanwhile):
            running.run_waiting()
        backtest.refresh_from_db()
        assert (backtest.state, backtest.result) == (BackTestState.CANCELED, {})

    def test_a_failure_is_told(self, draft: RuleSet) -> None:
        ask(draft)
        with patch("fraud.backtest.running.load_history", side_effect=MemoryError("no room")):
            running.run_waiting()
        backtest = BackTest.objects.get()
        assert (backtest.state, backtest.error) == (BackTestState.FAILED, "MemoryError: no room")

    def test_what_a_dead_worker_left_is_taken_over(self, draft: RuleSet) -> None:
        backtest = ask(draft)
        long_ago = timezone.now() - timedelta(hours=1)
        BackTest.objects.update(state="running", started_at=long_ago, beat_at=timezone.now())
        assert running.run_waiting() == 0, "somebody works on it"
        BackTest.objects.update(beat_at=long_ago)
        assert running.run_waiting() == 1
        backtest.refresh_from_db()
        assert backtest.state == BackTestState.DONE


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("2, 3,5", [2, 3, 5]),
        ("0.5", [0.5]),
        ("2-10/4", [2, 6, 10]),
        ("2-4", [2, 3, 4]),
        ("-3", [-3]),
        ("1, 10-30/10", [1, 10, 20, 30]),
    ],
)
def test_values_are_read_as_people_write_them(text: str, values: list[float]) -> None:
    assert read_values(text) == values


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "these are 0"),
        ("many", "“many” is not a number"),
        ("1-100/1", "these are 51"),
        ("1-1e9/0.001", "these are 51"),
        ("9-1/1", "is no range"),
        ("1-9/0", "is no range"),
        ("nan", "out of range"),
    ],
)
def test_values_that_are_none_are_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_values(text)


# --- pages --------------------------------------------------------------------------------------------------


def log_in(*rights: str) -> Client:
    user = User.objects.create_user("anna", password="a long password", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=rights))
    client = Client()
    client.force_login(user)
    return client


@committed
def test_an_analyst_starts_one_and_reads_what_it_found(
    orders: Mapping[str, Order], live: RuleSet, draft: RuleSet
) -> None:
    client = log_in("view_ruleset", "view_backtest", "run_backtest", "view_order")
    page = client.get(reverse("admin:fraud_ruleset_change", args=[draft.pk])).content.decode()
    assert "Back-test" in page
    wish = {"token": "t" * 20, "days": "7", "beside": live.pk, "vary": "card/limit", "values": "3-9/3"}
    client.post(reverse("admin:fraud_ruleset_backtest", args=[draft.pk]), wish)
    backtest = BackTest.objects.get()
    address = reverse("admin:fraud_backtest_change", args=[backtest.pk])
    waiting = client.get(address)
    assert waiting["Refresh"] == "3"
    assert "Waiting for a worker" in waiting.content.decode()
    BackTest.objects.update(until=timezone.now() + timedelta(minutes=1))
    running.run_waiting()
    done = client.get(address)
    text = done.content.decode()
    assert "Refresh" not in done
    assert "Approved, now blocked" in text
    assert orders["genuine"].reference in text
    assert "5 orders, decided again" in text
    rows = list(
        csv.reader(io.StringIO(client.get(f"{address.removesuffix('change/')}export/").getvalue().decode()))
    )
    assert ["set", "set", "caught", "1"] in rows
    assert ["sweep", "9", "stopped", "0"] in rows


@pytest.mark.django_db
def test_who_may_only_look_starts_and_cancels_nothing(draft: RuleSet) -> None:
    client = log_in("view_ruleset", "view_backtest")
    backtest = ask(draft)
    for address in ("ruleset_backtest", draft.pk), ("backtest_cancel", backtest.pk):
        assert client.post(reverse(f"admin:fraud_{address[0]}", args=[address[1]])).status_code == 403
    assert BackTest.objects.get().state == BackTestState.WAITING


@pytest.mark.browser
@committed
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_figures_fit_their_page(
    chromium: Browser,
    live_server: LiveServer,
    orders: Mapping[str, Order],
    draft: RuleSet,
    width: int,
    scheme: str,
) -> None:
    ask(draft, sweep=Sweep("card", "limit", [3, 5, 8]))
    running.run_waiting()
    client = log_in("view_ruleset", "view_backtest", "view_order")
    chosen: Any = scheme
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=chosen)
    context.add_cookies(
        [{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_server.url}]
    )
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(live_server.url + reverse("admin:fraud_backtest_change", args=[BackTest.objects.get().pk]))
    expect(page.get_by_role("heading", name="5 orders, decided again")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert errors == []
    context.close()
