"""The commands: a delivery like the gateway's, an endpoint, a catch-up; and the check for missing secrets."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from payments.kinds import OperationKind
from payments.models import AttemptState, GatewayAccount, OperationState, Order, Payment
from tests.factories.payments import (
    AttemptFactory,
    GatewayAccountFactory,
    GatewaySecretFactory,
    OperationFactory,
    PaymentFactory,
)
from webhooks import processing
from webhooks.checks import check_webhook_secrets
from webhooks.models import Endpoint, InboundState, InboundWebhook
from webhooks.replay import MissedReplay


@pytest.fixture
def payment(account: GatewayAccount) -> Payment:
    payment: Payment = PaymentFactory(account=account, is_authorized=True, gateway_reference="pi_9")
    attempt = AttemptFactory(payment=payment, gateway_reference="pi_9", state=AttemptState.LIVE)
    OperationFactory(attempt=attempt, kind=OperationKind.AUTHORIZE)
    OperationFactory(attempt=attempt, kind=OperationKind.CAPTURE, state=OperationState.SENT)
    return payment


@pytest.fixture
def simulate(payment: Payment, live_server: Any) -> Any:
    def run(*options: str, event: str = "payment_intent.succeeded") -> list[str]:
        out = StringIO()
        named = ["--gateway", "stripe", "--event", event, "--payment", payment.pk, "--url", live_server.url]
        call_command("simulate_webhook", *named, *options, stdout=out)
        return [line.partition(" ")[0] for line in out.getvalue().splitlines()]

    return run


def test_a_simulated_webhook_is_accepted_and_applied(simulate: Any, payment: Payment) -> None:
    assert simulate() == ["200"]
    processing.process_due()
    payment.refresh_from_db()
    webhook = InboundWebhook.objects.get()
    assert (webhook.state, webhook.order) == (InboundState.PROCESSED, Order.objects.get())
    assert payment.captured == payment.amount


def test_duplicates_are_acknowledged(simulate: Any) -> None:
    assert simulate("--duplicate", "2") == ["200", "200", "200"]
    assert InboundWebhook.objects.get().duplicates == 2


@pytest.mark.parametrize("option", [("--bad-signature",), ("--late", "400")])
def test_a_forged_or_stale_one_is_refused(simulate: Any, option: tuple[str, ...]) -> None:
    assert simulate(*option) == ["400"]
    assert not InboundWebhook.objects.exists()


def test_out_of_order_ends_in_the_same_state(simulate: Any, payment: Payment) -> None:
    assert simulate("--out-of-order") == ["200", "200"]
    processing.process_due()
    payment.refresh_from_db()
    assert payment.captured == payment.amount
    assert set(InboundWebhook.objects.values_list("state", flat=True)) == {InboundState.PROCESSED}


def test_what_can_be_simulated_is_listed_without_a_payment() -> None:
    out = StringIO()
    call_command("simulate_webhook", "--list", stdout=out)
    lines = out.getvalue().splitlines()
    assert any(line.split()[:2] == ["adyen", "CHARGEBACK"] for line in lines)
    assert {line.split()[0] for line in lines} == {"adyen", "braintree", "stripe"}
    only = StringIO()
    call_command("simulate_webhook", "--list", "--gateway", "braintree", stdout=only)
    assert only.getvalue().splitlines() == [line for line in lines if line.startswith("braintree")]
    with pytest.raises(CommandError, match="--event is missing; nothing was sent"):
        call_command("simulate_webhook", "--gateway", "stripe", "--payment", "pay_1")


def test_another_amount_of_a_named_operation_is_for_a_person(simulate: Any, payment: Payment) -> None:
    capture = payment.operations.get(kind=OperationKind.CAPTURE)
    assert simulate("--operation", capture.pk, "--amount", "100") == ["200"]
    processing.process_due()
    assert payment.operations.get(pk=capture.pk).state == OperationState.REQUIRES_REVIEW


def test_what_cannot_be_simulated_is_said(simulate: Any, payment: Payment) -> None:
    with pytest.raises(CommandError, match="is not one of"):
        simulate(event="invoice.paid")
    payment.account.secrets.all().delete()
    with pytest.raises(CommandError, match="no webhook secret"):
        simulate()
    with pytest.raises(CommandError, match="There is no payment"):
        call_command("simulate_webhook", "--gateway", "stripe", "--event", "x", "--payment", "pay_none")


def test_an_endpoint_is_made_and_its_secret_printed(account: GatewayAccount) -> None:
    client = PaymentFactory().order.client
    out = StringIO()
    call_command(
        "create_webhook_endpoint",
        client.name,
        "http://127.0.0.1:9/",
        "--event",
        "order.paid",
        stdout=out,
        stderr=StringIO(),
    )
    endpoint = Endpoint.objects.get()
    assert out.getvalue().strip() == endpoint.secrets.get().value
    assert endpoint.event_types == ["order.paid"]


def test_an_endpoint_that_is_not_allowed_is_not_made(account: GatewayAccount, settings: Any) -> None:
    settings.WEBHOOK_ALLOW_PRIVATE = False
    client = PaymentFactory().order.client
    with pytest.raises(CommandError, match="no endpoint was made"):
        call_command("create_webhook_endpoint", client.name, "http://10.0.0.1/")
    with pytest.raises(CommandError, match="no API client"):
        call_command("create_webhook_endpoint", "nobody", "https://hooks.example/")
    assert not Endpoint.objects.exists()


def test_missed_webhooks_are_caught_up_with(account: GatewayAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def replay(found: GatewayAccount, **wanted: Any) -> MissedReplay:
        asked.append((found, wanted["references"]))
        return MissedReplay(["inb_1"], ["inb_2", "inb_3"], ["pi_4"])

    monkeypatch.setattr("webhooks.management.commands.replay_missed_webhooks.replay_missed", replay)
    out = StringIO()
    call_command("replay_missed_webhooks", "--account", "stripe/main", "--reference", "pi_4", stdout=out)
    assert asked == [(account, ["pi_4"])]
    assert out.getvalue().splitlines() == [
        "1 replayed from the archive, 2 fetched",
        "pi_4: the gateway has no event of it",
    ]


def test_an_active_account_without_a_secret_fails_the_deployment_check(db: None) -> None:
    GatewayAccount.objects.all().update(is_active=False)
    GatewaySecretFactory(account=GatewayAccountFactory(name="good"))
    GatewaySecretFactory(account=GatewayAccountFactory(name="unset"), value="env:NOT_SET_ANYWHERE")
    GatewayAccountFactory(name="bare")
    found = check_webhook_secrets(databases=["default"])
    assert [(message.id, str(message.obj)) for message in found] == [
        ("webhooks.E001", "stripe/bare"),
        ("webhooks.E001", "stripe/unset"),
    ]
    assert check_webhook_secrets(databases=None) == []
