"""The worker: what is archived becomes facts, in order, at most once at a time, and is never dropped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier, Lock
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from payments.errors import ConflictError, InvalidRequestError
from payments.facts import FactOutcome
from payments.gateways.base import GatewayFact
from payments.kinds import OperationKind
from payments.models import AttemptState, GatewayAccount, Operation, OperationState, Payment, PaymentState
from tests.factories.payments import AttemptFactory, GatewayAccountFactory, OperationFactory, PaymentFactory
from tests.factories.webhooks import InboundWebhookFactory, make_event
from tests.payments.threads import run_in_threads
from webhooks import processing, replay
from webhooks.models import InboundSource, InboundState, InboundWebhook

REFERENCE = "pi_1"


def make_payment(account: GatewayAccount) -> Operation:
    """A payment whose capture was sent and never answered."""
    payment = PaymentFactory(account=account, is_authorized=True, gateway_reference=REFERENCE)
    attempt = AttemptFactory(payment=payment, gateway_reference=REFERENCE, state=AttemptState.LIVE)
    OperationFactory(attempt=attempt, kind=OperationKind.AUTHORIZE)
    capture: Operation = OperationFactory(
        attempt=attempt, kind=OperationKind.CAPTURE, state=OperationState.SENT
    )
    return capture


def make_intent(operation: Operation, **changes: Any) -> dict[str, Any]:
    return {
        "id": REFERENCE,
        "object": "payment_intent",
        "status": "succeeded",
        "amount": 12950,
        "amount_received": 12950,
        "amount_capturable": 0,
        "currency": "eur",
        "metadata": {"payment_id": operation.payment_id, "capture_operation_id": operation.pk},
    } | changes


def archive(account: GatewayAccount, event: dict[str, Any], **changes: Any) -> InboundWebhook:
    webhook: InboundWebhook = InboundWebhookFactory(
        account=account,
        event_id=event["id"],
        event_type=event["type"],
        subject=event["data"]["object"].get("id", ""),
        payload=json.dumps(event).encode(),
        **changes,
    )
    return webhook


def make_due(webhook: InboundWebhook) -> None:
    InboundWebhook.objects.filter(pk=webhook.pk).update(next_try_at=timezone.now())


def answer_with(monkeypatch: pytest.MonkeyPatch, *outcomes: FactOutcome | Exception) -> list[GatewayFact]:
    """Replaces the door of payments; the last outcome repeats."""
    seen: list[GatewayFact] = []

    def apply(account: GatewayAccount, fact: GatewayFact) -> FactOutcome:
        outcome = outcomes[min(len(seen), len(outcomes) - 1)]
        seen.append(fact)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(processing, "apply_gateway_fact", apply)
    return seen


@pytest.fixture
def webhook(account: GatewayAccount) -> InboundWebhook:
    """The capture of a payment that is known here."""
    event = make_event(data={"object": make_intent(make_payment(account))})
    return archive(account, event)


def test_a_capture_is_applied_to_its_payment(webhook: InboundWebhook) -> None:
    assert processing.process_due() == 1
    webhook.refresh_from_db()
    payment = Payment.objects.get()
    assert (payment.state, payment.captured) == (PaymentState.SUCCEEDED, 12950)
    assert (webhook.state, webhook.order_id) == (InboundState.PROCESSED, payment.order_id)
    assert webhook.outcome["facts"][0] == {
        "kind": "capture",
        "status": "captured",
        "amount": "129.50 EUR",
        "reference": REFERENCE,
        "operation": Operation.objects.get(kind="capture").pk,
        "outcome": "applied",
    }
    assert webhook.processed_at
    assert webhook.next_try_at is None


def test_a_processed_webhook_is_not_taken_again(webhook: InboundWebhook) -> None:
    processing.process_due()
    assert processing.process_due() == 0
    assert not processing.process_webhook(webhook.pk)


def test_an_event_that_says_nothing_of_payments_is_ignored(account: GatewayAccount) -> None:
    webhook = archive(account, make_event(type="customer.created", data={"object": {"object": "customer"}}))
    processing.process_due()
    webhook.refresh_from_db()
    assert (webhook.state, webhook.outcome) == (InboundState.IGNORED, {"facts": []})


def test_an_early_bird_is_parked_and_applied_once_its_payment_is_known(account: GatewayAccount) -> None:
    capture = make_payment(GatewayAccountFactory(name="elsewhere"))
    webhook = archive(account, make_event(data={"object": make_intent(capture)}))
    processing.process_due()
    webhook.refresh_from_db()
    assert (webhook.state, webhook.attempts) == (InboundState.PARKED, 1)
    assert "not known" in webhook.last_error
    assert processing.process_due() == 0
    Payment.objects.update(account=account)
    Operation.objects.update(account=account)
    make_due(webhook)
    processing.process_due()
    webhook.refresh_from_db()
    assert (webhook.state, webhook.last_error) == (InboundState.PROCESSED, "")


def test_the_waits_grow_until_the_eighth_failure_quarantines(
    webhook: InboundWebhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, RuntimeError("no luck with card 4242 4242 4242 4242"))
    waits = []
    for _ in range(7):
        make_due(webhook)
        assert processing.process_due() == 1
        webhook.refresh_from_db()
        assert webhook.state == InboundState.FAILED
        assert webhook.next_try_at
        waits.append(round((webhook.next_try_at - timezone.now()).total_seconds()))
    assert all(
        abs(wait - planned) <= 2 for wait, planned in zip(waits, processing.RETRY_SECONDS, strict=True)
    )
    make_due(webhook)
    processing.process_due()
    webhook.refresh_from_db()
    assert (webhook.state, webhook.attempts, webhook.next_try_at) == (InboundState.QUARANTINED, 8, None)
    assert webhook.last_error.startswith("RuntimeError: no luck")
    assert "4242 4242 4242 4242" not in webhook.last_error


def test_a_poison_event_does_not_stop_the_others(
    webhook: InboundWebhook, account: GatewayAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = archive(account, make_event("evt_0", data={"object": {"object": "payment_intent"}}))
    assert processing.process_due() == 2
    broken.refresh_from_db()
    webhook.refresh_from_db()
    assert (broken.state, webhook.state) == (InboundState.FAILED, InboundState.PROCESSED)


def test_an_event_that_kills_its_workers_is_quarantined_without_another_try(
    webhook: InboundWebhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = answer_with(monkeypatch, FactOutcome.APPLIED)
    for _ in range(8):  # claimed, and never heard of again
        make_due(webhook)
        assert processing._claim_next()
    make_due(webhook)
    processing.process_due()
    webhook.refresh_from_db()
    assert (webhook.state, seen) == (InboundState.QUARANTINED, [])


def test_a_claimed_row_is_left_alone_until_its_lease_ends(webhook: InboundWebhook) -> None:
    assert processing._claim_next()
    assert processing.process_due() == 0
    make_due(webhook)
    assert processing.process_due() == 1


def test_a_worker_whose_lease_was_taken_over_writes_nothing(webhook: InboundWebhook) -> None:
    stale = processing._claim_next()
    assert stale
    make_due(webhook)
    fresh = processing._claim_next()
    assert fresh
    processing._finish(stale, InboundState.IGNORED)
    webhook.refresh_from_db()
    assert webhook.state == InboundState.RECEIVED
    processing._finish(fresh, InboundState.PROCESSED)
    webhook.refresh_from_db()
    assert webhook.state == InboundState.PROCESSED


def test_events_of_one_payment_get_their_first_try_in_order(account: GatewayAccount) -> None:
    first, second = (InboundWebhookFactory(account=account, subject="pi_same") for _ in range(2))
    other = InboundWebhookFactory(account=account)
    # The second one became due before the first: still it waits.
    InboundWebhook.objects.filter(pk=second.pk).update(next_try_at=timezone.now() - timedelta(minutes=1))
    claimed = [processing._claim_next() for _ in range(3)]
    assert [row.pk if row else None for row in claimed] == [first.pk, other.pk, None]


def test_a_payments_failing_event_does_not_hold_up_its_later_ones(account: GatewayAccount) -> None:
    InboundWebhookFactory(account=account, subject="pi_same", state=InboundState.FAILED)
    later = InboundWebhookFactory(account=account, subject="pi_same")
    InboundWebhook.objects.filter(state=InboundState.FAILED).update(
        next_try_at=timezone.now() + timedelta(hours=1)
    )
    claimed = processing._claim_next()
    assert claimed == later


@pytest.mark.concurrency
@pytest.mark.django_db(transaction=True)
def test_many_workers_take_each_webhook_once(monkeypatch: pytest.MonkeyPatch) -> None:
    account = GatewayAccountFactory()
    for number in range(30):
        intent = {
            "object": "payment_intent",
            "id": f"pi_{number % 3}",
            "status": "succeeded",
            "currency": "eur",
        }
        archive(account, make_event(f"evt_{number}", data={"object": intent | {"amount_received": number}}))
    amounts: list[int] = []

    def apply(account: GatewayAccount, fact: GatewayFact) -> FactOutcome:
        amounts.append(fact.result.amount.minor)
        return FactOutcome.APPLIED

    monkeypatch.setattr(processing, "apply_gateway_fact", apply)
    monkeypatch.setattr(processing, "_find_order", lambda *_: None)
    together = Barrier(6)

    def work(_: int) -> int:
        try:
            together.wait()
            return processing.process_due()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    processing.process_due()  # a worker leaves when all that is due waits behind another's work
    assert sorted(amounts) == list(range(30))
    assert set(InboundWebhook.objects.values_list("state", "epoch", "last_error")) == {("processed", 1, "")}
    for payment in range(3):
        of_payment = [amount for amount in amounts if amount % 3 == payment]
        assert of_payment == sorted(of_payment)


def test_an_event_that_kills_its_worker_does_not_hold_up_its_payments_later_ones(
    account: GatewayAccount,
) -> None:
    made = [InboundWebhookFactory(account=account, subject="pi_same") for _ in range(2)]
    killer, later = sorted(made, key=lambda webhook: webhook.pk)  # made within one millisecond, in any order
    assert processing._claim_next() == killer
    assert processing._claim_next() is None  # it may still be at work
    InboundWebhook.objects.filter(pk=killer.pk).update(next_try_at=timezone.now() - timedelta(seconds=1))
    assert processing._claim_next(later.pk) == later


@pytest.mark.concurrency
@pytest.mark.django_db(transaction=True)
def test_no_two_events_of_a_payment_are_tried_for_the_first_time_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four workers, one payment whose events all fail at first: each first try comes alone and in order."""
    account = GatewayAccountFactory()
    for number in range(12):
        intent = {"object": "payment_intent", "id": "pi_same", "status": "succeeded", "currency": "eur"}
        archive(
            account, make_event(f"evt_{number}", data={"object": intent | {"amount_received": number + 1}})
        )
    tried: list[int] = []
    busy, together = Lock(), Barrier(4)

    def apply(account: GatewayAccount, fact: GatewayFact) -> FactOutcome:
        assert busy.acquire(blocking=False), "another first try of this payment is at work"
        try:
            tried.append(fact.result.amount.minor)
            connections["default"].ensure_connection()
            with connections["default"].cursor() as cursor:
                cursor.execute("SELECT 1")  # lets the other workers run
            raise RuntimeError("not this time")
        finally:
            busy.release()

    monkeypatch.setattr(processing, "apply_gateway_fact", apply)
    monkeypatch.setattr(processing, "RETRY_SECONDS", (3600,) * 7)

    def work(_: int) -> None:
        together.wait()
        while InboundWebhook.objects.filter(state=InboundState.RECEIVED).exists():
            processing.process_due()

    run_in_threads(work, 4)
    assert tried == list(range(1, 13))
    assert set(InboundWebhook.objects.values_list("state", "epoch")) == {("failed", 1)}
    assert all(
        "not this time" in error for error in InboundWebhook.objects.values_list("last_error", flat=True)
    )


# --- operators ----------------------------------------------------------------------------------------------


def test_a_quarantined_webhook_is_replayed_by_the_same_path(webhook: InboundWebhook) -> None:
    InboundWebhook.objects.update(state=InboundState.QUARANTINED, attempts=8, next_try_at=None)
    replayed = replay.replay(webhook.pk, actor="user:oncall")
    assert (replayed.state, replayed.replayed_by) == (InboundState.PROCESSED, "user:oncall")
    assert replayed.replayed_at
    assert Payment.objects.get().captured == 12950


def test_replaying_what_was_applied_changes_nothing(webhook: InboundWebhook) -> None:
    processing.process_due()
    replayed = replay.replay(webhook.pk, actor="user:oncall")
    assert replayed.outcome["facts"][0]["outcome"] == "noop"
    assert Payment.objects.get().captured == 12950


def test_a_webhook_that_waits_for_its_first_try_cannot_be_replayed(webhook: InboundWebhook) -> None:
    with pytest.raises(ConflictError, match="nothing was changed"):
        replay.replay(webhook.pk, actor="user:oncall")


@pytest.mark.parametrize("year", [1, 1960])
def test_a_moment_before_all_ids_means_everything(account: GatewayAccount, year: int) -> None:
    done = {"next_try_at": None, "state": InboundState.PROCESSED}
    archive(account, make_event(), **done)
    since = datetime(year, 1, 1, tzinfo=UTC)
    assert replay.find_since(since, with_done=True).count() == 1
    assert replay.replay_since(since, actor="system", with_done=True) == 1


def test_everything_that_failed_since_then_becomes_due_again(account: GatewayAccount) -> None:
    now = timezone.now()
    wanted = [
        InboundWebhookFactory(account=account, state=state)
        for state in (InboundState.FAILED, InboundState.PARKED, InboundState.QUARANTINED)
    ]
    InboundWebhookFactory(account=account, state=InboundState.PROCESSED)
    InboundWebhookFactory(account=account, state=InboundState.FAILED, received_at=now - timedelta(days=2))
    InboundWebhookFactory(state=InboundState.FAILED)
    count = replay.replay_since(now - timedelta(days=1), actor="user:oncall", account=account)
    due = InboundWebhook.objects.filter(state=InboundState.RECEIVED, next_try_at__lte=timezone.now())
    assert count == 3
    assert set(due) == set(wanted)


class ListingGateway:
    """A gateway that has a list of events."""

    def __init__(self, events: Iterable[dict[str, Any]]) -> None:
        self.events = events

    def list_events(
        self, *, since: datetime, until: datetime | None = None, types: Sequence[str] = ()
    ) -> Iterable[dict[str, Any]]:
        assert since < timezone.now()
        return self.events

    def read_event(self, payload: dict[str, Any]) -> list[GatewayFact]:
        return []


def test_a_missed_webhook_is_fetched_from_the_gateways_own_list(
    account: GatewayAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = make_payment(account)
    real = processing.get_gateway(account)
    other = make_event("evt_2", data={"object": {"object": "payment_intent", "id": "pi_other"}})
    listed = ListingGateway([make_event(data={"object": make_intent(capture)}), other])
    monkeypatch.setattr(listed, "read_event", real.read_event)
    for module in (processing, replay):
        monkeypatch.setattr(module, "get_gateway", lambda _: listed)
    report = replay.replay_missed(
        account, operation_ids=[capture.pk], references=["pi_unheard"], actor="system"
    )
    webhook = InboundWebhook.objects.get()
    assert (webhook.source, webhook.state) == (InboundSource.GATEWAY_LIST, InboundState.PROCESSED)
    assert (report.replayed, report.fetched, report.silent) == ([], [webhook.pk], ["pi_unheard"])
    assert Payment.objects.get().captured == 12950


def test_what_the_archive_has_is_replayed_and_not_fetched_again(
    webhook: InboundWebhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    InboundWebhook.objects.update(state=InboundState.QUARANTINED, next_try_at=None)
    listed = ListingGateway([json.loads(webhook.payload)])
    monkeypatch.setattr(listed, "read_event", processing.get_gateway(webhook.account).read_event)
    for module in (processing, replay):
        monkeypatch.setattr(module, "get_gateway", lambda _: listed)
    report = replay.replay_missed(webhook.account, references=[REFERENCE], actor="user:oncall")
    assert (report.replayed, report.fetched, report.silent) == ([webhook.pk], [], [])
    assert InboundWebhook.objects.get().state == InboundState.PROCESSED


def test_a_replay_of_nothing_in_particular_is_refused(account: GatewayAccount) -> None:
    with pytest.raises(InvalidRequestError, match="nothing was replayed"):
        replay.replay_missed(account, actor="system")


@pytest.mark.parametrize("poison", ["\0", "\ud83d"])
def test_an_error_that_no_column_holds_is_written_in_words(
    webhook: InboundWebhook, monkeypatch: pytest.MonkeyPatch, poison: str
) -> None:
    answer_with(monkeypatch, ValueError(f"no such status: a{poison}"))
    assert processing.process_webhook(webhook.pk)
    webhook.refresh_from_db()
    assert webhook.state == InboundState.FAILED
    assert webhook.last_error.startswith("ValueError: no such status: a\\")


def test_one_fact_that_fails_does_not_keep_back_the_others_of_its_batch(
    webhook: InboundWebhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = [processing.read_facts(webhook)[0]] * 3
    monkeypatch.setattr(processing, "read_facts", lambda webhook: facts)
    seen = answer_with(monkeypatch, FactOutcome.APPLIED, ValueError("no such thing"), FactOutcome.APPLIED)
    processing.process_webhook(webhook.pk)
    webhook.refresh_from_db()
    assert len(seen) == 3
    assert (webhook.state, webhook.last_error) == (InboundState.FAILED, "ValueError: no such thing")
