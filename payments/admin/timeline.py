"""One order's timeline: events, saga diaries, operations, ledger entries and notes, merged by time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

from django.utils.safestring import SafeString

from payments.admin.dispute_words import EVIDENCE, explain_reason
from payments.admin.words import (
    describe_ago,
    describe_span,
    exact_time,
    money,
    show_json,
    tell_actor,
    tone_of,
)
from payments.kinds import DisputeState
from payments.ledger import Account
from payments.models import Event, Operation, Order, Payment, Posting, SagaEvent

LIMIT = 200  # entries per source: the page stays bounded whatever happened to an order

KINDS = {
    "event": "Events",
    "saga": "Saga steps",
    "operation": "Gateway operations",
    "ledger": "Ledger",
    "note": "Notes",
}
_EVENTS = {
    "order.placed": "Order placed",
    "order.awaiting_customer": "Waiting for the customer to authenticate",
    "order.paid": "Order paid",
    "order.authorized": "Order authorized, to be captured later",
    "review.opened": "Held for review",
    "review.approved": "Review approved",
    "review.rejected": "Review rejected",
    "payment.requires_review": "The gateway's answer does not fit: held for a person",
    "payment.capture_failed": "Capture failed",
    "payment.authorization_expiring": "The authorization ends soon: capture it or let it go",
    "payment.authorized_late": "Authorized after all, too late: the order had gone on without it",
    "payment.late_success_undone": "Money that came too late was given back",
    "payment.void_failed": "The authorization could not be released at the gateway",
    "operation.asked": "The gateway was asked what became of an operation",
    "operation.escalated": "The gateway does not say what became of an operation: a person has to find out",
    "operation.decided": "A person decided what became of an operation",
    "payment.fraud_warned": "The card's issuer reports fraud",
    "dispute.opened": "The cardholder disputes the payment",
    "dispute.updated": "News of the dispute",
    "dispute.closed": "The dispute is over",
    "dispute.due_soon": "The dispute must be answered soon",
    "dispute.evidence_added": "Evidence added to the dispute",
    "dispute.evidence_removed": "Evidence removed from the dispute",
    "dispute.submitted": "Evidence sent to the bank",
    "dispute.accepted": "Gave in to the dispute",
    "dispute.asked": "The gateway was asked how the dispute stands",
}
_TONES = {
    "payment.authorization_expiring": "warning",
    "payment.authorized_late": "warning",
    "payment.void_failed": "danger",
    "operation.escalated": "warning",
    "dispute.due_soon": "danger",
    "dispute.opened": "danger",
    "payment.fraud_warned": "danger",
}
_DIARY = {
    "intent": "about to act",
    "done": "done",
    "again": "will be tried again",
    "resolved": "doubt resolved",
    "waiting": "waits",
    "signal": "heard what it waited for",
    "failed": "failed, walking back",
    "compensate": "walking back",
    "compensated": "walked back completely",
    "completed": "completed",
    "crashed": "crashed, will be tried again",
    "quarantined": "quarantined, needs an operator",
    "failed_compensation": "compensation failed, needs an operator",
    "operator_retry": "taken up again by an operator",
    "operator_compensate": "sent back by an operator",
    "operator_skip": "skipped by an operator",
    "operator_extend": "given a later deadline by an operator",
    "operator_note": "noted",
    "force_proposed": "proposed to be forced to its end",
    "force_rejected": "was not let be forced",
    "forced": "forced to its end by two people",
    "released": "handed over",
    "screened": "screened",
    "screening_failed": "could not be screened",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: when, what kind, who, what, how much, and the gateway reference it belongs to."""

    at: datetime
    kind: str
    anchor: str
    title: str
    who: str = ""
    detail: str = ""
    amount: str = ""
    reference: str = ""
    tone: str = "default"
    url_name: str = ""
    url_id: str = ""
    raw: Any = None

    @property
    def exact(self) -> str:
        return exact_time(self.at)

    @property
    def ago(self) -> str:
        return describe_ago(self.at)

    @property
    def data(self) -> SafeString:
        return show_json(self.raw)


def build_timeline(order: Order, payment: Payment) -> list[Entry]:
    """Everything that happened, the newest first, in four queries."""
    operations = list(
        Operation.objects.filter(payment=payment).select_related("attempt").order_by("-id")[:LIMIT]
    )
    references = {operation.pk: reference_of(operation) for operation in operations}
    entries = chain(
        _tell_events(order, references),
        _tell_diaries(order, references),
        chain.from_iterable(_tell_operation(operation, references[operation.pk]) for operation in operations),
        _tell_ledger(payment, references),
    )
    return sorted(entries, key=lambda entry: entry.at, reverse=True)


def reference_of(operation: Operation) -> str:
    """The gateway's name for what an operation did: its own, or its payment's."""
    return operation.gateway_reference or operation.attempt.gateway_reference


# --- events and notes -------------------------------------------------------------------------------------------


def _tell_events(order: Order, references: dict[str, str]) -> Iterator[Entry]:
    for event in Event.objects.filter(order=order).order_by("-sequence")[:LIMIT]:
        yield _tell_note(event) if event.type == "order.note" else _tell_event(event, references)


def _tell_note(event: Event) -> Entry:
    return Entry(
        event.created_at,
        "note",
        event.pk,
        "Note",
        who=tell_actor(event.actor),
        detail=str(event.data.get("note", "")),
    )


def _tell_event(event: Event, references: dict[str, str]) -> Entry:
    about = event.data.get("operation") or event.data.get("refund") or event.data.get("dispute") or {}
    title = _EVENTS.get(event.type) or event.type.replace(".", " ").replace("_", " ").capitalize()
    return Entry(
        event.created_at,
        "event",
        event.pk,
        title,
        who=tell_actor(event.actor),
        detail=_explain_event(event),
        amount=money(about["amount"], about["currency"]) if "amount" in about else "",
        reference=references.get(about.get("id", ""), ""),
        tone=_tone_event(event),
        raw=event.data,
        url_name="payments_dispute" if "dispute" in event.data else "",
        url_id=str(about.get("id", "")) if "dispute" in event.data else "",
    )


def _tone_event(event: Event) -> str:
    return _TONES.get(event.type) or tone_of(event.type.rpartition(".")[2])


def _explain_event(event: Event) -> str:
    data = event.data
    if dispute := data.get("dispute"):
        return _explain_dispute(dispute, str(data.get("kind", "")))
    if ends := data.get("expires_at"):
        return f"It ends {str(ends)[:16].replace('T', ' ')} UTC"
    if reason := data.get("reason"):
        return f"Reason: {str(reason).replace('_', ' ')}"
    error = (data.get("payment") or {}).get("last_error") or {}
    if error and ("declined" in event.type or "failed" in event.type or "review" in event.type):
        return explain_error(error)
    return f"Found: {data['found']}" if "found" in data else ""


def _explain_dispute(dispute: dict[str, Any], kind: str) -> str:
    """Where it stood then; the reason in words."""
    due_by = dispute.get("due_by")
    parts = [
        EVIDENCE.get(kind, ""),
        explain_reason(str(dispute.get("reason"))).title,
        f"{dispute.get('stage', '')}, {dispute.get('state', '')}".replace("_", " "),
        f"to be answered by {str(due_by)[:16].replace('T', ' ')} UTC"
        if due_by and dispute.get("state") == DisputeState.NEEDS_RESPONSE
        else "",
    ]
    return "; ".join(filter(None, parts))


def explain_error(error: dict[str, Any]) -> str:
    """What the gateway or we said of it, in words; where nobody said anything, its code."""
    code = str(error.get("code", "")).replace("_", " ")
    return str(error.get("message") or error.get("gateway_message") or code.capitalize())


# --- sagas ---------------------------------------------------------------------------------------------------------


def _tell_diaries(order: Order, references: dict[str, str]) -> Iterator[Entry]:
    lines = SagaEvent.objects.filter(run__order=order).select_related("run").order_by("-id")
    for line in lines[:LIMIT]:
        yield Entry(
            line.at,
            "saga",
            f"saga-{line.pk}",
            tell_diary(line, line.run.kind),
            who=tell_actor(str(line.detail.get("actor") or "system")),
            detail=explain_diary(line),
            reference=references.get(str(line.detail.get("reference", "")), ""),
            tone=tone_of(line.kind),
            url_name="payments_sagarun",
            url_id=line.run_id,
            raw=line.detail or None,
        )


def tell_diary(line: SagaEvent, kind: str) -> str:
    """`checkout: capture done`, in words."""
    words = _DIARY.get(line.kind, line.kind.replace("_", " "))
    if line.detail.get("direction") == "undo":
        words = "about to undo"
    step = line.step.replace("_", " ")
    return f"{kind.capitalize()}: {step} {words}" if step else f"{kind.capitalize()} {words}"


def explain_diary(line: SagaEvent) -> str:
    """Why, as far as the line knows."""
    detail = line.detail
    parts = []
    if error := detail.get("error"):
        parts.append(explain_error(error))
    if signal := detail.get("signal"):
        parts.append(f"for {signal}")
    if "seconds" in detail:
        parts.append(f"in {describe_span(timedelta(seconds=float(detail['seconds'])))}")
    if "decision" in detail:
        parts.append(f"{detail['decision']}, {detail.get('score', 0)} points")
    if isinstance(detail.get("before"), str) and detail.get("after"):
        parts.append(f"{detail['before']} → {detail['after']}")
    names = ("reason", "outcome", "why", "note", "target", "evidence", "proposed_by")
    parts += [f"{name.replace('_', ' ')}: {detail[name]}" for name in names if detail.get(name)]
    if references := detail.get("references"):
        parts.append(f"references: {', '.join(map(str, references))}")
    return "; ".join(parts)


# --- gateway operations -------------------------------------------------------------------------------------------


def _tell_operation(operation: Operation, reference: str) -> Iterator[Entry]:
    common = {
        "kind": "operation",
        "amount": money(operation.amount, operation.currency),
        "reference": reference,
        "url_name": "payments_operation",
        "url_id": operation.pk,
    }
    source = operation.get_source_display().lower()
    yield Entry(
        operation.created_at,
        anchor=operation.pk,
        title=f"{operation.get_kind_display()} asked for",
        who=tell_actor(operation.requested_by) or source,
        detail=". ".join(filter(None, [operation.reason.replace("_", " ").capitalize(), operation.note])),
        **common,
    )
    if operation.resolved_at:
        took = describe_span(operation.resolved_at - operation.created_at)
        error = explain_error(operation.error) if operation.error else ""
        yield Entry(
            operation.resolved_at,
            anchor=f"{operation.pk}-end",
            title=f"{operation.get_kind_display()} {operation.get_state_display().lower()}",
            who="gateway",
            detail=error or f"after {took}",
            tone=tone_of(operation.state),
            **common,
        )


# --- the books ----------------------------------------------------------------------------------------------------


def _tell_ledger(payment: Payment, references: dict[str, str]) -> Iterator[Entry]:
    postings = Posting.objects.filter(entry__payment=payment).select_related("entry", "account")
    by_entry: dict[int, list[Posting]] = defaultdict(list)
    for posting in postings.order_by("-entry_id", "line")[: 6 * LIMIT]:
        by_entry[posting.entry_id].append(posting)
    for lines in by_entry.values():
        entry = lines[0].entry
        operation_id = entry.external_id.partition(":")[0]
        yield Entry(
            entry.created_at,
            "ledger",
            f"ledger-{entry.pk}",
            f"Booked: {entry.event.replace('_', ' ')}",
            who="ledger",
            detail=tell_postings(lines),
            reference=references.get(operation_id, ""),
            url_name="payments_ledgerentry",
            url_id=str(entry.pk),
        )


def tell_postings(lines: Iterable[Posting]) -> str:
    """`Clearing +€12.00, Receivable -€12.00`: debits positive."""
    return ", ".join(
        f"{name_account(line.account.code)} {'+' if line.amount > 0 else ''}{money(line.amount, line.currency)}"
        for line in lines
    )


def name_account(code: int) -> str:
    """The account's name in the chart, in words."""
    try:
        return Account(code).name.replace("_", " ").capitalize()
    except ValueError:
        return str(code)
