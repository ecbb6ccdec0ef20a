"""Every event that can be simulated goes through the address, the archive and the worker, and does what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from payments.errors import ConflictError, InvalidRequestError
from payments.gateways.adyen import events as adyen
from payments.gateways.adyen.disputes import DISPUTE_EVENTS as ADYEN_DISPUTES
from payments.gateways.braintree import events as braintree
from payments.gateways.stripe import events as stripe
from payments.gateways.stripe.disputes import DISPUTE_EVENTS as STRIPE_DISPUTES
from payments.kinds import OperationKind
from payments.models import AttemptState, GatewayAccount, Operation, OperationState, Payment, PaymentState
from tests.factories.payments import (
    AttemptFactory,
    GatewayAccountFactory,
    GatewaySecretFactory,
    OperationFactory,
    PaymentFactory,
)
from webhooks import processing, replay
from webhooks.models import InboundState, InboundWebhook, RejectedDelivery
from webhooks.simulation import OUTSIDE, SIMULATORS, list_events, simulate_deliveries

pytestmark = pytest.mark.django_db

ACCOUNTS: Mapping[str, Mapping[str, Any]] = {
    "stripe": {"secret": "whsec_of_the_test", "options": {}},
    "adyen": {"secret": "44782DEF547AAA06", "options": {"merchant_account": "ShopECOM"}},
    "braintree": {
        "secret": "public|private",
        "options": {"merchant_id": "shop", "public_key": "public"},
    },
}
TOTAL, PART = 12950, 4000


# --- payments in every state --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """How far a payment has come: the states of its movements, None where there is none."""

    held: OperationState = OperationState.SUCCEEDED
    captured: OperationState | None = None
    voided: OperationState | None = None
    refunded: OperationState | None = None
    has_part: bool = False  # a part was captured, and more may follow


AUTHORIZING = Stage(OperationState.SENT)
AUTHORIZED = Stage()
CAPTURING = Stage(captured=OperationState.SENT)
VOIDING = Stage(voided=OperationState.SENT)
CAPTURED = Stage(captured=OperationState.SUCCEEDED)
REFUNDING = Stage(captured=OperationState.SUCCEEDED, refunded=OperationState.SENT)
REFUNDED = Stage(captured=OperationState.SUCCEEDED, refunded=OperationState.SUCCEEDED)
PART_CAPTURING = Stage(captured=OperationState.SENT, has_part=True)
PART_CAPTURED = Stage(captured=OperationState.SUCCEEDED, has_part=True)
RELEASING = Stage(captured=OperationState.SUCCEEDED, voided=OperationState.SENT, has_part=True)


def make_payment(account: GatewayAccount, stage: Stage) -> Payment:
    """Its totals are those of its operations, as if they had come by the usual way."""
    is_captured = stage.captured == OperationState.SUCCEEDED
    is_held = stage.held == OperationState.SUCCEEDED
    taken = (PART if stage.has_part else TOTAL) if is_captured else 0
    payment: Payment = PaymentFactory(
        account=account,
        state=PaymentState.REQUIRES_CAPTURE if is_held else PaymentState.PROCESSING,
        authorized=TOTAL if is_held else 0,
        captured=taken,
        capturable=TOTAL - taken if is_held and (stage.has_part or not is_captured) else 0,
        refunded=PART if stage.refunded == OperationState.SUCCEEDED else 0,
        refund_pending=PART if stage.refunded == OperationState.SENT else 0,
        gateway_reference="ref9" if is_held else "",
    )
    is_over = is_captured and not stage.has_part
    state = AttemptState.DONE if is_over else AttemptState.LIVE
    attempt = AttemptFactory(payment=payment, gateway_reference=payment.gateway_reference, state=state)
    OperationFactory(attempt=attempt, kind=OperationKind.AUTHORIZE, state=stage.held)
    if stage.captured:
        amount = PART if stage.has_part else TOTAL
        OperationFactory(
            attempt=attempt, state=stage.captured, amount=amount, releases_rest=not stage.has_part
        )
    if stage.voided:
        OperationFactory(attempt=attempt, kind=OperationKind.VOID, state=stage.voided, amount=TOTAL - taken)
    if stage.refunded:
        OperationFactory(attempt=attempt, kind=OperationKind.REFUND, state=stage.refunded, amount=PART)
    return payment


def make_account(gateway: str) -> GatewayAccount:
    given = ACCOUNTS[gateway]
    account: GatewayAccount = GatewayAccountFactory(gateway=gateway, name="main", options=given["options"])
    GatewaySecretFactory(account=account, value=given["secret"])
    return account


@pytest.fixture
def send(client: Client) -> Callable[..., list[int]]:
    def post(payment: Payment, event: str, **options: Any) -> list[int]:
        payment = Payment.objects.select_related("account", "order").get(pk=payment.pk)
        statuses = []
        for delivery in simulate_deliveries(payment, event, **options):
            kind = delivery.headers["Content-Type"]
            names = {name: value for name, value in delivery.headers.items() if name != "Content-Type"}
            answer = client.post(delivery.path, delivery.body, content_type=kind, headers=names)
            statuses.append(answer.status_code)
        processing.process_due()
        return statuses

    return post


def describe(webhook: InboundWebhook) -> list[str]:
    facts = webhook.outcome.get("facts", ())
    return [f"{fact['kind']} {fact['status']} {fact['outcome']}" for fact in facts]


# --- what each says -----------------------------------------------------------------------------------------

Expected = Mapping[str, tuple[Stage, list[str]]]
IGNORED: list[str] = []
PAID, LOST_CAPTURE = ["capture captured applied"], ["capture failed applied"]
BACK, BOUNCED = ["refund succeeded applied"], ["refund failed applied"]

STRIPE: Expected = {
    "payment_intent.created": (AUTHORIZING, IGNORED),
    "payment_intent.requires_action": (AUTHORIZING, ["authorize requires_action applied"]),
    "payment_intent.processing": (AUTHORIZING, ["authorize pending applied"]),
    "payment_intent.payment_failed": (AUTHORIZING, ["authorize declined applied"]),
    "payment_intent.amount_capturable_updated": (AUTHORIZING, ["authorize authorized applied"]),
    "payment_intent.amount_capturable_updated:captured": (PART_CAPTURING, PAID),
    "payment_intent.succeeded": (CAPTURING, PAID),
    "payment_intent.succeeded:released": (RELEASING, ["capture captured noop", "void voided applied"]),
    "payment_intent.canceled": (VOIDING, ["void voided applied"]),
    "charge.succeeded": (AUTHORIZING, IGNORED),
    "charge.failed": (AUTHORIZING, IGNORED),
    "charge.captured": (CAPTURING, PAID),
    "charge.expired": (AUTHORIZED, IGNORED),
    "charge.updated": (AUTHORIZED, IGNORED),
    "charge.refunded": (REFUNDING, IGNORED),
    "charge.refunded:listed": (REFUNDING, BACK),
    "refund.created": (REFUNDING, ["refund pending applied"]),
    "refund.updated": (REFUNDING, BACK),
    "refund.failed": (REFUNDED, BOUNCED),
    "charge.refund.updated": (REFUNDING, BACK),
    "charge.dispute.created": (CAPTURED, ["dispute needs_response applied"]),
    "charge.dispute.created:inquiry": (CAPTURED, ["dispute needs_response applied"]),
    "charge.dispute.updated": (CAPTURED, ["dispute under_review applied"]),
    "charge.dispute.closed:won": (CAPTURED, ["dispute won applied"]),
    "charge.dispute.closed:lost": (CAPTURED, ["dispute lost applied"]),
    "charge.dispute.closed:inquiry": (CAPTURED, ["dispute won applied"]),
    "radar.early_fraud_warning.created": (CAPTURED, ["fraud warning unauthorized_use_of_card applied"]),
    "charge.dispute.funds_withdrawn": (CAPTURED, ["dispute needs_response applied"]),
    "charge.dispute.funds_reinstated": (CAPTURED, ["dispute won applied"]),
    "payout.created": (CAPTURED, IGNORED),
    "payout.paid": (CAPTURED, IGNORED),
    "payout.failed": (CAPTURED, IGNORED),
    "reporting.report_run.succeeded": (CAPTURED, IGNORED),
}
ADYEN: Expected = {
    "AUTHORISATION": (AUTHORIZING, ["authorize authorized applied"]),
    "AUTHORISATION:refused": (AUTHORIZING, ["authorize declined applied"]),
    "AUTHORISATION_ADJUSTMENT": (AUTHORIZED, ["authorize authorized noop"]),
    "CAPTURE": (CAPTURING, PAID),
    "CAPTURE:refused": (CAPTURING, LOST_CAPTURE),
    "CAPTURE_FAILED": (CAPTURED, LOST_CAPTURE),
    "CANCELLATION": (VOIDING, ["void voided applied"]),
    "CANCELLATION:refused": (VOIDING, ["void failed applied"]),
    "TECHNICAL_CANCEL": (VOIDING, ["void voided applied"]),
    "CANCEL_OR_REFUND:cancel": (VOIDING, ["void voided applied"]),
    "CANCEL_OR_REFUND:refund": (REFUNDING, BACK),
    "EXPIRE": (AUTHORIZED, ["void voided applied"]),
    "REFUND": (REFUNDING, BACK),
    "REFUND:refused": (REFUNDING, BOUNCED),
    "REFUND_WITH_DATA": (REFUNDING, BACK),
    "REFUND_FAILED": (REFUNDED, BOUNCED),
    "REFUNDED_REVERSED": (REFUNDED, BOUNCED),
    "REQUEST_FOR_INFORMATION": (CAPTURED, ["dispute needs_response applied"]),
    "NOTIFICATION_OF_CHARGEBACK": (CAPTURED, ["dispute needs_response applied"]),
    "CHARGEBACK": (CAPTURED, ["dispute needs_response applied"]),
    "INFORMATION_SUPPLIED": (CAPTURED, ["dispute under_review applied"]),
    "CHARGEBACK_REVERSED": (CAPTURED, ["dispute under_review applied"]),
    "SECOND_CHARGEBACK": (CAPTURED, ["dispute lost applied"]),
    "PREARBITRATION_OPEN": (CAPTURED, ["dispute needs_response applied"]),
    "PREARBITRATION_WON": (CAPTURED, ["dispute won applied"]),
    "PREARBITRATION_LOST": (CAPTURED, ["dispute lost applied"]),
    "DISPUTE_DEFENSE_PERIOD_ENDED": (CAPTURED, ["dispute expired applied"]),
    "ISSUER_RESPONSE_TIMEFRAME_EXPIRED": (CAPTURED, ["dispute won applied"]),
    "NOTIFICATION_OF_FRAUD": (CAPTURED, ["fraud warning reported applied"]),
    "MANUAL_REVIEW_ACCEPT": (AUTHORIZED, IGNORED),
    "MANUAL_REVIEW_REJECT": (AUTHORIZED, IGNORED),
    "REPORT_AVAILABLE": (CAPTURED, IGNORED),
}
BRAINTREE: Expected = {
    "check": (AUTHORIZING, IGNORED),
    "transaction_settled": (CAPTURING, PAID),
    "transaction_settled:refund": (REFUNDING, BACK),
    "transaction_settlement_declined": (CAPTURED, LOST_CAPTURE),
    "transaction_settlement_declined:refund": (REFUNDED, BOUNCED),
    "refund_failed": (REFUNDED, BOUNCED),
    "transaction_disbursed": (CAPTURED, IGNORED),
    "disbursement": (CAPTURED, IGNORED),
    "disbursement_exception": (CAPTURED, IGNORED),
    "dispute_opened": (CAPTURED, ["dispute needs_response applied"]),
    "dispute_opened:retrieval": (CAPTURED, ["dispute needs_response applied"]),
    "dispute_under_review": (CAPTURED, ["dispute under_review applied"]),
    "dispute_disputed": (CAPTURED, ["dispute under_review applied"]),
    "dispute_won": (CAPTURED, ["dispute won applied"]),
    "dispute_lost": (CAPTURED, ["dispute lost applied"]),
    "dispute_accepted": (CAPTURED, ["dispute accepted applied"]),
    "dispute_auto_accepted": (CAPTURED, ["dispute accepted applied"]),
    "dispute_expired": (CAPTURED, ["dispute expired applied"]),
}
EXPECTED: Mapping[str, Expected] = {"stripe": STRIPE, "adyen": ADYEN, "braintree": BRAINTREE}
ALL = [(gateway, event) for gateway, events in EXPECTED.items() for event in events]
# The verifier names what the adapters read; a type is what stands before the colon.
READ: Mapping[str, set[str]] = {
    "stripe": {
        *stripe._AUTHORIZATION_EVENTS,
        *stripe._CAPTURE_EVENTS,
        *stripe._REFUND_EVENTS,
        *STRIPE_DISPUTES,
        "payment_intent.canceled",
        "charge.captured",
        "charge.refunded",
        stripe._WARNING_EVENT,
    },
    "adyen": {*adyen._READERS, *ADYEN_DISPUTES, "NOTIFICATION_OF_FRAUD"},
    "braintree": {*braintree._TRANSACTION_EVENTS, *braintree._DISPUTE_EVENTS},
}


@pytest.mark.parametrize(("gateway", "event"), ALL)
def test_an_event_does_what_it_says(gateway: str, event: str, send: Any) -> None:
    stage, facts = EXPECTED[gateway][event]
    payment = make_payment(make_account(gateway), stage)
    assert send(payment, event) == [200]
    webhook = InboundWebhook.objects.get()
    assert (webhook.last_error, describe(webhook)) == ("", facts)
    assert webhook.state == (InboundState.PROCESSED if facts else InboundState.IGNORED)
    assert webhook.event_type == event.partition(":")[0]


@pytest.mark.parametrize(("gateway", "event"), [(g, e) for g, e in ALL if EXPECTED[g][e][1]])
def test_it_does_nothing_the_second_time(gateway: str, event: str, send: Any) -> None:
    """Told anew under another id: an event that says again what is so."""
    stage, _ = EXPECTED[gateway][event]
    payment = make_payment(make_account(gateway), stage)
    send(payment, event)
    before = list(Operation.objects.order_by("pk").values_list("pk", "state", "amount"))
    [first] = InboundWebhook.objects.all()
    again = replay.replay(first.pk, actor="system")
    assert {line.rpartition(" ")[2] for line in describe(again)} == {"noop"}
    assert list(Operation.objects.order_by("pk").values_list("pk", "state", "amount")) == before


@pytest.mark.parametrize("gateway", sorted(SIMULATORS))
def test_all_that_the_adapter_reads_can_be_sent(gateway: str) -> None:
    events = SIMULATORS[gateway].EVENTS
    assert READ[gateway] <= {name.partition(":")[0] for name in events}
    assert set(events) == set(EXPECTED[gateway]), "each has its test"
    assert {event.before for event in events.values()} - {""} <= set(events)
    told = {name: "(not read)" not in says for name, says in list_events(gateway)}
    is_read = {name: bool(facts) for name, (_, facts) in EXPECTED[gateway].items()}
    unread = {"payment_intent.created"}  # nothing to say that it is not read: it tells nothing
    assert {name for name in told if told[name] != is_read[name]} <= unread


def test_the_guide_lists_them_all() -> None:
    guide = (Path(__file__).parents[2] / "docs/sandbox.md").read_text()
    names = [name for simulator in SIMULATORS.values() for name in simulator.EVENTS]
    assert [name for name in names if f"`{name}`" not in guide] == []


# --- how it is sent -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gateway", "done", "failed"),
    [
        ("stripe", "refund.updated", "refund.failed"),
        ("adyen", "REFUND", "REFUND_FAILED"),
        ("adyen", "REFUND_WITH_DATA", "REFUNDED_REVERSED"),
        ("braintree", "transaction_settled:refund", "refund_failed"),
    ],
)
@pytest.mark.parametrize("is_backwards", [False, True])
def test_a_refund_that_failed_after_all_ends_alike_backwards(
    gateway: str, done: str, failed: str, is_backwards: bool, send: Any
) -> None:
    payment = make_payment(make_account(gateway), REFUNDING)
    for event in (failed, done) if is_backwards else (done, failed):
        assert send(payment, event, duplicates=1) == [200, 200]
    payment.refresh_from_db()
    assert payment.operations.get(kind=OperationKind.REFUND).state == OperationState.REVERSED
    assert (payment.refunded, payment.refund_pending, payment.last_error) == (0, 0, None)
    assert set(InboundWebhook.objects.values_list("state", "duplicates")) == {("processed", 1)}


def test_out_of_order_what_should_have_come_first_comes_last(send: Any) -> None:
    payment = make_payment(make_account("stripe"), REFUNDING)
    assert send(payment, "refund.updated", duplicates=2, is_out_of_order=True) == [200] * 4
    came = InboundWebhook.objects.order_by("pk").values_list("event_type", "duplicates")
    assert list(came) == [("refund.updated", 2), ("refund.created", 0)]
    assert payment.operations.get(kind=OperationKind.REFUND).state == OperationState.SUCCEEDED


@pytest.mark.parametrize("gateway", sorted(SIMULATORS))
def test_a_forged_one_is_refused_by_its_signature(gateway: str, send: Any) -> None:
    payment = make_payment(make_account(gateway), CAPTURED)
    event = next(name for name, (stage, _) in EXPECTED[gateway].items() if stage == CAPTURED)
    assert send(payment, event, is_badly_signed=True) == [400]
    rejected = RejectedDelivery.objects.get()
    assert (rejected.reason, "fit" in rejected.detail) == ("webhook_signature", True)


def test_late_is_for_gateways_that_sign_the_time(send: Any) -> None:
    assert send(make_payment(make_account("stripe"), CAPTURED), "payout.paid", late_seconds=400) == [400]
    for gateway, event in (("adyen", "REPORT_AVAILABLE"), ("braintree", "check")):
        payment = make_payment(make_account(gateway), CAPTURED)
        with pytest.raises(InvalidRequestError, match="signs no time"):
            send(payment, event, late_seconds=400)


def test_adyen_sends_several_at_once(send: Any) -> None:
    payment = make_payment(make_account("adyen"), CAPTURING)
    assert send(payment, "AUTHORISATION+CAPTURE+REPORT_AVAILABLE") == [200]
    webhook = InboundWebhook.objects.get()
    assert webhook.event_type == "AUTHORISATION+CAPTURE+REPORT_AVAILABLE"
    assert describe(webhook) == ["authorize authorized noop", *PAID]


@pytest.mark.parametrize(
    ("gateway", "event"),
    [("stripe", "refund.updated"), ("adyen", "REFUND"), ("braintree", "transaction_settled:refund")],
)
def test_what_was_done_at_the_gateways_own_pages_is_adopted(gateway: str, event: str, send: Any) -> None:
    payment = make_payment(make_account(gateway), CAPTURED)
    send(payment, event, operation_id=OUTSIDE, amount=1000)
    send(payment, event, operation_id=OUTSIDE, amount=2000)
    refunds = payment.operations.filter(kind=OperationKind.REFUND).order_by("pk")
    assert list(refunds.values_list("amount", "source", "state")) == [
        (1000, "external", "succeeded"),
        (2000, "external", "succeeded"),
    ]


def test_the_named_refund_is_meant_and_another_amount_is_a_conflict(send: Any) -> None:
    payment = make_payment(make_account("stripe"), REFUNDING)
    first = payment.operations.get(kind=OperationKind.REFUND)
    second = OperationFactory(
        attempt=first.attempt, kind=OperationKind.REFUND, state=OperationState.SENT, amount=500
    )
    send(payment, "refund.updated", operation_id=first.pk)
    send(payment, "refund.updated", amount=499)
    assert Operation.objects.get(pk=first.pk).state == OperationState.SUCCEEDED
    assert Operation.objects.get(pk=second.pk).state == OperationState.REQUIRES_REVIEW


@pytest.mark.parametrize(
    ("gateway", "stage", "event", "problem"),
    [
        ("stripe", Stage(OperationState.DECLINED), "payment_intent.succeeded", "was never authorized"),
        ("stripe", CAPTURED, "payment_intent.canceled", "has nothing left to release"),
        ("stripe", PART_CAPTURED, "payment_intent.canceled", "is not canceled but succeeds"),
        ("stripe", AUTHORIZED, "payment_intent.succeeded:released", "was not captured"),
        ("stripe", AUTHORIZED, "refund.created", "has nothing left to refund"),
        ("stripe", AUTHORIZED, "charge.dispute.created", "no captured amount"),
        ("stripe", Stage(OperationState.CREATED), "payment_intent.created", "was never sent"),
        ("adyen", Stage(OperationState.FAILED), "CAPTURE", "was never authorized"),
        ("adyen", AUTHORIZING, "AUTHORISATION_ADJUSTMENT", "was never authorized"),
        ("adyen", CAPTURED, "EXPIRE", "has nothing left to release"),
        ("braintree", Stage(OperationState.DECLINED), "transaction_settled", "was never authorized"),
        ("braintree", AUTHORIZED, "dispute_opened", "no captured amount"),
    ],
)
def test_what_cannot_be_said_of_a_payment_is_refused(
    gateway: str, stage: Stage, event: str, problem: str
) -> None:
    payment = make_payment(make_account(gateway), stage)
    with pytest.raises(ConflictError, match=f"{payment.pk} .*{problem}.*nothing was sent"):
        simulate_deliveries(payment, event)


def test_what_the_gateway_never_sends_is_refused() -> None:
    payment = make_payment(make_account("stripe"), REFUNDING)
    authorization = payment.operations.get(kind=OperationKind.AUTHORIZE)
    for options, problem in (
        ({"event": "refund.updated+refund.failed"}, "is not one of"),
        ({"event": "refund.created", "is_out_of_order": True}, "nothing comes before"),
        ({"event": "refund.updated", "operation_id": authorization.pk}, "is no refund of"),
        ({"event": "refund.updated", "amount": 0}, "is not positive"),
    ):
        with pytest.raises(InvalidRequestError, match=f"{problem}.*nothing was sent"):
            simulate_deliveries(payment, **options)  # type: ignore[arg-type]
