"""What gateways say of disputes: one row per dispute, moved forward by rank, its money booked as it moves."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone

from payments import ledger
from payments.facts.settling import FactOutcome
from payments.facts.totals import record_event, save_totals
from payments.gateways.base import DisputeFact
from payments.kinds import DisputeStage, DisputeState
from payments.models import Dispute, Payment
from payments.models.dispute import LOST_DISPUTE_STATES
from payments.money import Money

_STAGES = {DisputeStage.INQUIRY: 0, DisputeStage.CHARGEBACK: 1, DisputeStage.PRE_ARBITRATION: 2}
_STATES = {DisputeState.NEEDS_RESPONSE: 0, DisputeState.UNDER_REVIEW: 1}
_DECIDED = 2


def apply_dispute_fact(payment: Payment, fact: DisputeFact) -> FactOutcome:
    """Open the dispute or move it on; the order and the payment must be locked.

    Stages and states have ranks, so an older fact moves nothing back. Where the money is follows the fact that is
    newest by the gateway's clock, whatever the state: banks take it and give it back in notices of their own.
    """
    dispute = Dispute.objects.filter(account=payment.account, gateway_reference=fact.reference).first()
    is_new = dispute is None
    dispute = dispute or _open_dispute(payment, fact)
    has_moved = is_new or _advance(dispute, fact)
    has_paid = _move_money(dispute, fact)
    if not (has_moved or has_paid):
        dispute.save(update_fields=["last_money_at"])  # what is older than this moves no money any more
        return FactOutcome.NOOP
    dispute.last_fact_at = max(_when(fact), dispute.last_fact_at or _when(fact))
    dispute.save()
    save_totals(payment)
    _tell(payment, dispute, is_new=is_new)
    return FactOutcome.APPLIED


def _open_dispute(payment: Payment, fact: DisputeFact) -> Dispute:
    return Dispute.objects.create(
        payment=payment,
        account=payment.account,
        gateway_reference=fact.reference,
        stage=fact.stage,
        state=fact.state,
        amount=fact.amount.minor,
        currency=fact.amount.currency,
        reason=fact.reason,
        network_code=fact.network_code,
        due_by=fact.due_by,
        opened_at=_when(fact),
        closed_at=None if fact.state in _STATES else _when(fact),
    )


def _when(fact: DisputeFact) -> datetime:
    return fact.occurred_at or timezone.now()


def _rank(stage: str, state: str) -> tuple[int, int]:
    return _STAGES[DisputeStage(stage)], _STATES.get(DisputeState(state), _DECIDED)


def _advance(dispute: Dispute, fact: DisputeFact) -> bool:
    """Whether the fact says more than we know; one decision replaces another only when it is newer (an appeal)."""
    # An answer to us is about the stage that we answered, whatever little the gateway repeats of it.
    stage = dispute.stage if fact.source == "answer" else fact.stage
    known, said = _rank(dispute.stage, dispute.state), _rank(stage, fact.state)
    is_newer = dispute.last_fact_at is None or _when(fact) >= dispute.last_fact_at
    is_other_decision = known == said and dispute.state != fact.state and is_newer
    is_news = known == said and fact.due_by is not None and fact.due_by != dispute.due_by
    if said < known or not (said > known or is_other_decision or is_news):
        return False
    if stage != dispute.stage:
        dispute.submitted_at, dispute.submitted_by, dispute.warned_at = None, "", None  # to be answered anew
    dispute.stage, dispute.state = stage, fact.state
    dispute.due_by = fact.due_by or dispute.due_by
    dispute.reason = fact.reason or dispute.reason
    dispute.network_code = fact.network_code or dispute.network_code
    dispute.closed_at = None if fact.state in _STATES else _when(fact)
    return True


# --- its money ----------------------------------------------------------------------------------------------


def _move_money(dispute: Dispute, fact: DisputeFact) -> bool:
    """Book what the bank took or gave back, the fee, and the loss once it is final; whether anything was booked."""
    booked = False
    is_newer = dispute.last_money_at is None or _when(fact) >= dispute.last_money_at
    if is_newer and (fact.is_withdrawn is not None or fact.fee is not None):
        dispute.last_money_at = _when(fact)
        if fact.is_withdrawn is not None and fact.is_withdrawn != dispute.is_withdrawn:
            booked = _book_withdrawal(dispute, is_withdrawn=fact.is_withdrawn)
        if fact.fee is not None:
            booked = _book_fee(dispute, fact.fee) or booked
    return _book_loss(dispute) or booked


def _book_withdrawal(dispute: Dispute, *, is_withdrawn: bool) -> bool:
    dispute.is_withdrawn = is_withdrawn
    return ledger.post_dispute_opened(dispute) if is_withdrawn else ledger.post_dispute_won(dispute)


def _book_fee(dispute: Dispute, fee: Money) -> bool:
    if dispute.fee_currency not in ("", fee.currency):
        return False
    dispute.fee, dispute.fee_currency = fee.minor, fee.currency
    return ledger.post_dispute_fee(dispute)


def _book_loss(dispute: Dispute) -> bool:
    is_loss = dispute.state in LOST_DISPUTE_STATES and dispute.is_withdrawn
    return is_loss and ledger.post_dispute_lost(dispute)


def _tell(payment: Payment, dispute: Dispute, *, is_new: bool) -> None:
    changed = "dispute.updated" if dispute.is_open else "dispute.closed"
    told = "dispute.opened" if is_new else changed
    record_event(payment, told, actor="gateway", dispute=dispute.describe())
