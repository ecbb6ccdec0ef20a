"""The part of the contract about disputes: how they stand, what webhooks tell of them, and how they are answered."""

from __future__ import annotations

import pytest

from payments.errors import InvalidRequestError
from payments.gateways.base import ChargeResult, DisputeFact, EvidenceFile, EvidenceRequest
from payments.ids import new_id
from payments.kinds import EVIDENCE_KINDS, DisputeStage, DisputeState
from payments.money import Money
from tests.payments.gateways.contract_shop import EUR, Shop

PDF = b"%PDF-1.4 proof of delivery %%EOF"


class DisputeContract:
    """A cardholder complains."""

    stage_of_a_loss = (
        DisputeStage.CHARGEBACK
    )  # where the bank's no to an answer opens a stage of its own: that

    def open_dispute(
        self, shop: Shop, stage: DisputeStage = DisputeStage.CHARGEBACK
    ) -> tuple[ChargeResult, str]:
        """A captured payment and the dispute about it."""
        shop.needs("dispute_evidence")
        held = shop.authorize()
        shop.capture(held)
        return held, shop.world.dispute(held.reference, stage=stage)

    def answer(self, dispute: str) -> EvidenceRequest:
        return EvidenceRequest(
            f"key-{new_id('dp')}",
            dispute,
            {"product_description": "Two mugs"},
            {"shipping_documentation": EvidenceFile("proof.pdf", "application/pdf", PDF)},
        )

    def assert_dispute(
        self, fact: DisputeFact, held: ChargeResult, dispute: str, stage: DisputeStage, state: DisputeState
    ) -> None:
        assert (fact.reference, fact.payment_reference) == (dispute, held.reference)
        assert (fact.stage, fact.state) == (stage, state)
        assert fact.amount == Money(1999, EUR)

    def assert_answered(
        self, shop: Shop, answered: DisputeFact, held: ChargeResult, dispute: str, state: DisputeState
    ) -> None:
        """A gateway that answers no questions may repeat no more than the dispute and how it stands now."""
        assert (answered.reference, answered.state) == (dispute, state)
        if shop.gateway.capabilities.answers_questions:
            self.assert_dispute(answered, held, dispute, DisputeStage.CHARGEBACK, state)
        else:
            assert answered.source == "answer"  # what it lacks is known of the dispute already
        self.assert_dispute(shop.learn_dispute(dispute), held, dispute, DisputeStage.CHARGEBACK, state)

    def test_a_chargeback_says_what_it_costs_and_until_when_to_answer(self, shop: Shop) -> None:
        held, dispute = self.open_dispute(shop)
        fact = shop.learn_dispute(dispute)
        self.assert_dispute(fact, held, dispute, DisputeStage.CHARGEBACK, DisputeState.NEEDS_RESPONSE)
        assert fact.reason
        assert fact.is_withdrawn is True
        assert fact.due_by is not None
        told = shop.told_of_dispute(dispute)
        self.assert_dispute(told[-1], held, dispute, DisputeStage.CHARGEBACK, DisputeState.NEEDS_RESPONSE)
        assert all(fact.occurred_at is not None for fact in told)

    def test_an_inquiry_moves_no_money(self, shop: Shop) -> None:
        held, dispute = self.open_dispute(shop, DisputeStage.INQUIRY)
        fact = shop.learn_dispute(dispute)
        self.assert_dispute(fact, held, dispute, DisputeStage.INQUIRY, DisputeState.NEEDS_RESPONSE)
        assert not fact.is_withdrawn
        assert fact.fee is None or fact.fee.minor == 0

    def test_a_dispute_that_never_was_is_absent(self, shop: Shop) -> None:
        shop.needs("dispute_evidence")
        assert shop.gateway.fetch_dispute("dispute_unheard_of") is None

    def test_evidence_is_sent_once_and_the_bank_looks_at_it(self, shop: Shop) -> None:
        held, dispute = self.open_dispute(shop)
        request = self.answer(dispute)
        fact = shop.gateway.submit_evidence(request)
        self.assert_answered(shop, fact, held, dispute, DisputeState.UNDER_REVIEW)
        given = shop.world.evidence(dispute)
        assert b"Two mugs" in given
        assert PDF in given

    def test_every_kind_of_evidence_reaches_the_gateway(self, shop: Shop) -> None:
        _, dispute = self.open_dispute(shop)
        texts = {kind: f"proof by {kind}" for kind in EVIDENCE_KINDS}
        shop.gateway.submit_evidence(EvidenceRequest(f"key-{new_id('dp')}", dispute, texts))
        given = shop.world.evidence(dispute).decode(errors="replace")
        assert [text for text in texts.values() if text not in given] == []

    @pytest.mark.parametrize("kind", EVIDENCE_KINDS)
    def test_every_kind_of_evidence_may_be_a_file(self, shop: Shop, kind: str) -> None:
        _, dispute = self.open_dispute(shop)
        file = EvidenceFile("proof.pdf", "application/pdf", PDF)
        shop.gateway.submit_evidence(EvidenceRequest(f"key-{new_id('dp')}", dispute, {}, {kind: file}))
        assert PDF in shop.world.evidence(dispute)

    @pytest.mark.parametrize(("won", "state"), [(True, DisputeState.WON), (False, DisputeState.LOST)])
    def test_the_bank_decides(self, shop: Shop, won: bool, state: DisputeState) -> None:
        held, dispute = self.open_dispute(shop)
        shop.gateway.submit_evidence(self.answer(dispute))
        shop.world.decide(dispute, won=won)
        stage = DisputeStage.CHARGEBACK if won else self.stage_of_a_loss
        for fact in (shop.learn_dispute(dispute), shop.told_of_dispute(dispute)[-1]):
            self.assert_dispute(fact, held, dispute, stage, state)
            assert fact.is_withdrawn in (None, not won)

    def test_who_gives_in_has_lost_for_good(self, shop: Shop) -> None:
        held, dispute = self.open_dispute(shop)
        fact = shop.gateway.accept_dispute(dispute, key=f"key-{new_id('dp')}")
        self.assert_answered(shop, fact, held, dispute, DisputeState.ACCEPTED)

    def test_what_is_decided_takes_no_more_answers(self, shop: Shop) -> None:
        _, dispute = self.open_dispute(shop)
        shop.gateway.submit_evidence(self.answer(dispute))
        shop.world.decide(dispute, won=False)
        with pytest.raises(InvalidRequestError):
            shop.gateway.submit_evidence(self.answer(dispute))
        with pytest.raises(InvalidRequestError):
            shop.gateway.accept_dispute(dispute, key=f"key-{new_id('dp')}")
        assert shop.learn_dispute(dispute).state is DisputeState.LOST
