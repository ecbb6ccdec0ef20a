"""The purge: what is old goes, what is young, open or locked stays, and a kill in the middle loses nothing."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from payments import purge as purging
from payments.models import (
    Event,
    IdempotencyKey,
    Inquiry,
    OnCallPage,
    Order,
    OrderState,
    SagaEffect,
    SagaSignal,
    SagaState,
)
from payments.partitions import add_months
from payments.purge import Tally, purge
from payments.retention import DAYS_30, MONTHS_13, MONTHS_25
from tests.factories import (
    AttemptFactory,
    EventFactory,
    OperationFactory,
    OrderFactory,
    PaymentFactory,
    SagaRunFactory,
)
from tests.factories.customers import OpenDisputeFactory
from tests.factories.fraud import AssessmentFactory
from tests.factories.webhooks import DeliveryFactory, InboundWebhookFactory
from webhooks.models import Delivery, InboundState, InboundWebhook, OutboxPosition

pytestmark = pytest.mark.django_db
NOW = timezone.now()
DAY = timedelta(days=1)


def tally(table: str, **options: Any) -> dict[str, int]:
    """Rows or partitions by deed."""
    found = list(purge(table=table, **options))
    assert [one.error for one in found] == [""] * len(found)
    return {one.rule.deed: one.count for one in found}


def make_key(age: timedelta, *, is_tombstone: bool = False) -> IdempotencyKey:
    at = NOW - age
    return IdempotencyKey.objects.create(
        scope="shop",
        route="POST orders",
        key=f"key-{age}-{is_tombstone}",
        fingerprint="f",
        lease_expires_at=at,
        status=201,
        answer=b"{}",
        content_type="application/json",
        created_at=at,
        completed_at=at,
        is_tombstone=is_tombstone,
    )


class TestRows:
    def test_answers_become_tombstones_and_tombstones_go(self) -> None:
        young, old, ancient = make_key(DAYS_30 - DAY), make_key(DAYS_30 + DAY), make_key(MONTHS_13 + DAY)
        assert tally("payments_idempotencykey") == {"redact": 2, "delete": 1}
        young.refresh_from_db()
        old.refresh_from_db()
        assert (young.is_tombstone, bytes(young.answer or b"")) == (False, b"{}")
        assert (old.is_tombstone, old.answer) == (True, None)
        assert not IdempotencyKey.objects.filter(pk=ancient.pk).exists()
        assert tally("payments_idempotencykey") == {"redact": 0, "delete": 0}

    def test_a_dry_run_counts_and_changes_nothing(self) -> None:
        row = make_key(MONTHS_13 + DAY)
        assert tally("payments_idempotencykey", dry_run=True) == {"redact": 1, "delete": 1}
        row.refresh_from_db()
        assert not row.is_tombstone

    def test_it_walks_window_after_window(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(purging, "WINDOW", 2)
        for days in range(7):
            make_key(MONTHS_13 + days * DAY + DAY)
        young = make_key(DAY)
        assert tally("payments_idempotencykey")["delete"] == 7
        assert list(IdempotencyKey.objects.all()) == [young]

    def test_without_time_it_stops_between_windows_and_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(purging, "WINDOW", 2)
        for days in range(5):
            make_key(MONTHS_13 + days * DAY + DAY, is_tombstone=True)
        first = [
            one for one in purge(table="payments_idempotencykey", seconds=0) if one.rule.deed == "delete"
        ]
        assert [(one.count, one.is_finished) for one in first] == [(2, False)]
        assert tally("payments_idempotencykey")["delete"] == 3

    def test_who_ordered_is_forgotten_and_what_was_ordered_stays(self) -> None:
        old = NOW - MONTHS_13 - DAY
        order: Order = OrderFactory(state=OrderState.PAID, created_at=old)
        assert tally("payments_order") == {"redact": 1}
        order.refresh_from_db()
        assert order.context == {}
        assert (order.amount, order.billing["postal_code"]) == (12950, "10115")
        assert tally("payments_order") == {"redact": 0}

    @pytest.mark.parametrize("why", ["young", "unfinished", "disputed"])
    def test_who_ordered_is_kept_while_it_matters(self, why: str) -> None:
        age = DAY if why == "young" else MONTHS_13 + DAY
        state = OrderState.PROCESSING if why == "unfinished" else OrderState.PAID
        order = OrderFactory(state=state, created_at=NOW - age)
        payment = PaymentFactory(order=order, is_captured=True)
        if why == "disputed":
            OpenDisputeFactory(payment=payment)
        assert tally("payments_order") == {"redact": 0}

    def test_the_memory_of_ended_runs_goes(self) -> None:
        old = NOW - MONTHS_13 - DAY
        for state in (SagaState.COMPLETED, SagaState.QUARANTINED):
            run = SagaRunFactory(state=state, created_at=old, updated_at=old, wake_at=None)
            SagaEffect.objects.create(run=run, step="authorize", direction="do", intent_at=old)
            SagaSignal.objects.create(run=run, name="customer", dedupe_id="1", created_at=old)
        assert tally("payments_sagaeffect") == {"delete": 1}
        assert tally("payments_sagasignal") == {"delete": 1}
        assert SagaEffect.objects.get().run.state == SagaState.QUARANTINED

    def test_answers_about_settled_operations_go(self) -> None:
        old = NOW - MONTHS_13 - DAY
        for state in ("succeeded", "unknown"):
            operation = OperationFactory(state=state)
            Inquiry.objects.create(operation=operation, answer="absent", asked_at=old)
        assert tally("payments_inquiry") == {"delete": 1}
        assert Inquiry.objects.get().operation.state == "unknown"

    def test_old_calls_go(self) -> None:
        old = NOW - MONTHS_13 - DAY
        OnCallPage.objects.create(cause="x", hour=old, text="", created_at=old)
        assert tally("payments_oncallpage") == {"delete": 1}

    def test_sessions_that_ended_go_in_any_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(purging, "WINDOW", 1)
        for key, age in (("a", -DAY), ("b", DAY), ("c", -DAY), ("d", DAY)):
            Session.objects.create(session_key=key, session_data="", expire_date=NOW - age)
        assert tally("django_session") == {"delete": 2}
        assert set(Session.objects.values_list("pk", flat=True)) == {"a", "c"}


@pytest.mark.django_db(transaction=True)
class TestWhileTheSiteRuns:
    def test_what_somebody_works_on_is_passed_over(self) -> None:
        held = make_key(MONTHS_13 + DAY)
        make_key(MONTHS_13 + 2 * DAY)
        is_held, may_end = threading.Event(), threading.Event()

        def work() -> None:
            try:
                with transaction.atomic():
                    IdempotencyKey.objects.select_for_update().get(pk=held.pk)
                    is_held.set()
                    may_end.wait(120)
            finally:
                connection.close()

        worker = threading.Thread(target=work)
        worker.start()
        try:
            assert is_held.wait(120)
            assert tally("payments_idempotencykey") == {"redact": 1, "delete": 1}
        finally:
            may_end.set()
            worker.join()
        assert list(IdempotencyKey.objects.all()) == [held]
        assert tally("payments_idempotencykey") == {"redact": 1, "delete": 1}

    def test_each_window_is_committed_on_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(purging, "WINDOW", 2)
        for days in range(5):
            make_key(MONTHS_13 + days * DAY + DAY, is_tombstone=True)
        treat, windows = purging._treat_window, []

        def die_at_the_second(rule: Any, *args: Any, **options: Any) -> int:
            windows.append(rule.deed)
            if windows.count("delete") == 2:
                raise KeyboardInterrupt
            return treat(rule, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(purging, "_treat_window", die_at_the_second)
            with pytest.raises(KeyboardInterrupt):
                tally("payments_idempotencykey")
        assert IdempotencyKey.objects.count() == 3
        assert tally("payments_idempotencykey")["delete"] == 3


class TestTheOutbox:
    @pytest.fixture
    def old(self) -> datetime:
        OutboxPosition.objects.update_or_create(pk=1, defaults={"settled_until": "evt_z"})
        return NOW - MONTHS_25 - DAY

    def test_told_events_go_and_what_people_did_stays(self, old: datetime) -> None:
        EventFactory(created_at=old)
        signed = EventFactory(created_at=old, actor="user:ann", type="order.note")
        undelivered = DeliveryFactory(event=EventFactory(created_at=old)).event
        young = EventFactory()
        assert tally("payments_event") == {"delete": 1}
        assert set(Event.objects.all()) == {signed, undelivered, young}

    def test_what_is_not_fanned_out_stays(self, old: datetime) -> None:
        OutboxPosition.objects.update(settled_until="evt_")
        EventFactory(created_at=old)
        assert tally("payments_event") == {"delete": 0}

    def test_nothing_else_may_delete_or_change_an_event(self, old: datetime) -> None:
        event, young = EventFactory(created_at=old), EventFactory()
        set_purpose = "SELECT set_config('countinghouse.data_life', %s, true)"
        attacks = [
            ("", "DELETE FROM payments_event", []),
            ("erase", "DELETE FROM payments_event", []),
            ("purge", "DELETE FROM payments_event WHERE id = %s", [young.pk]),
            ("purge", "UPDATE payments_event SET data = '{}' WHERE id = %s", [event.pk]),
            ("erase", "UPDATE payments_event SET type = 'x' WHERE id = %s", [event.pk]),
        ]
        for purpose, statement, parameters in attacks:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(set_purpose, [purpose])
                with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
                    cursor.execute(statement, parameters)
        assert Event.objects.count() == 2


class TestTheNeighbours:
    def test_a_month_of_payloads_goes_after_90_days_and_a_row_after_13_months(self) -> None:
        long_ago = NOW - MONTHS_13 - DAY
        add_months("webhooks_inboundpayload", "received_at", now=long_ago)
        done = {"state": InboundState.PROCESSED, "next_try_at": None}
        old = InboundWebhookFactory(**done, received_at=long_ago)
        kept = InboundWebhookFactory(**done, received_at=NOW - 80 * DAY)
        untold = InboundWebhookFactory(received_at=NOW - 60 * DAY)  # younger: it holds nothing back
        assert tally("webhooks_inboundpayload")["drop"] >= 1
        assert InboundWebhook.objects.get(pk=old.pk).payload == b""
        assert tally("webhooks_inboundwebhook") == {"delete": 1}
        assert {webhook.pk for webhook in InboundWebhook.objects.all() if webhook.payload} == {
            kept.pk,
            untold.pk,
        }

    def test_a_month_stays_while_something_of_it_or_before_is_not_processed(self) -> None:
        long_ago = NOW - MONTHS_13 - DAY
        add_months("webhooks_inboundpayload", "received_at", now=long_ago)
        webhook = InboundWebhookFactory(
            state=InboundState.QUARANTINED, next_try_at=None, received_at=long_ago
        )
        tally("webhooks_inboundpayload")
        assert tally("webhooks_inboundwebhook") == {"delete": 0}
        assert InboundWebhook.objects.get(pk=webhook.pk).payload

    def test_deliveries_go_once_their_tries_have(self) -> None:
        old = NOW - MONTHS_13 - DAY
        DeliveryFactory(state="delivered", next_try_at=None, created_at=old)
        tried = DeliveryFactory(state="delivered", next_try_at=None, created_at=old)
        tried.tries.create(started_at=NOW, duration_ms=1)
        pending = DeliveryFactory(created_at=old)
        assert tally("webhooks_delivery") == {"delete": 1}
        assert set(Delivery.objects.all()) == {tried, pending}

    def test_the_facts_of_a_screening_lose_the_person(self) -> None:
        context = {"amount": 1, "ip": "198.51.100.7", "customer_email": "b***@example.com"}
        assessment = AssessmentFactory(created_at=NOW - MONTHS_13 - DAY, context=context)
        assert tally("fraud_assessment") == {"redact": 1}
        assessment.refresh_from_db()
        assert assessment.context == {"amount": 1}


class TestTheCommand:
    def run(self, *arguments: str) -> str:
        out = StringIO()
        call_command("purge", *arguments, stdout=out)
        return out.getvalue()

    def test_it_tells_of_every_table(self) -> None:
        make_key(MONTHS_13 + DAY)
        told = self.run("--dry-run")
        assert "1 to delete" in told
        assert "payments_sagaevent" in told
        assert IdempotencyKey.objects.exists()
        assert "1 deleted" in self.run("--table", "payments_idempotencykey")
        assert not IdempotencyKey.objects.exists()

    def test_it_lists_what_is_kept(self) -> None:
        assert "payments_ledgerentry" in self.run("--kept")

    def test_an_unknown_table_is_an_error(self) -> None:
        with pytest.raises(CommandError, match="nothing was changed"):
            self.run("--table", "payments_payment")

    def test_a_refusal_is_told_and_the_rest_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        make_key(MONTHS_13 + DAY)
        treat = purging._treat_window

        def refuse(rule: Any, *args: Any, **options: Any) -> int:
            if rule.deed == "redact":
                with transaction.atomic(), connection.cursor() as cursor:
                    cursor.execute("SELECT 1/0")
            return treat(rule, *args, **options)

        monkeypatch.setattr(purging, "_treat_window", refuse)
        with pytest.raises(CommandError, match="refused by the database: payments_idempotencykey: redact"):
            self.run("--table", "payments_idempotencykey")
        assert not IdempotencyKey.objects.exists()


class TestPartOfTheFloor:
    @pytest.fixture
    def tallies(self) -> list[Tally]:
        attempt = AttemptFactory()
        OperationFactory(attempt=attempt)
        return list(purge())

    def test_young_rows_of_every_table_survive(self, tallies: list[Tally]) -> None:
        assert {one.rule.name: one.count for one in tallies if one.count} == {}
        assert all(one.is_finished for one in tallies)
