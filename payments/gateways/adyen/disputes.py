"""Adyen's disputes read into facts: pure functions over plain dicts, no network."""

from __future__ import annotations

from datetime import UTC, datetime

from payments.gateways.adyen.wire import Doc, from_wire, trim
from payments.gateways.base import DisputeFact
from payments.kinds import DisputeStage, DisputeState
from payments.money import Money

# What each event says (docs.adyen.com/risk-management/disputes-api/dispute-notifications): the stage, the state unless
# `disputeStatus` says another, and whether it moves the money. CHARGEBACK and SECOND_CHARGEBACK and a lost
# pre-arbitration take it; CHARGEBACK_REVERSED and a won pre-arbitration give it back; the others move none.
DISPUTE_EVENTS: dict[str, tuple[DisputeStage, DisputeState, bool | None]] = {
    "REQUEST_FOR_INFORMATION": (DisputeStage.INQUIRY, DisputeState.NEEDS_RESPONSE, None),
    "NOTIFICATION_OF_CHARGEBACK": (DisputeStage.CHARGEBACK, DisputeState.NEEDS_RESPONSE, None),
    "CHARGEBACK": (DisputeStage.CHARGEBACK, DisputeState.NEEDS_RESPONSE, True),
    "INFORMATION_SUPPLIED": (DisputeStage.CHARGEBACK, DisputeState.UNDER_REVIEW, None),
    "CHARGEBACK_REVERSED": (DisputeStage.CHARGEBACK, DisputeState.UNDER_REVIEW, False),
    "SECOND_CHARGEBACK": (DisputeStage.PRE_ARBITRATION, DisputeState.LOST, True),
    "PREARBITRATION_OPEN": (DisputeStage.PRE_ARBITRATION, DisputeState.NEEDS_RESPONSE, None),
    "PREARBITRATION_WON": (DisputeStage.PRE_ARBITRATION, DisputeState.WON, False),
    "PREARBITRATION_LOST": (DisputeStage.PRE_ARBITRATION, DisputeState.LOST, True),
    "DISPUTE_DEFENSE_PERIOD_ENDED": (DisputeStage.CHARGEBACK, DisputeState.EXPIRED, None),
    "ISSUER_RESPONSE_TIMEFRAME_EXPIRED": (DisputeStage.CHARGEBACK, DisputeState.WON, None),
}
STATUSES = {
    "Undefended": DisputeState.NEEDS_RESPONSE,
    "Unresponded": DisputeState.NEEDS_RESPONSE,
    "Responded": DisputeState.UNDER_REVIEW,
    "Pending": DisputeState.UNDER_REVIEW,
    "Won": DisputeState.WON,
    "Lost": DisputeState.LOST,
    "Accepted": DisputeState.ACCEPTED,
    "Expired": DisputeState.EXPIRED,
}
# The schemes' reason codes in our words.
# fmt: off
REASONS = {
    "fraudulent": {"10.1", "10.2", "10.3", "10.4", "10.5", "4837", "4863", "4870", "4871",
                   "F24", "F29", "F30", "F31", "FR2", "FR4", "FR6"},
    "not_received": {"13.1", "4855", "C08"},
    "not_as_described": {"13.3", "13.4", "13.5", "4853", "C31", "C32"},
    "canceled": {"13.2", "13.7", "4841", "C28"},
    "credit_not_processed": {"13.6", "4860", "C02", "C04", "C05"},
    "duplicate": {"12.6", "12.6.1", "12.6.2", "4834", "P08"},
}
# fmt: on


def read_dispute(item: Doc, *, when: datetime) -> DisputeFact:
    """All events of one dispute have its reference as their own. The payment's id in the extra data is not signed."""
    extra = item.get("additionalData") or {}
    stage, _, is_withdrawn = DISPUTE_EVENTS[item["eventCode"]]
    if extra.get("rfiReasonCode") and not extra.get("chargebackReasonCode"):
        stage = DisputeStage.INQUIRY
    code = str(extra.get("chargebackReasonCode") or extra.get("rfiReasonCode") or "").strip()
    due_by = extra.get("defensePeriodEndsAt")
    return DisputeFact(
        reference=item["pspReference"],
        payment_reference=item.get("originalReference") or "",
        stage=stage,
        state=read_state(item, extra),
        amount=from_wire(item["amount"]),
        reason=next((word for word, codes in REASONS.items() if code in codes), "other"),
        network_code=code,
        is_withdrawn=is_withdrawn,
        due_by=datetime.fromisoformat(due_by) if due_by else None,
        occurred_at=when,
        raw=trim(item),
    )


def read_state(item: Doc, extra: Doc) -> DisputeState:
    """`disputeStatus` where there is one (Brazil has none), except that silence is told apart from a lost case."""
    stated = STATUSES.get(extra.get("disputeStatus") or "", DISPUTE_EVENTS[item["eventCode"]][1])
    if item["eventCode"] == "DISPUTE_DEFENSE_PERIOD_ENDED" and stated is not DisputeState.ACCEPTED:
        return DisputeState.EXPIRED
    if stated is DisputeState.NEEDS_RESPONSE and extra.get("autoDefended") == "true":
        return DisputeState.UNDER_REVIEW
    return stated


def build_answer(reference: str, state: DisputeState) -> DisputeFact:
    return DisputeFact(
        reference=reference,
        payment_reference="",
        stage=DisputeStage.CHARGEBACK,
        state=state,
        amount=Money(0, "EUR"),
        occurred_at=datetime.now(UTC),
        source="answer",
    )
