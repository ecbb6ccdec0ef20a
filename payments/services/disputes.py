"""Disputes are answered with evidence, once and for good, or accepted; their deadlines are watched."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import structlog
from django.conf import settings
from django.core.files.base import ContentFile
from django.db import transaction
from django.utils import timezone

from payments import facts
from payments.errors import ConflictError, InvalidRequestError, PaymentError
from payments.gateways import get_gateway
from payments.gateways.base import DisputeFact, EvidenceFile, EvidenceRequest
from payments.kinds import EVIDENCE_KINDS, DisputeStage, DisputeState
from payments.models import Dispute, DisputeEvidence, Payment
from payments.oncall import open_page
from payments.redaction import contains_card_data

log = structlog.get_logger(__name__)

MAX_FILE_BYTES = 4 * 1024 * 1024  # Stripe takes 4.5 MB for all files of a dispute together
MAX_TEXT = 20_000  # characters, as Stripe counts them
_MAGIC = {"application/pdf": b"%PDF-", "image/jpeg": b"\xff\xd8\xff", "image/png": b"\x89PNG\r\n\x1a\n"}
_GRACE = timedelta(days=1)  # after the deadline, before silence counts as the end


# --- evidence -----------------------------------------------------------------------------------------------


def add_evidence(
    dispute: Dispute, *, kind: str, actor: str, text: str = "", file: EvidenceFile | None = None
) -> DisputeEvidence:
    """Keep one text or file for the answer, in place of an earlier one of its kind.

    Raises `InvalidRequestError` for an unknown kind, an empty, too large or disguised file, or card data;
    `ConflictError` once the dispute is answered or decided.
    """
    check_evidence(kind, text, file)
    with transaction.atomic():
        payment, dispute = _lock_answerable(dispute)
        DisputeEvidence.objects.filter(dispute=dispute, kind=kind).delete()
        evidence = DisputeEvidence(
            dispute=dispute, kind=kind, text=text, added_by=actor, added_at=timezone.now()
        )
        if file is not None:
            _keep_file(evidence, file)
        evidence.save()
        _note(payment, dispute, "evidence_added", actor, kind=kind)
    return evidence


def remove_evidence(dispute: Dispute, *, kind: str, actor: str) -> None:
    """Raises `ConflictError` once the dispute is answered or decided, or when there is no such evidence."""
    with transaction.atomic():
        payment, dispute = _lock_answerable(dispute)
        if not DisputeEvidence.objects.filter(dispute=dispute, kind=kind).delete()[0]:
            raise ConflictError(f"Dispute {dispute.pk} has no {kind!r} evidence; nothing was changed.")
        _note(payment, dispute, "evidence_removed", actor, kind=kind)


def check_evidence(kind: str, text: str, file: EvidenceFile | None) -> None:
    """Raises `InvalidRequestError` with the pointer of what is wrong, as `add_evidence` does."""
    if kind not in EVIDENCE_KINDS:
        raise InvalidRequestError(
            f"There is no evidence of the kind {kind[:40]!r}; nothing was kept.", pointer="/kind"
        )
    if bool(text.strip()) == (file is not None):
        raise InvalidRequestError("Send either a text or a file; nothing was kept.", pointer="/text")
    if len(text) > MAX_TEXT:
        raise InvalidRequestError(
            f"The text is longer than {MAX_TEXT} characters; nothing was kept.", pointer="/text"
        )
    if contains_card_data(text) is not None:
        raise InvalidRequestError("The text contains a card number; nothing was kept.", pointer="/text")
    if file is not None:
        _check_file(file)


def _check_file(file: EvidenceFile) -> None:
    if contains_card_data(file.name) is not None:
        raise InvalidRequestError("The file's name holds card data; nothing was kept.", pointer="/file")
    magic = _MAGIC.get(file.content_type)
    if magic is None or not file.content.startswith(magic):
        raise InvalidRequestError(
            "The file is no PDF, JPEG or PNG, or not what it says it is; nothing was kept.", pointer="/file"
        )
    if len(file.content) > MAX_FILE_BYTES:
        size = f"{len(file.content) / 1_048_576:.1f} MiB"
        raise InvalidRequestError(
            f"The file has {size}; at most {MAX_FILE_BYTES // 1_048_576} MiB are taken; nothing was kept.",
            pointer="/file",
        )


def _keep_file(evidence: DisputeEvidence, file: EvidenceFile) -> None:
    evidence.sha256 = hashlib.sha256(file.content).hexdigest()
    evidence.file_name = file.name[-150:]
    evidence.content_type = file.content_type
    evidence.size = len(file.content)
    evidence.file.save(evidence.sha256, ContentFile(file.content), save=False)


def _lock_answerable(dispute: Dispute) -> tuple[Payment, Dispute]:
    """The order, its payment and the dispute under their locks, in this order. Raises `ConflictError`."""
    payment = Payment.objects.locked_with_order(_order_id(dispute))
    dispute = Dispute.objects.locked(dispute.pk)
    if not dispute.is_answerable:
        raise ConflictError(
            f"Dispute {dispute.pk} is {dispute.get_state_display().lower()}"
            f"{'' if dispute.state != DisputeState.NEEDS_RESPONSE else ' and its deadline has passed'}; "
            "nothing was changed."
        )
    return payment, dispute


# --- the answer ---------------------------------------------------------------------------------------------


def submit_evidence(dispute: Dispute, *, actor: str) -> Dispute:
    """Send all the evidence to the gateway, once and for good.

    Pressed twice, or again after no answer came, it sends the same key. Raises `ConflictError` when there is no
    evidence or it is too late, and the errors of the wire.
    """
    _check_gateway(dispute)
    with transaction.atomic():
        _, dispute = _lock_answerable(dispute)
        evidence = list(dispute.evidence.all())
        if not evidence:
            raise ConflictError(f"Dispute {dispute.pk} has no evidence yet; nothing was sent.")
        dispute.submitted_by, dispute.submitted_at = actor, timezone.now()
        dispute.save(update_fields=["submitted_by", "submitted_at"])
    request = EvidenceRequest(
        key=f"{dispute.pk}:{dispute.stage}:evidence",
        reference=dispute.gateway_reference,
        texts={each.kind: each.text for each in evidence if each.text},
        files={each.kind: _read_file(each) for each in evidence if each.file},
    )
    return _apply(dispute, get_gateway(dispute.account).submit_evidence(request), "submitted", actor)


def accept_dispute(dispute: Dispute, *, actor: str) -> Dispute:
    """Give in: the amount is lost.

    Raises `ConflictError` when it is too late for that, or for an inquiry, and the errors of the wire.
    """
    _check_gateway(dispute)
    with transaction.atomic():
        _, dispute = _lock_answerable(dispute)
    if dispute.stage == DisputeStage.INQUIRY:  # gateways know no acceptance of a question: no money has moved
        raise ConflictError(
            f"Dispute {dispute.pk} is an inquiry: to give in, refund the order; nothing was changed."
        )
    key = f"{dispute.pk}:{dispute.stage}:accept"
    fact = get_gateway(dispute.account).accept_dispute(dispute.gateway_reference, key=key)
    return _apply(dispute, fact, "accepted", actor)


def _check_gateway(dispute: Dispute) -> None:
    if not get_gateway(dispute.account).capabilities.dispute_evidence:
        raise ConflictError(
            f"Disputes at {dispute.account} are answered in the gateway's own pages; nothing was sent."
        )


def refresh_dispute(dispute: Dispute, *, actor: str) -> Dispute:
    """Ask the gateway how the dispute stands. Raises the errors of the wire."""
    fact = get_gateway(dispute.account).fetch_dispute(dispute.gateway_reference)
    return _apply(dispute, fact, "asked", actor)


def _apply(dispute: Dispute, fact: DisputeFact | None, what: str, actor: str) -> Dispute:
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(_order_id(dispute))
        if fact is not None:
            facts.apply_dispute_fact(payment, fact)
        dispute = Dispute.objects.select_related("payment__order", "account").get(pk=dispute.pk)
        _note(payment, dispute, what, actor)
    return dispute


def _read_file(evidence: DisputeEvidence) -> EvidenceFile:
    with evidence.file.open("rb") as stream:
        return EvidenceFile(evidence.file_name, evidence.content_type, stream.read())


def _order_id(dispute: Dispute) -> str:
    return Payment.objects.values_list("order_id", flat=True).get(pk=dispute.payment_id)


def _note(payment: Payment, dispute: Dispute, what: str, actor: str, **detail: object) -> None:
    """One line in the order's timeline, for our own eyes: the storefront hears of disputes by the gateway's facts."""
    facts.record_event(
        payment, f"dispute.{what}", is_public=False, actor=actor, dispute=dispute.describe(), **detail
    )


# --- deadlines ----------------------------------------------------------------------------------------------


def watch_disputes(*, limit: int = 100) -> int:
    """Call out every dispute that must be answered soon, and settle those whose time is over; returns how many."""
    now = timezone.now()
    soon = now + timedelta(seconds=settings.DISPUTE_WARNING_SECONDS)
    unanswered = Dispute.objects.unanswered().select_related("payment__order", "account")
    ending = unanswered.filter(due_by__lte=soon, due_by__gt=now, warned_at__isnull=True)
    over = unanswered.filter(due_by__lte=now)
    return sum(_warn(dispute) for dispute in ending[:limit]) + sum(
        _close(dispute) for dispute in over[:limit]
    )


def _warn(dispute: Dispute) -> bool:
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(_order_id(dispute))
        unwarned = Dispute.objects.unanswered().filter(pk=dispute.pk, warned_at__isnull=True)
        if not unwarned.update(warned_at=timezone.now()):
            return False
        facts.record_event(payment, "dispute.due_soon", dispute=dispute.describe())
        due = f"{dispute.due_by:%F %R} UTC"
        open_page(
            "dispute:due_soon",
            text=f"Dispute {dispute.pk} of order {payment.order.reference} must be answered by {due}",
            detail={
                "order": payment.order_id,
                "dispute": dispute.pk,
                "money": {dispute.currency: dispute.amount},
            },
        )
    return True


def _close(dispute: Dispute) -> bool:
    """The gateway knows best; where it cannot be asked, a day of silence after the deadline is the end."""
    try:
        fact = get_gateway(dispute.account).fetch_dispute(dispute.gateway_reference)
    except PaymentError as error:
        log.info("dispute_not_asked", dispute_id=dispute.pk, error=error.code)
        fact = None
    is_over = dispute.due_by is not None and timezone.now() > dispute.due_by + _GRACE
    if is_over and (fact is None or fact.state == DisputeState.NEEDS_RESPONSE):
        fact = DisputeFact(
            reference=dispute.gateway_reference,
            payment_reference="",
            stage=DisputeStage(dispute.stage),
            state=DisputeState.EXPIRED,
            amount=dispute.money,
            occurred_at=timezone.now(),
            source="poll",
        )
    if fact is None or fact.state == DisputeState.NEEDS_RESPONSE:
        return False
    _apply(dispute, fact, "asked", "system")
    return True
