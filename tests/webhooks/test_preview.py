"""The dry run: it tells what a replay would do, and afterwards not one row anywhere is another."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core import mail
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from payments.errors import ConflictError
from payments.models import GatewayAccount, Operation, Payment, SagaRun, SagaState
from tests.factories.payments import SagaRunFactory
from tests.factories.webhooks import InboundWebhookFactory, make_event
from tests.webhooks.test_webhook_processing import REFERENCE, make_intent, make_payment
from webhooks import preview, processing, replay
from webhooks.models import InboundPayload, InboundState, InboundWebhook

pytestmark = pytest.mark.django_db


@pytest.fixture
def capture(account: GatewayAccount) -> Operation:
    """Sent, and never answered; a saga waits for it."""
    sent = make_payment(account)
    SagaRunFactory(order=sent.payment.order, state=SagaState.WAITING, waiting_for="gateway")
    return sent


def archive(account: GatewayAccount, subject: dict[str, Any], **changes: Any) -> InboundWebhook:
    event = make_event(data={"object": subject}, **changes)
    webhook: InboundWebhook = InboundWebhookFactory(
        account=account,
        event_id=event["id"],
        event_type=event["type"],
        subject=REFERENCE,
        payload=json.dumps(event).encode(),
        state=InboundState.QUARANTINED,
        next_try_at=None,
    )
    return webhook


@pytest.fixture
def webhook(account: GatewayAccount, capture: Operation) -> InboundWebhook:
    return archive(account, make_intent(capture))


def dump() -> dict[str, list[str]]:
    """Every row of every table, as text."""
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        return {table: _rows(cursor, table) for table in tables}


def _rows(cursor: Any, table: str) -> list[str]:
    cursor.execute(f'SELECT t::text FROM "{table}" t ORDER BY 1')
    return [text for (text,) in cursor.fetchall()]


def test_it_tells_what_a_capture_would_change_and_changes_no_row(
    webhook: InboundWebhook, rings: list[str], django_capture_on_commit_callbacks: Any
) -> None:
    before = dump()
    assert len(before) > 40
    with django_capture_on_commit_callbacks(execute=True) as callbacks:
        would = preview.preview(webhook.pk)
    assert dump() == before
    assert (callbacks, rings, mail.outbox) == ([], [], [])
    told = list(map(str, would.changes))
    payment = Payment.objects.get()
    assert would.error == ""
    assert would.outcomes == ("capture captured 129.50 EUR pi_1: applied",)
    assert f"Payment {payment.pk}: captured €0.00 → €129.50" in told
    assert any(line.endswith("state sent → succeeded") for line in told)
    assert any("4000 sales" in line for line in told)
    assert any(line.startswith("Event ") and "is told to" in line for line in told)
    assert "Saga checkout: hears gateway" in told


def test_what_it_tells_is_what_the_replay_does(webhook: InboundWebhook) -> None:
    preview.preview(webhook.pk)
    assert Payment.objects.get().captured == 0
    replay.replay(webhook.pk, actor="user:oncall")
    payment = Payment.objects.get()
    assert payment.captured == 12950
    again = preview.preview(webhook.pk)
    assert again.outcomes == ("capture captured 129.50 EUR pi_1: changed nothing: it was known",)
    assert again.changes == ()


def test_a_saga_that_a_fact_would_begin_does_not_begin(
    webhook: InboundWebhook, account: GatewayAccount
) -> None:
    """Money for a dead order goes back by a saga of its own, and somebody may be called."""
    SagaRun.objects.all().delete()
    payment = Payment.objects.get()
    payment.order.state = "canceled"
    payment.order.save()
    before = dump()
    told = list(map(str, preview.preview(webhook.pk).changes))
    assert dump() == before
    assert any(line.startswith("Saga undo") for line in told)


def test_an_unknown_payment_and_an_event_of_no_concern_are_told_as_such(account: GatewayAccount) -> None:
    stranger = archive(
        account, make_event()["data"]["object"] | {"id": "pi_nobody", "amount_received": 12950}
    )
    assert preview.preview(stranger.pk).outcomes == (
        "capture captured 129.50 EUR pi_nobody: the payment is not known here yet",
    )
    idle = archive(account, {"object": "customer"}, id="evt_9", type="customer.created")
    assert preview.preview(idle.pk) == preview.Preview()


def test_one_that_cannot_be_applied_says_why(
    webhook: InboundWebhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1/0")

    monkeypatch.setattr(preview, "apply_gateway_fact", fail)
    before = dump()
    assert preview.preview(webhook.pk).error.startswith("DataError: division by zero")
    assert dump() == before


def test_one_whose_payload_is_gone_is_refused(webhook: InboundWebhook) -> None:
    InboundPayload.objects.all().delete()
    with pytest.raises(ConflictError, match="not kept any more"):
        preview.preview(webhook.pk)


@pytest.mark.django_db(transaction=True)
def test_nothing_is_kept_with_a_transaction_of_its_own_either(
    webhook: InboundWebhook, rings: list[str]
) -> None:
    before = dump()
    assert preview.preview(webhook.pk).changes
    assert dump() == before
    assert not transaction.get_connection().in_atomic_block
    assert rings == []


def test_no_gateway_is_asked(webhook: InboundWebhook, monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter is there for `read_event` alone, which every adapter answers from the payload."""
    real = processing.get_gateway(webhook.account)

    class Reader:
        read_event = real.read_event

    monkeypatch.setattr(processing, "get_gateway", lambda _: Reader())
    with CaptureQueriesContext(connection) as captured:
        assert preview.preview(webhook.pk).changes
    assert captured


class TestTheCommand:
    def run(self, *words: str) -> str:
        out = StringIO()
        call_command("replay_webhooks", *words, stdout=out)
        return out.getvalue()

    def test_a_dry_run_tells_and_changes_nothing(self, webhook: InboundWebhook) -> None:
        before = dump()
        told = self.run("--since", "2020-01-01T00:00", "--account", "stripe/main", "--dry-run")
        assert dump() == before
        assert webhook.pk in told
        assert "captured €0.00 → €129.50" in told

    def test_without_it_they_are_made_due(self, webhook: InboundWebhook) -> None:
        assert "1 are due again" in self.run("--since", "2020-01-01T00:00")
        assert InboundWebhook.objects.get().state == InboundState.RECEIVED

    @pytest.mark.parametrize(
        "words",
        [
            ("--since", "soon"),
            ("--since", "2020-13-01"),
            ("--since", "2020-01-01", "--account", "stripe/nobody"),
        ],
    )
    def test_bad_words_are_refused(self, webhook: InboundWebhook, words: tuple[str, ...]) -> None:
        with pytest.raises(CommandError, match="nothing was replayed"):
            self.run(*words)
