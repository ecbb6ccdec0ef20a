"""The demo's history: lived through the services, told by every clock as past, once, and never in production."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import requests
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db.models import Count, F, Q
from django.utils import timezone
from pytest_django import Settings

from config import demo_access, demo_clock, demo_history, demo_shop, embedded
from fraud.models import (
    BackTest,
    EntityLink,
    Label,
    ListEntry,
    Review,
    RuleActivation,
    RuleSet,
    VelocityEvent,
    Verdict,
)
from payments.models import (
    Dispute,
    LedgerPeriod,
    Operation,
    Order,
    Payment,
    RoutingRule,
    SagaEffect,
    SagaEvent,
    SagaRun,
    SagaState,
    SavedPaymentMethod,
)
from payments.proof import prove_ledger
from payments.sandbox import Sandbox, start
from reconciliation.models import Discrepancy, Run
from webhooks.models import InboundState, InboundWebhook

DAYS = 14


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with start(webhook_url="http://127.0.0.1:9/webhooks/stripe/default/") as running:
        yield running


@pytest.fixture(autouse=True)
def small_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LOCAL", tmp_path)
    monkeypatch.setattr(demo_access, "KEY_FILE", tmp_path / "secrets" / "demo_api_key")
    monkeypatch.setattr(demo_history, "ORDERS_A_DAY", (1, 2))


def seed(sandbox: Sandbox, *, days: int = DAYS) -> str:
    said = io.StringIO()
    call_command("seed_demo", days=days, sandbox_url=sandbox.url, stdout=said)
    return said.getvalue()


# --- where it refuses ---------------------------------------------------------------------------------------
def test_no_history_is_made_up_in_production(settings: Settings) -> None:
    settings.PRODUCTION = True
    with pytest.raises(CommandError, match="not seeded with DJANGO_ENV=production"):
        call_command("seed_demo")


def test_what_is_not_the_sandbox_is_not_charged() -> None:
    with pytest.raises(CommandError, match="is not the sandbox gateway; nothing was seeded"):
        call_command("seed_demo", sandbox_url="http://127.0.0.1:9")


def test_a_database_role_that_may_not_move_times_is_refused(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("config.management.commands.seed_demo.is_superuser", lambda: False)
    with pytest.raises(CommandError, match="Only a superuser"):
        seed(sandbox)


# --- what it tells ------------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_a_history_has_everything_that_happens_in_a_shop_and_its_books_hold(sandbox: Sandbox) -> None:
    said = seed(sandbox)
    assert "not played" not in said, said
    assert prove_ledger() == []
    assert_sagas_have_mishaps()
    assert_webhooks_have_trouble()
    assert_finance_has_work()
    assert_captures_come_in_parts()
    assert_disputes_stand_as_they_were_played()
    assert_a_saved_card_is_charged_without_its_holder()
    assert_dollars_are_routed_by_a_rule()
    assert_the_first_days_are_closed()
    assert Review.objects.open().count() == demo_history.OPEN_REVIEWS
    assert Order.objects.filter(state="blocked").exists()
    assert_the_fraud_desk_is_alive()
    assert_it_is_past()
    assert requests.get(f"{sandbox.url}/_deliveries", timeout=60).json() == {"deliveries": []}
    assert "nothing was added" in seed(sandbox)
    assert "nothing was added" in seed(sandbox, days=30)


def assert_sagas_have_mishaps() -> None:
    states = list(SagaRun.objects.stuck().order_by("state").values_list("state", flat=True))
    assert states == [SagaState.FAILED_COMPENSATION] * 2 + [SagaState.QUARANTINED]
    assert SagaEvent.objects.filter(kind="operator_retry", run__state=SagaState.COMPENSATED).count() == 1


def assert_webhooks_have_trouble() -> None:
    troubled = InboundWebhook.objects.troubled().order_by("state")
    assert list(troubled.values_list("state", flat=True)) == [InboundState.PARKED, InboundState.QUARANTINED]
    assert InboundWebhook.objects.filter(state=InboundState.PROCESSED).exists()


def assert_finance_has_work() -> None:
    assert Run.objects.completed().count() == DAYS - 1
    assert set(Discrepancy.objects.values_list("state", flat=True)) == {
        "open",
        "assigned",
        "resolved",
        "closed",
    }
    kinds = set(Discrepancy.objects.values_list("kind", flat=True))
    assert kinds >= {"missing_internal", "missing_gateway", "amount_mismatch"}


def assert_captures_come_in_parts() -> None:
    succeeded = Q(operations__kind="capture", operations__state="succeeded")
    parts = Payment.objects.annotate(parts=Count("operations", filter=succeeded)).filter(parts__gt=1)
    assert list(parts.values_list("parts", flat=True)) == [2, 2, 2]
    assert not parts.exclude(captured=F("amount")).exists()
    refund = Operation.objects.get(kind="refund", payment__in=parts)
    assert refund.state == "succeeded"
    assert refund.capture is not None
    assert 0 < refund.amount < refund.capture.amount < refund.payment.captured
    rest = Operation.objects.get(kind="void", payment__captured__gt=0)
    assert (rest.state, rest.payment.capturable, rest.payment.order.state) == ("succeeded", 0, "paid")
    assert 0 < rest.payment.captured < rest.payment.amount


def assert_disputes_stand_as_they_were_played() -> None:
    now = timezone.now()
    ends = Dispute.objects.order_by("stage", "state").values_list("stage", "state", "is_withdrawn")
    assert list(ends) == [
        ("chargeback", "lost", True),
        ("chargeback", "needs_response", True),
        ("chargeback", "won", False),
        ("inquiry", "needs_response", False),
    ]
    waiting = Dispute.objects.unanswered()
    assert all(each.due_by and each.due_by > now + timedelta(days=3) for each in waiting)
    assert all(each.evidence.exists() for each in Dispute.objects.filter(stage="chargeback"))
    assert not Dispute.objects.filter(opened_at__gt=now - timedelta(days=1)).exists()


def assert_a_saved_card_is_charged_without_its_holder() -> None:
    method = SavedPaymentMethod.objects.usable().get()
    later = Order.objects.get(payment__saved_method=method, payment__is_merchant_initiated=True)
    assert later.state == "paid"


def assert_dollars_are_routed_by_a_rule() -> None:
    rule = RoutingRule.objects.get()
    assert [target.account.gateway for target in rule.targets.all()] == ["stripe"]


def assert_the_first_days_are_closed() -> None:
    period = LedgerPeriod.objects.closed().get()
    assert (period.last_day - period.first_day).days == DAYS - 1 - demo_history.CLOSED_BEFORE.days
    assert period.postings > 0


def assert_the_fraud_desk_is_alive() -> None:
    """Every page of fraud has something to show, and nothing of it is younger than the orders."""
    states = RuleSet.objects.order_by("number").values_list("state", flat=True)
    assert list(states) == ["published", "published", "draft"]
    assert RuleActivation.objects.in_force().ruleset.number == 2
    assert not RuleActivation.objects.filter(starts_at__gt=timezone.now() - timedelta(days=7)).exists()
    assert Verdict.objects.filter(rule_key="cards-per-device", outcome="block").exists()
    assert Verdict.objects.filter(rule_key="new-account", status="shadow").exists()
    backtest = BackTest.objects.get()
    assert (backtest.state, len(backtest.result["sweep"])) == ("done", 6)
    assert set(Label.objects.values_list("source", flat=True)) == {
        "dispute",
        "early_warning",
        "refund_as_fraud",
        "manual",
        "decision",
    }
    assert set(ListEntry.objects.values_list("list", flat=True)) == {"block", "review", "allow"}
    assert ListEntry.objects.filter(list="block", hits__gt=0).exists()
    waiting = Review.objects.open()
    assert waiting.exclude(proposed_by="").count() == 1
    assert waiting.filter(escalated_at__isnull=False).count() == 1
    assert waiting.asleep().count() == 1
    assert Review.objects.filter(state="rejected", decided_by="user:fraud_supervisor").exists()
    kinds = set(VelocityEvent.objects.values_list("kind", flat=True))
    assert kinds == {"attempt", "approved", "decline", "chargeback"}
    two_days = timedelta(days=2)  # what was not screened is linked at night
    assert not EntityLink.objects.filter(at__gt=F("order__created_at") + two_days).exists()


def assert_it_is_past() -> None:
    """No clock gives it away: what the database stamped lies where the orders lie."""
    days = set(Order.objects.values_list("created_at__date", flat=True))
    last = (timezone.now() - timedelta(hours=5)).date()
    assert days >= {last - timedelta(days=ago) for ago in range(DAYS)}
    before, after = (
        F("run__order__created_at") - timedelta(seconds=1),
        F("run__order__created_at") + timedelta(days=7),
    )
    assert not SagaEvent.objects.exclude(at__gte=before, at__lte=after).exists()
    assert not SagaEffect.objects.exclude(intent_at__gte=before, intent_at__lte=after).exists()
    for waiting in SagaEvent.objects.filter(kind="waiting"):
        deadline = datetime.fromisoformat(waiting.detail["deadline"])
        assert timedelta(0) < deadline - waiting.at <= timedelta(days=5)
    minutes = timedelta(minutes=10)  # another card is tried some minutes later
    tried = VelocityEvent.objects.filter(kind="attempt")
    assert not tried.filter(at__gt=F("order__created_at") + minutes).exists()
    assert not InboundWebhook.objects.filter(processed_at__gt=F("received_at") + minutes).exists()
    assert not InboundWebhook.objects.filter(
        received_at__gt=F("order__created_at") + timedelta(days=7)
    ).exists()


@pytest.mark.django_db(transaction=True)
def test_a_history_that_broke_off_goes_on_with_the_next_day(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(demo_history.History, "_reconcile", interrupt)
        with pytest.raises(KeyboardInterrupt):
            seed(sandbox, days=3)
    begun = Order.objects.count()
    said = seed(sandbox, days=3)
    assert Order.objects.count() > begun
    assert "not played" not in said
    assert "nothing was added" in seed(sandbox, days=3)
    assert prove_ledger() == []


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


# --- what it is made of -------------------------------------------------------------------------------------
def test_the_same_order_is_drawn_from_the_same_seed() -> None:
    at = timezone.now()

    def draw() -> object:
        return demo_shop.draft_order(demo_shop.roll("day"), reference="W-1", at=at, history="x")

    assert draw() == draw()


def test_every_customer_can_be_written_to() -> None:
    customers = [demo_shop.make_customer(number) for number in range(demo_shop.CUSTOMERS)]
    assert len({customer.email for customer in customers}) == demo_shop.CUSTOMERS
    assert all(customer.email.isascii() and customer.email.endswith("@example.com") for customer in customers)


def test_an_address_where_nobody_listens_is_no_sandbox() -> None:
    assert not demo_clock.Bank("http://127.0.0.1:9").is_sandbox()
