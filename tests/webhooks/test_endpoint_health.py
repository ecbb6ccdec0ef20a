"""Endpoints that ask for time are left alone, silent ones paused, failing ones disabled, told of, and probed."""

from __future__ import annotations

import smtplib
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core import mail
from django.utils import timezone
from standardwebhooks import Webhook

from payments import runbook
from payments.models import Event, OnCallPage
from tests.factories.payments import EventFactory
from tests.factories.webhooks import DeliveryFactory, EndpointFactory
from webhooks import endpoint_health as health
from webhooks import endpoints, notices, outbound, tasks
from webhooks.models import Delivery, DeliveryState, Endpoint, EndpointNotice
from webhooks.transport import Answer, _read_retry_after

pytestmark = pytest.mark.django_db

SILENT = Answer(None, error="no answer within 15 s", is_silent=True)
REFUSED = Answer(None, error="connection refused")


@pytest.fixture
def endpoint() -> Endpoint:
    made: Endpoint = EndpointFactory(notify_email="shop@storefront.example")
    return made


def answer_next(endpoint: Endpoint, answer: Answer) -> Delivery:
    """A delivery there is taken and answered."""
    delivery: Delivery = DeliveryFactory(endpoint=endpoint)
    Delivery.objects.filter(pk=delivery.pk).update(leased_until=timezone.now())
    delivery = Delivery.objects.select_related("endpoint", "event").get(pk=delivery.pk)
    delivery.attempts = 1
    outbound.record_answer(delivery, answer, started_at=timezone.now())
    endpoint.refresh_from_db()
    delivery.refresh_from_db()
    return delivery


def seconds_until(moment: datetime | None) -> float:
    assert moment
    return (moment - timezone.now()).total_seconds()


def end_pause(endpoint: Endpoint) -> None:
    Endpoint.objects.filter(pk=endpoint.pk).update(paused_until=timezone.now())


# --- pauses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
def test_who_asks_for_time_is_left_alone_as_a_whole(endpoint: Endpoint, status: int) -> None:
    delivery = answer_next(endpoint, Answer(status, retry_after=900))
    assert 895 < seconds_until(endpoint.paused_until) <= 900
    assert 895 < seconds_until(delivery.next_try_at) <= 900
    DeliveryFactory(endpoint=endpoint)
    assert outbound._claim(10) == []


def test_a_shorter_wish_does_not_end_a_longer_pause_and_no_pause_is_above_a_day(endpoint: Endpoint) -> None:
    answer_next(endpoint, Answer(503, retry_after=10**9))
    assert 86_390 < seconds_until(endpoint.paused_until) <= 86_400
    answer_next(endpoint, Answer(429, retry_after=5))
    assert seconds_until(endpoint.paused_until) > 86_390
    answer_next(endpoint, Answer(200))
    assert seconds_until(endpoint.paused_until) > 86_390


def test_retry_after_is_read_in_both_its_forms() -> None:
    in_a_minute = (datetime.now().astimezone() + timedelta(seconds=60)).astimezone(tz=None)
    formatted = in_a_minute.astimezone(tz=timezone.get_fixed_timezone(0)).strftime(
        "%a, %d %b %Y %H:%M:%S GMT"
    )
    assert 58 <= (_read_retry_after(formatted) or 0) <= 60
    assert _read_retry_after("120") == 120
    assert _read_retry_after("9" * 30) == 999_999_999
    for senseless in ("", "soon", "-5", "1.5", "Fri, 99 Foo 2026", "Thu, 01 Jan 1970 00:00:00 GMT", "١٢"):
        assert _read_retry_after(senseless) is None


def test_a_silent_endpoint_is_paused_for_growing_times(endpoint: Endpoint) -> None:
    for _ in range(health.PATIENCE - 1):
        answer_next(endpoint, SILENT)
        assert endpoint.paused_until is None
    for minutes in (1, 2, 4, 8, 16, 32, 60, 60):
        answer_next(endpoint, SILENT)
        assert minutes * 60 - 5 < seconds_until(endpoint.paused_until) <= minutes * 60
        end_pause(endpoint)
    assert [health.choose_pause(number) for number in range(1, 6)] == [0, 0, 60, 120, 240]


def test_what_was_under_way_when_the_pause_began_makes_it_no_longer(endpoint: Endpoint) -> None:
    for _ in range(health.PATIENCE + 2):
        answer_next(endpoint, SILENT)
    assert endpoint.silences == health.PATIENCE
    assert seconds_until(endpoint.paused_until) <= 60


@pytest.mark.parametrize("answer", [Answer(200), Answer(500), Answer(404)])
def test_an_answer_of_any_kind_ends_the_silence(endpoint: Endpoint, answer: Answer) -> None:
    for _ in range(health.PATIENCE):
        answer_next(endpoint, SILENT)
    answer_next(endpoint, answer)
    assert (endpoint.silences, endpoint.paused_until) == (0, None)


def test_a_refused_connection_is_a_failure_but_no_silence(endpoint: Endpoint) -> None:
    for _ in range(health.PATIENCE + 1):
        answer_next(endpoint, REFUSED)
    assert (endpoint.silences, endpoint.paused_until) == (0, None)
    assert endpoint.failing_since


# --- the end, and who hears of it -------------------------------------------------------------------------------


def fail_for_good(endpoint: Endpoint, **changes: Any) -> Delivery:
    Endpoint.objects.filter(pk=endpoint.pk).update(
        failing_since=timezone.now() - timedelta(days=5, minutes=1), **changes
    )
    return answer_next(endpoint, Answer(500))


def test_five_days_of_failures_end_with_a_call_a_mail_and_an_event(endpoint: Endpoint) -> None:
    fail_for_good(endpoint)
    assert not endpoint.is_enabled
    assert endpoint.disabled_reason == "every try has failed for 5 days"
    assert 3590 < seconds_until(endpoint.probe_at) <= 3600
    page = OnCallPage.objects.get()
    assert (page.cause, page.detail["endpoint"]) == (f"webhook_endpoint:{endpoint.pk}", endpoint.pk)
    assert runbook.find_slug(page.cause) == "an-endpoint-was-disabled"
    assert Event.objects.filter(type="webhook_endpoint.disabled").count() == 1
    assert mail.outbox == []
    assert tasks.send_notices() == 1
    [sent] = mail.outbox
    assert sent.to == ["shop@storefront.example"]
    assert "every try has failed for 5 days" in sent.body
    assert endpoint.url in sent.body
    assert tasks.send_notices() == 0


def test_more_failures_of_what_is_disabled_tell_nobody_again(endpoint: Endpoint) -> None:
    fail_for_good(endpoint)
    fail_for_good(endpoint)
    assert OnCallPage.objects.get().count == 1
    assert EndpointNotice.objects.count() == 1


def test_gone_is_told_by_mail_and_is_not_probed(endpoint: Endpoint) -> None:
    answer_next(endpoint, Answer(410))
    assert (endpoint.is_enabled, endpoint.probe_at) == (False, None)
    assert "until somebody enables it" in EndpointNotice.objects.get().text
    assert not OnCallPage.objects.exists()


def test_what_a_person_switches_off_is_neither_probed_nor_told_of(endpoint: Endpoint) -> None:
    endpoints.switch_off_endpoint(endpoint, actor="user:ann")
    endpoint.refresh_from_db()
    assert endpoint.probe_at is None
    assert not EndpointNotice.objects.exists()
    assert not OnCallPage.objects.exists()


def test_a_mail_stays_owed_until_the_server_takes_it(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(message: Any) -> None:
        raise smtplib.SMTPServerDisconnected("gone")

    answer_next(endpoint, Answer(410))
    with monkeypatch.context() as patch:
        patch.setattr(notices.EmailMessage, "send", refuse)
        for tries, pause in enumerate((30, 60, 120), start=1):
            assert notices.send_notices() == 0
            notice = EndpointNotice.objects.get()
            assert (notice.tries, notice.sent_at, "gone" in notice.error) == (tries, None, True)
            assert pause - 5 < seconds_until(notice.next_try_at) <= pause
            assert notices.send_notices() == 0
            EndpointNotice.objects.update(next_try_at=timezone.now())
    assert notices.send_notices() == 1
    assert len(mail.outbox) == 1


def test_nobody_is_written_to_who_has_not_asked_for_it() -> None:
    answer_next(EndpointFactory(), Answer(410))
    assert not EndpointNotice.objects.exists()


def test_an_address_that_was_taken_away_meanwhile_is_not_written_to(endpoint: Endpoint) -> None:
    answer_next(endpoint, Answer(410))
    endpoints.update_endpoint(endpoint, actor="user:ann", notify_email="")
    notices.send_notices()
    assert mail.outbox == []
    assert EndpointNotice.objects.get().sent_at


def test_an_endpoint_that_comes_and_goes_floods_no_mailbox(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "MOST_A_DAY", 2)
    for _ in range(4):
        answer_next(endpoint, Answer(410))
        endpoints.enable_endpoint(endpoint)
    assert EndpointNotice.objects.count() == 2
    EndpointNotice.objects.update(created_at=timezone.now() - timedelta(days=1, minutes=1))
    answer_next(endpoint, Answer(410))
    assert EndpointNotice.objects.count() == 3


# --- probes -------------------------------------------------------------------------------------------------


def probe(endpoint: Endpoint, answer: Answer, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The hour of the probe comes, it is sent as the worker does, and answered; what was sent."""
    sent: list[Any] = []

    def send(message: Any) -> Answer:
        sent.append(message)
        return answer

    monkeypatch.setattr(outbound, "_send", send)
    Endpoint.objects.filter(pk=endpoint.pk, probe_at__isnull=False).update(probe_at=timezone.now())
    endpoints.make_probes()
    outbound.deliver_due()
    endpoint.refresh_from_db()
    return sent


def test_a_probe_is_signed_like_any_message(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_for_good(endpoint)
    [message] = probe(endpoint, Answer(500), monkeypatch)
    body = Webhook(endpoint.secrets.get().value).verify(message.body, message.headers)
    assert (body["type"], body["data"]) == ("endpoint.probe", {"endpoint": endpoint.pk})
    told = Delivery.objects.get(is_probe=True)
    assert (told.state, told.attempts) == (DeliveryState.FAILED, 1)
    assert not endpoint.is_enabled


def test_probes_come_less_and_less_and_end_after_two_weeks(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_for_good(endpoint)
    for hours in health.PROBE_HOURS[1:]:
        assert len(probe(endpoint, SILENT, monkeypatch)) == 1
        assert hours * 3600 - 5 < seconds_until(endpoint.probe_at) <= hours * 3600
    assert len(probe(endpoint, SILENT, monkeypatch)) == 1
    assert endpoint.probe_at is None
    assert probe(endpoint, SILENT, monkeypatch) == []
    assert health.PROBE_HOURS[:6] == (1, 2, 4, 8, 16, 24)
    assert timedelta(days=13) < timedelta(hours=sum(health.PROBE_HOURS)) < timedelta(days=15)


def test_a_probe_may_ask_for_time_and_410_ends_them(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_for_good(endpoint)
    probe(endpoint, Answer(503, retry_after=20_000), monkeypatch)
    assert 19_990 < seconds_until(endpoint.probe_at) <= 20_000
    probe(endpoint, Answer(410), monkeypatch)
    assert endpoint.probe_at is None


def test_an_answered_probe_enables_tells_and_sends_what_was_missed(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    Endpoint.objects.update(created_at=timezone.now() - timedelta(days=30))
    given_up = DeliveryFactory(endpoint=endpoint, state=DeliveryState.FAILED, attempts=10, next_try_at=None)
    waiting = DeliveryFactory(endpoint=endpoint, next_try_at=timezone.now() + timedelta(hours=3))
    fail_for_good(endpoint)
    meanwhile = EventFactory(order__client=endpoint.client)
    sent = probe(endpoint, Answer(200), monkeypatch)
    assert endpoint.is_enabled
    assert (endpoint.failing_since, endpoint.probe_at, endpoint.disabled_reason) == (None, None, "")
    delivered = set(Delivery.objects.filter(state=DeliveryState.DELIVERED).values_list("event", flat=True))
    assert {given_up.event_id, waiting.event_id, meanwhile.pk} <= delivered
    assert not Delivery.objects.exclude(state=DeliveryState.DELIVERED).exists()
    assert sent[0].headers["webhook-event-type"] == "endpoint.probe"
    told = Event.objects.get(type="webhook_endpoint.enabled")
    assert told.data["endpoint"]["id"] == endpoint.pk
    assert told.is_public
    assert "answers again" in EndpointNotice.objects.order_by("pk").last().text  # type: ignore[union-attr]


def test_a_probe_that_is_answered_after_a_person_enabled_it_changes_nothing(endpoint: Endpoint) -> None:
    fail_for_good(endpoint)
    Endpoint.objects.update(probe_at=timezone.now())
    assert endpoints.make_probes() == 1
    [taken] = outbound._claim(10)
    endpoints.enable_endpoint(endpoint)
    outbound.record_answer(taken, Answer(200), started_at=timezone.now())
    assert not Event.objects.filter(type="webhook_endpoint.enabled").exists()


def test_two_workers_make_one_probe(endpoint: Endpoint) -> None:
    fail_for_good(endpoint)
    Endpoint.objects.update(probe_at=timezone.now())
    stale = Endpoint.objects.get()
    assert endpoints.make_probes() == 1
    assert not endpoints._make_probe(stale)
    assert endpoints.make_probes() == 0
