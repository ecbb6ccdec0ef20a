"""Disputes: moved by rank, booked as the money moves, answered once, their deadlines called out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from payments import services
from payments.errors import AmountTooLargeError, ConflictError, InvalidRequestError
from payments.gateways.base import DisputeFact, EvidenceFile
from payments.kinds import DisputeStage, DisputeState
from payments.ledger import Account
from payments.models import Dispute, OnCallPage, Order, Payment, Posting
from payments.money import Money
from payments.proof import prove_ledger
from payments.services import FactOutcome, disputes
from tests.fakes import FakeGateway

pytestmark = pytest.mark.django_db
Place = Callable[..., Order]
DAY_0 = datetime(2026, 11, 1, 12, tzinfo=UTC)


def at(days: float) -> datetime:
    return DAY_0 + timedelta(days=days)


@pytest.fixture(autouse=True)
def media(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = str(tmp_path)


@pytest.fixture
def payment(place: Place, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> Payment:
    monkeypatch.setattr(disputes, "get_gateway", lambda account: gateway)
    return place().payment


@pytest.fixture
def opened(payment: Payment) -> DisputeFact:
    """50.00 of 129.50 are charged back; the bank has taken them and a fee of 15.00."""
    return DisputeFact(
        reference="dp_bank_1",
        payment_reference=payment.gateway_reference,
        stage=DisputeStage.CHARGEBACK,
        state=DisputeState.NEEDS_RESPONSE,
        amount=Money(5000, "EUR"),
        reason="fraudulent",
        network_code="10.4",
        fee=Money(1500, "EUR"),
        is_withdrawn=True,
        due_by=timezone.now() + timedelta(days=7),
        occurred_at=at(0),
    )


def tell(payment: Payment, *facts: DisputeFact) -> list[FactOutcome]:
    return [services.apply_gateway_fact(payment.account, each) for each in facts]


def balance(payment: Payment, account: Account) -> int:
    postings = Posting.objects.filter(entry__payment=payment, account__code=account)
    return sum(postings.values_list("amount", flat=True))


def books(payment: Payment) -> dict[str, int]:
    names = (Account.CLEARING, Account.DISPUTES_HELD, Account.DISPUTE_LOSSES, Account.DISPUTE_FEES)
    return {account.name: balance(payment, account) for account in names}


@pytest.fixture
def dispute(payment: Payment, opened: DisputeFact, gateway: FakeGateway) -> Dispute:
    tell(payment, opened)
    gateway.disputes["dp_bank_1"] = opened
    return Dispute.objects.get()


class TestFacts:
    def test_a_chargeback_takes_the_money_and_the_fee(self, payment: Payment, opened: DisputeFact) -> None:
        assert tell(payment, opened, opened) == ["applied", "noop"]
        payment.refresh_from_db()
        assert (payment.disputed, payment.disputed_lost, payment.refundable) == (5000, 0, 7950)
        assert books(payment) == {
            "CLEARING": 12950 - 5000 - 1500, "DISPUTES_HELD": 5000, "DISPUTE_LOSSES": 0, "DISPUTE_FEES": 1500,
        }  # fmt: skip
        assert payment.order.events.filter(type="dispute.opened").count() == 1
        assert prove_ledger() == []

    def test_won_brings_the_money_back(self, payment: Payment, opened: DisputeFact) -> None:
        won = replace(
            opened, state=DisputeState.WON, is_withdrawn=False, fee=Money(0, "EUR"), occurred_at=at(9)
        )
        tell(payment, opened, won)
        payment.refresh_from_db()
        assert (payment.disputed, payment.disputed_lost, payment.refundable) == (0, 0, 12950)
        assert books(payment)["CLEARING"] == 12950
        assert Dispute.objects.get().closed_at == at(9)

    def test_lost_is_a_loss(self, payment: Payment, opened: DisputeFact) -> None:
        tell(payment, opened, replace(opened, state=DisputeState.LOST, occurred_at=at(9)))
        payment.refresh_from_db()
        assert (payment.disputed, payment.disputed_lost, payment.refundable) == (0, 5000, 7950)
        assert books(payment)["DISPUTE_LOSSES"] == 5000
        assert books(payment)["DISPUTES_HELD"] == 0

    def test_every_order_of_arrival_ends_in_one_state(self, payment: Payment, opened: DisputeFact) -> None:
        told = [
            opened,
            replace(opened, state=DisputeState.UNDER_REVIEW, occurred_at=at(2)),
            replace(opened, state=DisputeState.WON, is_withdrawn=None, fee=None, occurred_at=at(9)),
            replace(
                opened, state=DisputeState.WON, is_withdrawn=False, fee=Money(0, "EUR"), occurred_at=at(10)
            ),
        ]
        seen = set()
        for order in permutations(told):
            with transaction.atomic():
                tell(payment, *order)
                payment.refresh_from_db()
                found = Dispute.objects.get()
                seen.add((found.state, found.is_withdrawn, payment.disputed, *books(payment).values()))
                assert prove_ledger() == []
                transaction.set_rollback(True)
        assert seen == {("won", False, 0, 12950, 0, 0, 0)}

    def test_pre_arbitration_after_a_win_takes_it_again(self, payment: Payment, opened: DisputeFact) -> None:
        won = replace(opened, state=DisputeState.WON, is_withdrawn=False, fee=None, occurred_at=at(9))
        again = replace(opened, stage=DisputeStage.PRE_ARBITRATION, fee=None, occurred_at=at(20))
        lost = replace(again, state=DisputeState.LOST, occurred_at=at(30))
        assert tell(payment, opened, won, again, lost) == ["applied"] * 4
        assert books(payment)["DISPUTE_LOSSES"] == 5000
        assert prove_ledger() == []

    def test_an_inquiry_moves_no_money(self, payment: Payment, opened: DisputeFact) -> None:
        tell(payment, replace(opened, stage=DisputeStage.INQUIRY, is_withdrawn=False, fee=None))
        payment.refresh_from_db()
        assert (payment.disputed, payment.refundable) == (0, 12950)

    def test_what_the_bank_holds_is_not_refunded_too(self, payment: Payment, opened: DisputeFact) -> None:
        tell(payment, opened)
        with pytest.raises(AmountTooLargeError):
            services.refund_order(payment.order, amount=7951, reason="requested", actor="api:shop")

    def test_a_customer_may_get_it_twice_and_the_books_say_so(
        self, payment: Payment, opened: DisputeFact
    ) -> None:
        services.refund_order(payment.order, amount=12950, reason="requested", actor="api:shop")
        tell(payment, opened, replace(opened, state=DisputeState.LOST, occurred_at=at(9)))
        payment.refresh_from_db()
        assert (payment.refunded, payment.disputed_lost) == (12950, 0)
        assert books(payment)["DISPUTE_LOSSES"] == 5000

    def test_nobodys_dispute_waits(self, payment: Payment, opened: DisputeFact) -> None:
        assert tell(payment, replace(opened, payment_reference="pi_nobody")) == ["unknown_payment"]


class TestAnswering:
    def test_evidence_is_sent_once_and_for_good(self, dispute: Dispute, gateway: FakeGateway) -> None:
        disputes.add_evidence(dispute, kind="receipt", text="Paid on the 1st.", actor="user:fin")
        pdf = EvidenceFile("slip.pdf", "application/pdf", b"%PDF-1.7 slip")
        disputes.add_evidence(dispute, kind="shipping_documentation", file=pdf, actor="user:fin")
        after = disputes.submit_evidence(dispute, actor="user:fin")
        assert (after.state, after.submitted_by) == ("under_review", "user:fin")
        assert gateway.evidence[0].files["shipping_documentation"] == pdf
        with pytest.raises(ConflictError, match="under review"):
            disputes.submit_evidence(dispute, actor="user:fin")
        assert len(gateway.evidence) == 1

    def test_accepting_loses_the_amount(self, dispute: Dispute) -> None:
        assert disputes.accept_dispute(dispute, actor="user:fin").state == "accepted"
        assert Payment.objects.get(pk=dispute.payment_id).disputed_lost == 5000

    def test_an_inquiry_is_not_accepted(self, dispute: Dispute, gateway: FakeGateway) -> None:
        Dispute.objects.update(stage=DisputeStage.INQUIRY)
        calls = list(gateway.calls)
        with pytest.raises(ConflictError, match="refund the order"):
            disputes.accept_dispute(dispute, actor="user:fin")
        assert gateway.calls == calls

    @pytest.mark.parametrize(
        ("kind", "text", "file", "why"),
        [
            ("gossip", "x", None, "no evidence of the kind"),
            ("receipt", "", None, "either a text or a file"),
            ("receipt", "his card is 4242 4242 4242 4242", None, "card number"),
            ("receipt", "x" * 20_001, None, "longer"),
            ("receipt", "", EvidenceFile("a.pdf", "application/pdf", b"MZ not a pdf"), "no PDF"),
            (
                "receipt",
                "",
                EvidenceFile("4242 4242 4242 4242.pdf", "application/pdf", b"%PDF-"),
                "card data",
            ),
            ("receipt", "", EvidenceFile("a.html", "text/html", b"<script>"), "no PDF"),
            (
                "receipt",
                "",
                EvidenceFile("a.png", "image/png", b"\x89PNG\r\n\x1a\n" + b"0" * 4_194_304),
                "4 MiB",
            ),
        ],
    )
    def test_bad_evidence_is_refused_with_the_reason(
        self, dispute: Dispute, kind: str, text: str, file: EvidenceFile | None, why: str
    ) -> None:
        with pytest.raises(InvalidRequestError, match=why):
            disputes.add_evidence(dispute, kind=kind, text=text, file=file, actor="user:fin")
        assert not dispute.evidence.exists()

    def test_nothing_is_sent_without_evidence_or_after_the_deadline(self, dispute: Dispute) -> None:
        with pytest.raises(ConflictError, match="no evidence"):
            disputes.submit_evidence(dispute, actor="user:fin")
        Dispute.objects.update(due_by=timezone.now() - timedelta(minutes=1))
        with pytest.raises(ConflictError, match="deadline"):
            disputes.add_evidence(dispute, kind="receipt", text="late", actor="user:fin")


class TestDeadlines:
    def test_an_unanswered_dispute_is_called_out_once(self, dispute: Dispute) -> None:
        Dispute.objects.update(due_by=timezone.now() + timedelta(hours=71))
        assert [services.watch_disputes(), services.watch_disputes()] == [1, 0]
        assert OnCallPage.objects.get().cause == "dispute:due_soon"

    def test_silence_loses_it(self, dispute: Dispute) -> None:
        Dispute.objects.update(due_by=timezone.now() - timedelta(hours=2))
        assert services.watch_disputes() == 0, "the bank may be slow"
        Dispute.objects.update(due_by=timezone.now() - timedelta(hours=25))
        assert services.watch_disputes() == 1
        assert Dispute.objects.get().state == "expired"
        assert Payment.objects.get(pk=dispute.payment_id).disputed_lost == 5000
