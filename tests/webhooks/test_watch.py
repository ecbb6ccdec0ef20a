"""What on-call is told of webhooks: each trouble once, one page per cause and account, and silence after."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from payments import runbook
from payments.kinds import OperationKind
from payments.models import GatewayAccount, OnCallPage, OperationState
from tests.factories.payments import AttemptFactory, GatewayAccountFactory, OperationFactory
from tests.factories.webhooks import InboundWebhookFactory
from webhooks import processing, replay, watch
from webhooks.models import GapCheck, InboundState, InboundWebhook, RejectedDelivery

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _only_ours(account: GatewayAccount) -> None:
    GatewayAccount.objects.exclude(pk=account.pk).update(is_active=False)


def causes() -> list[str]:
    return sorted(OnCallPage.objects.values_list("cause", flat=True))


def let_pass(**span: float) -> None:
    """As if the pages so far had been opened so much earlier."""
    for page in OnCallPage.objects.order_by("hour"):
        page.created_at -= timedelta(**span)
        page.hour -= timedelta(**span)
        page.save()


def hold(account: GatewayAccount, state: InboundState, *, hours: float = 2, **changes: Any) -> InboundWebhook:
    at = timezone.now() - timedelta(hours=hours)
    next_try = None if state == InboundState.QUARANTINED else timezone.now() + timedelta(hours=1)
    webhook: InboundWebhook = InboundWebhookFactory(
        account=account, state=state, received_at=at, next_try_at=next_try, **changes
    )
    return webhook


def test_nothing_to_tell_opens_no_page(account: GatewayAccount) -> None:
    InboundWebhookFactory(account=account)
    assert watch.watch_webhooks() == 0
    assert causes() == []


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        (InboundState.PARKED, "webhook:parked:stripe/main"),
        (InboundState.FAILED, "webhook:failing:stripe/main"),
        (InboundState.QUARANTINED, "webhook:quarantined:stripe/main"),
    ],
)
def test_many_that_stand_still_are_one_page(account: GatewayAccount, state: InboundState, cause: str) -> None:
    for _ in range(3):
        hold(account, state)
    assert watch.watch_webhooks() == 1
    page = OnCallPage.objects.get()
    assert (page.cause, page.count, page.detail["webhooks"]) == (cause, 1, 3)
    assert page.path == watch.link_inbox(account.pk, state)


def test_each_is_told_once_however_long_it_stands(account: GatewayAccount) -> None:
    hold(account, InboundState.QUARANTINED, hours=24 * 7)
    assert watch.watch_webhooks() == 1
    let_pass(hours=2)
    assert watch.watch_webhooks() == 0
    hold(account, InboundState.QUARANTINED)
    assert watch.watch_webhooks() == 1
    assert OnCallPage.objects.latest("created_at").detail["webhooks"] == 1


def test_a_cause_pages_once_an_hour_and_keeps_what_came_meanwhile(account: GatewayAccount) -> None:
    hold(account, InboundState.QUARANTINED)
    watch.watch_webhooks()
    hold(account, InboundState.QUARANTINED)
    assert watch.watch_webhooks() == 0
    let_pass(hours=1, minutes=1)
    assert watch.watch_webhooks() == 1


def test_accounts_are_told_apart(account: GatewayAccount) -> None:
    hold(account, InboundState.QUARANTINED)
    hold(GatewayAccountFactory(name="second"), InboundState.QUARANTINED)
    watch.watch_webhooks()
    assert causes() == ["webhook:quarantined:stripe/main", "webhook:quarantined:stripe/second"]


def test_what_is_parked_for_less_than_an_hour_is_left_alone(account: GatewayAccount) -> None:
    hold(account, InboundState.PARKED, hours=0.5)
    hold(account, InboundState.PARKED, hours=30, replayed_at=timezone.now() - timedelta(minutes=10))
    assert watch.watch_webhooks() == 0


def test_that_a_parked_one_is_given_up_is_told_too(account: GatewayAccount) -> None:
    webhook = hold(account, InboundState.PARKED, attempts=7)
    watch.watch_webhooks()
    InboundWebhook.objects.update(next_try_at=timezone.now())
    processing.process_due()
    webhook.refresh_from_db()
    assert webhook.state == InboundState.QUARANTINED
    watch.watch_webhooks()
    assert causes() == ["webhook:parked:stripe/main", "webhook:quarantined:stripe/main"]


def test_one_that_fails_again_after_a_replay_is_told_again(account: GatewayAccount) -> None:
    webhook = hold(account, InboundState.QUARANTINED)
    watch.watch_webhooks()
    let_pass(hours=2)
    replay.replay_many([webhook.pk], actor="user:oncall")
    InboundWebhook.objects.update(attempts=7)
    processing.process_due()
    assert watch.watch_webhooks() == 1


def test_a_conflict_is_told_apart_from_what_failed(account: GatewayAccount) -> None:
    first = InboundWebhookFactory(account=account, state=InboundState.PROCESSED, next_try_at=None)
    hold(account, InboundState.QUARANTINED, event_id=first.event_id, conflict_of=first, sha256="0" * 64)
    watch.watch_webhooks()
    assert causes() == ["webhook:conflict:stripe/main"]
    assert "box=conflicts" in OnCallPage.objects.get().path


def test_a_worker_that_takes_nothing_is_told_every_hour_until_it_does(account: GatewayAccount) -> None:
    webhook = InboundWebhookFactory(account=account, received_at=timezone.now() - timedelta(minutes=6))
    assert watch.watch_webhooks() == 1
    assert watch.watch_webhooks() == 0
    let_pass(hours=1, minutes=1)
    assert watch.watch_webhooks() == 1
    InboundWebhook.objects.filter(pk=webhook.pk).update(state=InboundState.IGNORED, next_try_at=None)
    let_pass(hours=1, minutes=1)
    assert watch.watch_webhooks() == 0


def refuse(account: GatewayAccount, times: int, reason: str = "webhook_signature") -> None:
    now = timezone.now()
    hour = now.replace(minute=0, second=0, microsecond=0)
    RejectedDelivery.objects.create(
        account=account, hour=hour, reason=reason, sha256=str(times), size=1, times=times, last_at=now
    )


def test_more_refusals_than_receipts_are_told(account: GatewayAccount) -> None:
    refuse(account, 15)
    assert watch.watch_webhooks() == 0
    refuse(account, 10)
    assert watch.watch_webhooks() == 1
    assert OnCallPage.objects.get().detail == {"account": "stripe/main", "refused": 25, "accepted": 0}


def test_some_forgeries_among_many_receipts_are_not_told(account: GatewayAccount) -> None:
    account.options = {"rejected_per_hour": 2}
    account.save()
    for _ in range(4):
        InboundWebhookFactory(account=account, state=InboundState.IGNORED, next_try_at=None)
    refuse(account, 3)
    assert watch.watch_webhooks() == 0
    refuse(account, 5, "webhook_replay")
    assert watch.watch_webhooks() == 1


def test_missing_webhooks_are_told_once_with_their_number(account: GatewayAccount) -> None:
    GapCheck.objects.create(account=account, missing=5, told_missing=2)
    assert watch.watch_webhooks() == 1
    assert OnCallPage.objects.get().text.startswith("3 webhooks of stripe/main never came, and were fetched")
    let_pass(hours=2)
    assert watch.watch_webhooks() == 0
    GapCheck.objects.update(missing=6)
    assert watch.watch_webhooks() == 1


def test_a_list_that_cannot_be_read_for_hours_is_told_once_a_day(account: GatewayAccount) -> None:
    check = GapCheck.objects.create(
        account=account, failing_since=timezone.now() - timedelta(hours=1), last_error="NetworkError: down"
    )
    assert watch.watch_webhooks() == 0
    check.failing_since -= timedelta(hours=3)
    check.save()
    assert watch.watch_webhooks() == 1
    let_pass(hours=5)
    assert watch.watch_webhooks() == 0
    let_pass(hours=20)
    assert watch.watch_webhooks() == 1


def move_money(account: GatewayAccount, *, hours_ago: float) -> None:
    OperationFactory(
        attempt=AttemptFactory(payment__account=account),
        kind=OperationKind.AUTHORIZE,
        state=OperationState.SUCCEEDED,
        created_at=timezone.now() - timedelta(hours=hours_ago),
    )


@pytest.fixture
def old_account(account: GatewayAccount) -> GatewayAccount:
    GatewayAccount.objects.update(created_at=timezone.now() - timedelta(days=30))
    account.refresh_from_db()
    return account


def test_an_account_that_charges_and_hears_nothing_is_told_once(old_account: GatewayAccount) -> None:
    move_money(old_account, hours_ago=13)
    assert watch.watch_webhooks() == 1
    assert causes() == ["webhook:silence:stripe/main"]
    let_pass(days=2)
    assert watch.watch_webhooks() == 0
    InboundWebhookFactory(account=old_account, state=InboundState.PROCESSED, next_try_at=None)
    watch.watch_webhooks()
    assert GapCheck.objects.get().silent_since is None


def test_a_young_payment_or_one_that_was_heard_of_is_no_silence(old_account: GatewayAccount) -> None:
    move_money(old_account, hours_ago=3)
    assert watch.watch_webhooks() == 0
    move_money(old_account, hours_ago=20)
    InboundWebhookFactory(
        account=old_account,
        state=InboundState.PROCESSED,
        received_at=timezone.now() - timedelta(hours=19),
        next_try_at=None,
    )
    assert watch.watch_webhooks() == 0


def test_an_account_that_may_be_silent_is_left_alone(old_account: GatewayAccount) -> None:
    old_account.options = {"silence_hours": "0"}
    old_account.save()
    move_money(old_account, hours_ago=13)
    assert watch.watch_webhooks() == 0


def test_an_operation_that_nobody_asks_about_is_told(account: GatewayAccount) -> None:
    attempt = AttemptFactory(payment__account=account)
    old = timezone.now() - timedelta(hours=3)
    OperationFactory(
        attempt=attempt, kind="capture", state="pending", created_at=old, next_ask_at=timezone.now()
    )
    assert watch.watch_webhooks() == 0
    OperationFactory(attempt=attempt, kind="capture", state="sent", created_at=old)
    assert watch.watch_webhooks() == 1
    assert causes() == ["operation:unasked:stripe/main"]


def test_a_rule_that_cannot_be_followed_does_not_silence_the_others(
    account: GatewayAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Iterator[watch.Alarm]:
        raise RuntimeError("a bug")
        yield

    hold(account, InboundState.QUARANTINED)
    monkeypatch.setattr(watch, "RULES", (fail, *watch.RULES))
    assert watch.watch_webhooks() == 1


@pytest.mark.parametrize(
    ("cause", "slug"),
    [
        ("webhook:parked:stripe/main", "a-webhook-waits-for-more-than-an-hour"),
        ("webhook:failing:stripe/main", "a-webhook-waits-for-more-than-an-hour"),
        ("webhook:quarantined:stripe/main", "a-webhook-is-quarantined"),
        ("webhook:conflict:stripe/main", "a-webhook-contradicts-another"),
        ("webhook:stuck", "nothing-moves"),
        ("webhook:rejected:stripe/main", "deliveries-are-refused"),
        ("webhook:gap:stripe/main", "webhooks-are-missing"),
        ("webhook:gap-check:stripe/main", "webhooks-are-missing"),
        ("webhook:silence:stripe/main", "webhooks-are-missing"),
        ("operation:unasked:stripe/main", "an-operation-is-unknown"),
    ],
)
def test_each_cause_has_its_section_in_the_guide(cause: str, slug: str) -> None:
    assert runbook.find_slug(cause) == slug
    assert slug in runbook.read_sections()
