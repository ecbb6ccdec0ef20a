"""The search for webhooks that never came: complete, resumable, and loud only about what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from payments.errors import GatewayUnavailableError
from payments.gateways.base import Capabilities, Fact
from payments.models import GatewayAccount
from payments.services import FactOutcome
from tests.factories.payments import GatewayAccountFactory
from tests.factories.webhooks import InboundWebhookFactory, make_event
from webhooks import gaps, processing, tasks
from webhooks.models import GapCheck, InboundSource, InboundState, InboundWebhook

pytestmark = pytest.mark.django_db


class Lister:
    """A gateway whose list of events is `events`, each at its `created`."""

    capabilities = Capabilities(lists_events=True)

    def __init__(self, account: GatewayAccount) -> None:
        self.real = processing.get_gateway(account)
        self.events: list[dict[str, Any]] = []
        self.asked: list[tuple[datetime, datetime | None]] = []
        self.failure: Exception | None = None

    def list_events(
        self, *, since: datetime, until: datetime | None = None, types: Sequence[str] = ()
    ) -> Iterable[dict[str, Any]]:
        if self.failure:
            raise self.failure
        assert until
        self.asked.append((since, until))
        return [event for event in self.events if since.timestamp() <= event["created"] < until.timestamp()]

    def read_event(self, payload: dict[str, Any]) -> Sequence[Fact]:
        return self.real.read_event(payload)

    def add(self, event_id: str, *, minutes_ago: float, **changes: Any) -> dict[str, Any]:
        at = (timezone.now() - timedelta(minutes=minutes_ago)).timestamp()
        event = make_event(event_id, created=int(at), **changes)
        event["data"]["object"].setdefault("amount_received", 12950)
        self.events.append(event)
        return self.events[-1]


@pytest.fixture
def lister(account: GatewayAccount, monkeypatch: pytest.MonkeyPatch) -> Lister:
    GatewayAccount.objects.exclude(pk=account.pk).update(is_active=False)
    lister = Lister(account)
    monkeypatch.setattr(gaps, "get_gateway", lambda _: lister)
    return lister


def test_what_the_archive_lacks_is_archived_and_applied(
    account: GatewayAccount, lister: Lister, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = lister.add("evt_heard", minutes_ago=90)
    InboundWebhookFactory(
        account=account, event_id=heard["id"], state=InboundState.PROCESSED, next_try_at=None
    )
    lister.add("evt_missed", minutes_ago=80)
    assert gaps.check_gaps() == 1
    missed = InboundWebhook.objects.get(event_id="evt_missed")
    assert (missed.source, missed.state) == (InboundSource.GATEWAY_LIST, InboundState.RECEIVED)
    monkeypatch.setattr(processing, "apply_gateway_fact", lambda *_: FactOutcome.APPLIED)
    processing.process_due()
    missed.refresh_from_db()
    assert missed.state == InboundState.PROCESSED
    check = GapCheck.objects.get(account=account)
    assert (check.missing, check.told_missing, check.last_error) == (1, 0, "")


def test_what_may_still_be_on_its_way_is_not_missing(lister: Lister) -> None:
    lister.add("evt_young", minutes_ago=2)
    assert gaps.check_gaps() == 0
    assert all(until and until <= timezone.now() - gaps.GRACE for _, until in lister.asked)


def test_what_says_nothing_of_money_is_not_missing(lister: Lister) -> None:
    lister.add(
        "evt_customer", minutes_ago=30, type="customer.created", data={"object": {"object": "customer"}}
    )
    assert gaps.check_gaps() == 0


def test_only_the_types_that_the_endpoint_is_subscribed_to_are_missing(
    account: GatewayAccount, lister: Lister
) -> None:
    account.options = {"webhook_events": "charge.captured, customer.created"}
    account.save()
    lister.add("evt_paid", minutes_ago=30)
    lister.add(
        "evt_customer", minutes_ago=30, type="customer.created", data={"object": {"object": "customer"}}
    )
    assert gaps.check_gaps() == 1
    assert InboundWebhook.objects.get().event_id == "evt_customer"


def test_the_next_walk_begins_where_the_last_one_ended_with_an_overlap(
    account: GatewayAccount, lister: Lister
) -> None:
    gaps.check_gaps()
    until = GapCheck.objects.get().checked_until
    assert until
    lister.asked.clear()
    lister.add("evt_listed_late", minutes_ago=(timezone.now() - until).total_seconds() / 60 + 5)
    GapCheck.objects.update(checked_until=until - timedelta(minutes=1))
    assert gaps.check_gaps() == 1
    assert lister.asked[0][0] == until - timedelta(minutes=1) - gaps.OVERLAP


def test_the_watermark_stops_before_a_span_that_could_not_be_read(
    account: GatewayAccount, lister: Lister
) -> None:
    start = timezone.now() - timedelta(hours=5)
    GapCheck.objects.create(account=account, checked_until=start)
    lister.add("evt_missed", minutes_ago=60)
    lister.failure = GatewayUnavailableError("it is down; card 4242 4242 4242 4242")
    assert gaps.check_gaps() == 0
    check = GapCheck.objects.get()
    assert check.checked_until == start
    assert check.last_error.startswith("GatewayUnavailableError: it is down")
    assert "4242 4242 4242 4242" not in check.last_error
    failing_since = check.failing_since
    assert failing_since
    gaps.check_gaps()
    assert GapCheck.objects.get().failing_since == failing_since
    lister.failure = None
    assert gaps.check_gaps() == 1
    check.refresh_from_db()
    assert (check.last_error, check.failing_since) == ("", None)


def test_one_account_that_cannot_be_asked_does_not_hold_up_the_others(
    account: GatewayAccount, lister: Lister, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = GatewayAccountFactory(name="broken")
    lister.add("evt_missed", minutes_ago=60)

    def find(wanted: GatewayAccount) -> Lister:
        if wanted.pk == broken.pk:
            raise RuntimeError("no credentials")
        return lister

    monkeypatch.setattr(gaps, "get_gateway", find)
    assert gaps.check_gaps() == 1
    assert "no credentials" in GapCheck.objects.get(account=broken).last_error


def test_a_walk_that_runs_out_of_time_is_taken_up_by_the_next(
    account: GatewayAccount, lister: Lister
) -> None:
    assert gaps.check_gaps(seconds=0) == 0
    assert lister.asked == []
    lister.add("evt_missed", minutes_ago=60)
    assert gaps.check_gaps() == 1


def test_a_walk_that_another_one_has_passed_stops(account: GatewayAccount, lister: Lister) -> None:
    GapCheck.objects.create(account=account, checked_until=timezone.now() - timedelta(days=2))
    elsewhere = timezone.now() - timedelta(days=1)
    asked = lister.list_events

    def pass_by(**span: Any) -> Iterable[dict[str, Any]]:
        GapCheck.objects.update(checked_until=elsewhere)
        return asked(**span)

    lister.list_events = pass_by  # type: ignore[method-assign]
    gaps.check_gaps()
    assert len(lister.asked) == 1
    assert GapCheck.objects.get().checked_until == elsewhere


def test_spans_follow_the_traffic(
    account: GatewayAccount, lister: Lister, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gaps._fit_span(timedelta(minutes=10), gaps.MANY_EVENTS + 1) == timedelta(minutes=5)
    assert gaps._fit_span(gaps.SHORTEST_SPAN, gaps.MANY_EVENTS + 1) == gaps.SHORTEST_SPAN
    assert gaps._fit_span(timedelta(minutes=10), gaps.FEW_EVENTS) == timedelta(minutes=10)
    assert gaps._fit_span(gaps.LONGEST_SPAN, 0) == gaps.LONGEST_SPAN
    gaps.check_gaps()
    assert len(lister.asked) < 10  # a quiet day is a handful of questions
    for (_, until), (since, _) in zip(lister.asked, lister.asked[1:], strict=False):
        assert until == since  # without a hole


def test_the_night_looks_back_without_counting_twice(account: GatewayAccount, lister: Lister) -> None:
    lister.add("evt_missed", minutes_ago=60)
    assert gaps.check_gaps() == 1
    lister.add("evt_listed_very_late", minutes_ago=60 * 24 * 2)
    assert gaps.check_gaps() == 0
    assert tasks.look_back() == 1
    check = GapCheck.objects.get()
    assert check.missing == 2
    assert check.checked_until
    assert check.checked_until > timezone.now() - timedelta(hours=1)


def test_a_worker_is_woken_for_what_was_found(
    account: GatewayAccount, lister: Lister, rings: list[str]
) -> None:
    tasks.check_gaps()
    assert rings == []
    lister.add("evt_missed", minutes_ago=60)
    GapCheck.objects.all().delete()
    tasks.check_gaps()
    assert rings == ["inbound"]
