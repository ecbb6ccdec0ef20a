"""What a replay would do: the webhook is applied in a transaction that is rolled back, and the difference is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import structlog
from django.db import Error as DatabaseFailure
from django.db import connection, transaction

from payments.errors import ConflictError, PaymentError
from payments.gateways.base import Fact
from payments.ledger import Account
from payments.models import (
    Dispute,
    Event,
    GatewayAccount,
    LedgerEntry,
    OnCallPage,
    Operation,
    Payment,
    Posting,
    SagaRun,
    SagaSignal,
)
from payments.money import Money
from payments.redaction import redact
from payments.services import FactOutcome, apply_gateway_fact, find_fact_order
from webhooks.models import InboundWebhook
from webhooks.processing import describe_fact, read_facts
from webhooks.wording import tell_fact

_Row = tuple[tuple[str, object], tuple[str, Mapping[str, str]]]  # (table, key), and title and values
_Rows = dict[tuple[str, object], tuple[str, Mapping[str, str]]]
_LIMITS = "SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '15s'"


@dataclass(frozen=True, slots=True)
class Change:
    """One value that would be another: of what, which, before and after. What is new has no before."""

    about: str
    what: str
    before: str
    after: str

    def __str__(self) -> str:
        if not self.before:
            return f"{self.about}: {self.what} {self.after}".rstrip()
        return f"{self.about}: {self.what} {self.before} → {self.after}"


@dataclass(frozen=True, slots=True)
class Preview:
    """What each fact would come to, and what would change; `error` is why it would fail, with nothing changed."""

    outcomes: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    error: str = ""


def preview(inbound_id: str) -> Preview:
    """Say what `replay` would do now; nothing is kept, nobody is called or woken, no gateway is asked.

    The payment's rows are locked for the moment. Raises `ConflictError` when the payload is not kept any more.
    """
    webhook = InboundWebhook.objects.select_related("account", "stored").get(pk=inbound_id)
    if not webhook.payload:
        raise ConflictError(f"the payload of {inbound_id} is not kept any more; there is nothing to try")
    with structlog.contextvars.bound_contextvars(dry_run=True, inbound_id=inbound_id):
        try:
            return _try(webhook)
        except (PaymentError, DatabaseFailure, ValueError, KeyError, AssertionError) as error:
            return Preview(error=redact(f"{type(error).__name__}: {error}"))


def _try(webhook: InboundWebhook) -> Preview:
    facts = read_facts(webhook)  # before the transaction: an adapter is built from its account
    with transaction.atomic():
        try:
            before, outcomes, after = _apply_for_a_moment(webhook.account, facts)
        finally:
            transaction.set_rollback(True)
    told = (
        tell_fact({**describe_fact(fact), "reference": fact.reference, "outcome": outcome.value})
        for fact, outcome in zip(facts, outcomes, strict=True)
    )
    return Preview(tuple(told), tuple(_compare(before, after)))


def _apply_for_a_moment(
    account: GatewayAccount, facts: Sequence[Fact]
) -> tuple[_Rows, list[FactOutcome], _Rows]:
    orders = sorted({order for fact in facts if (order := find_fact_order(account, fact))})
    with connection.cursor() as cursor:
        cursor.execute(_LIMITS)
    before = _describe(orders)
    outcomes = [apply_gateway_fact(account, fact) for fact in facts]
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # what a commit would refuse
    return before, outcomes, _describe(orders)


# --- how an order stands ------------------------------------------------------------------------------------


def _describe(orders: list[str]) -> _Rows:
    """Everything that a fact may change of these orders, under their locks."""
    rows: _Rows = {}
    for order_id in orders:
        payment = Payment.objects.locked_with_order(order_id)
        rows |= dict(_describe_order(payment))
    return rows


def _describe_order(payment: Payment) -> Iterator[_Row]:
    order = payment.order
    yield ("order", order.pk), (f"Order {order.reference}", {"state": order.state})
    yield ("payment", payment.pk), (f"Payment {payment.pk}", _tell_payment(payment))
    for operation in Operation.objects.filter(payment=payment):
        title = f"{operation.kind.capitalize()} {operation.pk}"
        values = {"state": operation.state, "amount": operation.money.format()}
        yield ("operation", operation.pk), (title, values | {"reference": operation.gateway_reference})
    for dispute in Dispute.objects.filter(payment=payment):
        yield ("dispute", dispute.pk), (f"Dispute {dispute.gateway_reference}", _tell_dispute(dispute))
    for event in Event.objects.filter(order=order):
        reader = "the storefront" if event.is_public else "the timeline only"
        yield ("event", event.sequence), (f"Event {event.type}", {"is told to": reader})
    yield from _describe_books(payment)
    for run in SagaRun.objects.filter(order=order):
        due = f"{run.wake_at:%Y-%m-%d %H:%M:%S} UTC" if run.wake_at else ""
        yield ("saga", run.pk), (f"Saga {run.kind}", {"state": run.state, "step": run.step, "due": due})
    for signal in SagaSignal.objects.filter(run__order=order).select_related("run"):
        yield ("signal", signal.pk), (f"Saga {signal.run.kind}", {"hears": signal.name})
    for page in OnCallPage.objects.filter(detail__order=order.pk):
        yield ("page", page.pk), ("On-call", {"is called": page.text, "times": str(page.count)})


def _tell_payment(payment: Payment) -> dict[str, str]:
    sums = {
        "authorized": payment.authorized,
        "capturable": payment.capturable,
        "captured": payment.captured,
        "refunded": payment.refunded,
        "being refunded": payment.refund_pending,
        "in dispute": payment.disputed,
        "lost in disputes": payment.disputed_lost,
    }
    told = {name: Money(minor, payment.currency).format() for name, minor in sums.items()}
    return {"state": payment.state, **told, "gateway reference": payment.gateway_reference}


def _tell_dispute(dispute: Dispute) -> dict[str, str]:
    return {
        "stage": dispute.stage,
        "state": dispute.state,
        "amount": Money(dispute.amount, dispute.currency).format(),
        "withdrawn from our balance": "yes" if dispute.is_withdrawn else "no",
        "answer due": str(dispute.due_by or ""),
    }


def _describe_books(payment: Payment) -> Iterator[_Row]:
    lines: dict[int, dict[str, list[str]]] = {}
    postings = (
        Posting.objects.filter(entry__payment=payment).select_related("account").order_by("entry", "line")
    )
    for posting in postings:
        name = Account(posting.account.code).name.replace("_", " ").lower()
        amount = Money(posting.amount, posting.currency).format()
        lines.setdefault(posting.entry_id, {}).setdefault(f"{posting.account.code} {name}", []).append(amount)
    for entry in LedgerEntry.objects.filter(payment=payment):
        told = {name: " and ".join(amounts) for name, amounts in lines.get(entry.pk, {}).items()}
        yield ("entry", entry.pk), (f"Ledger entry {entry.event}", told)


def _compare(before: _Rows, after: _Rows) -> Iterator[Change]:
    for key, (title, values) in after.items():
        old: Mapping[str, str] = before[key][1] if key in before else {}
        for name, value in values.items():
            if value != old.get(name, ""):
                yield Change(title, name, old.get(name, ""), value)
