"""The contract suite: what every gateway adapter must do, in a world in which its gateway can misbehave."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from payments.errors import (
    AmountTooLargeError,
    GatewayTimeoutError,
    InvalidRequestError,
    RateLimitedError,
    ReportNotReadyError,
)
from payments.gateways.base import (
    ChargeResult,
    ChargeStatus,
    PaymentGateway,
    RefundResult,
    RefundStatus,
)
from payments.ids import new_id
from payments.kinds import OperationKind
from payments.money import Money
from tests.payments.gateways.contract_disputes import DisputeContract
from tests.payments.gateways.contract_shop import COUNTED, DONE, EUR, Result, Shop, World

__all__ = ["GatewayContract", "Shop", "World"]

DECLINES = {
    "card_declined": "try_another_method",
    "insufficient_funds": "try_another_method",
    "expired_card": "try_another_method",
    "incorrect_cvc": "correct_details",
    "lost_or_stolen": "try_another_method",
    "suspected_fraud": "try_another_method",
}
LOST_ANSWERS = ("timeout_after", "reset_after", "500_after")
LOST_REQUESTS = ("timeout_before", "reset_before", "500")


class AuthorizationContract:
    """An amount is held on a card, or not."""

    exceptional_currencies: tuple[str, ...] = ()  # those whose digits the gateway counts in its own way
    exemption_words: Mapping[str, str] = {}  # our exemption -> the gateway's word

    def test_an_authorization_states_amount_card_and_expiry(self, shop: Shop) -> None:
        result = shop.authorize()
        assert result.status is ChargeStatus.AUTHORIZED
        assert result.amount == Money(1999, EUR)
        assert result.reference
        assert result.card is not None
        assert len(result.card.last4) == 4
        assert result.card.brand
        assert result.card.country
        assert result.card.fingerprint
        assert (result.card.avs, result.card.cvc) == ("pass", "pass")
        assert result.expires_at is not None
        assert result.expires_at > datetime.now(UTC) + timedelta(days=1)
        assert result.raw
        assert shop.count("charges") == 1
        assert shop.count("captures") == 0

    @pytest.mark.parametrize(("code", "advice"), DECLINES.items())
    def test_a_decline_is_a_result_with_our_code_and_theirs(self, shop: Shop, code: str, advice: str) -> None:
        result = shop.authorize(f"decline:{code}")
        assert result.status is ChargeStatus.DECLINED
        assert result.decline is not None
        assert (result.decline.code, result.decline.advice) == (code, advice)
        assert result.decline.gateway_code
        assert result.decline.message
        assert result.amount == Money(1999, EUR)
        assert result.saved is None
        assert shop.count("charges") == 0

    def test_failed_checks_are_told_beside_the_authorization(self, shop: Shop) -> None:
        avs = shop.another().authorize("avs_fail").card
        cvc = shop.authorize("cvc_fail").card
        assert avs is not None
        assert cvc is not None
        assert (avs.avs, avs.cvc) == ("fail", "pass")
        assert (cvc.avs, cvc.cvc) == ("pass", "fail")

    def test_a_wrong_amount_is_reported_as_answered(self, shop: Shop) -> None:
        result = shop.authorize("wrong_amount")
        assert result.status is ChargeStatus.AUTHORIZED
        assert result.amount == Money(2000, EUR)

    def test_amounts_survive_the_wire_in_every_exponent(self, shop: Shop) -> None:
        for currency in ("JPY", "KWD", *self.exceptional_currencies):
            amount, each = Money(12340, currency), shop.another()
            held = each.authorize(amount=amount)
            assert held.amount == amount
            assert each.capture(held).amount == amount
            assert each.refund(held, 1230).amount == Money(1230, currency)

    def test_an_unknown_token_is_our_mistake(self, shop: Shop) -> None:
        with pytest.raises(InvalidRequestError):
            shop.authorize("unknown_token")

    # --- the customer is asked ------------------------------------------------------------------------------

    def test_a_challenge_asks_for_a_redirect_and_ends_authorized(self, shop: Shop) -> None:
        shop.needs("challenges")
        result = shop.authorize("challenge")
        assert result.status is ChargeStatus.REQUIRES_ACTION
        assert result.next_action is not None
        assert result.next_action["type"] == "redirect_to_url"
        assert result.next_action["redirect_to_url"]["url"].startswith("http")
        assert result.next_action["redirect_to_url"]["return_url"] == "https://shop.example/return"
        shop.authenticate(result, success=True)
        found = shop.learn(OperationKind.AUTHORIZE, shop.operation_id, result.reference)
        assert isinstance(found, ChargeResult)
        assert found.status is ChargeStatus.AUTHORIZED
        assert found.card is not None
        assert found.card.three_d_secure == "authenticated"

    def test_a_failed_challenge_is_a_decline(self, shop: Shop) -> None:
        shop.needs("challenges")
        result = shop.authorize("challenge")
        shop.authenticate(result, success=False)
        found = shop.learn(OperationKind.AUTHORIZE, shop.operation_id, result.reference)
        assert isinstance(found, ChargeResult)
        assert found.status is ChargeStatus.DECLINED
        assert found.decline is not None
        assert found.decline.code == "authentication_failed"

    def test_an_abandoned_challenge_can_be_voided(self, shop: Shop) -> None:
        shop.needs("challenges")
        result = shop.authorize("challenge")
        assert shop.void(result).status is ChargeStatus.VOIDED
        assert shop.count("charges") == 0

    def test_three_d_secure_is_asked_for_when_we_want_it(self, shop: Shop) -> None:
        shop.needs("challenges")
        without = shop.another().authorize("challenge_if_asked")
        assert without.status is ChargeStatus.AUTHORIZED
        asked = shop.authorize("challenge_if_asked", request_three_d_secure=True)
        assert asked.status is ChargeStatus.REQUIRES_ACTION

    @pytest.mark.parametrize("exemption", ["low_value", "tra"])
    def test_an_exemption_goes_to_the_issuer_who_may_refuse_it_softly(
        self, shop: Shop, exemption: str
    ) -> None:
        shop.needs("sca_exemptions")
        granted = shop.authorize(sca_exemption=exemption)
        assert granted.status is ChargeStatus.AUTHORIZED
        assert granted.card is not None
        assert granted.card.three_d_secure == ""
        assert self.exemption_words[exemption] in str(granted.raw)
        refused = shop.another().authorize("needs_authentication", sca_exemption=exemption)
        assert refused.status is ChargeStatus.DECLINED
        assert refused.decline is not None
        assert refused.decline.code == "authentication_required"

    def test_a_challenge_wins_over_an_exemption(self, shop: Shop) -> None:
        shop.needs("sca_exemptions", "challenges")
        asked = shop.authorize("challenge", request_three_d_secure=True, sca_exemption="low_value")
        assert asked.status is ChargeStatus.REQUIRES_ACTION

    # --- saved tokens ---------------------------------------------------------------------------------------

    def test_nothing_is_saved_unasked(self, shop: Shop) -> None:
        assert shop.authorize().saved is None

    def test_a_saved_token_is_charged_without_the_customer(self, shop: Shop) -> None:
        shop.needs("saved_payment_methods")
        first = shop.authorize(save_payment_method=True, customer_id="customer-42")
        assert first.status is ChargeStatus.AUTHORIZED
        assert first.saved is not None
        later = shop.another()
        result = later.gateway.authorize(later.charge_saved(first.saved))
        assert (result.status, result.amount) == (ChargeStatus.AUTHORIZED, Money(500, EUR))
        assert result.card is not None
        assert first.card is not None
        assert result.card.fingerprint == first.card.fingerprint
        assert later.count("charges") == 1

    def test_a_forgotten_token_is_refused(self, shop: Shop) -> None:
        shop.needs("saved_payment_methods")
        saved = shop.authorize(save_payment_method=True, customer_id="customer-42").saved
        assert saved is not None
        shop.gateway.forget_payment_method(saved)
        shop.gateway.forget_payment_method(saved)  # it is gone already, which is no error
        later = shop.another()
        with pytest.raises(InvalidRequestError):
            later.gateway.authorize(later.charge_saved(saved))
        assert later.count("charges") == 0

    def test_a_saved_card_that_needs_its_holder_is_declined_without_him(self, shop: Shop) -> None:
        shop.needs("saved_payment_methods", "challenges")
        first = shop.authorize("authentication_required", save_payment_method=True, customer_id="customer-42")
        held = shop.complete(first)
        assert isinstance(held, ChargeResult)
        assert held.saved is not None
        later = shop.another()
        result = later.gateway.authorize(later.charge_saved(held.saved))
        assert result.status is ChargeStatus.DECLINED
        assert result.decline is not None
        assert (result.decline.code, result.decline.advice) == ("authentication_required", "authenticate")


class CaptureContract:
    """What is held is taken, in one part or several, or released."""

    def test_a_capture_takes_the_whole_hold(self, shop: Shop) -> None:
        held = shop.authorize()
        taken = shop.capture(held)
        assert (taken.status, taken.amount) == (ChargeStatus.CAPTURED, Money(1999, EUR))
        assert taken.reference == held.reference
        assert taken.total_captured in (None, Money(1999, EUR))
        assert (shop.count("captures"), shop.count("captured")) == (1, 1999)

    def test_an_answer_is_final_unless_captures_are_only_received(self, shop: Shop) -> None:
        held = shop.authorize()
        answer = shop.gateway.capture(shop.capture_request(held))
        late = shop.gateway.capabilities.asynchronous_captures
        assert answer.status is (ChargeStatus.PENDING if late else ChargeStatus.CAPTURED)

    def test_a_part_can_be_captured(self, shop: Shop) -> None:
        shop.needs("partial_capture")
        held = shop.authorize()
        assert shop.capture(held, 500).amount == Money(500, EUR)
        assert (shop.count("captures"), shop.count("captured")) == (1, 500)

    def test_more_than_the_hold_cannot_be_captured(self, shop: Shop) -> None:
        held = shop.authorize()
        shop.assert_refused(lambda: shop.capture(held, 2000), AmountTooLargeError)
        assert shop.count("captures") == 0

    def test_a_capture_that_was_done_already_is_captured(self, shop: Shop) -> None:
        shop.needs("answers_questions")
        held, operation_id = shop.authorize(), new_id("op")
        request = shop.capture_request(held, operation_id=operation_id)
        assert shop.gateway.capture(request).status is ChargeStatus.CAPTURED
        # The key was forgotten by the gateway in the meantime.
        again = dataclasses.replace(request, key=f"other-{request.key}")
        assert shop.gateway.capture(again).status is ChargeStatus.CAPTURED
        assert shop.count("captures") == 1

    def test_another_operation_cannot_capture_it_again(self, shop: Shop) -> None:
        held = shop.authorize()
        shop.capture(held)
        shop.assert_refused(lambda: shop.capture(held))
        assert shop.count("captures") == 1

    def test_a_capture_that_the_issuer_refuses_is_a_decline(self, shop: Shop) -> None:
        held = shop.authorize("capture_fails")
        assert held.status is ChargeStatus.AUTHORIZED
        assert shop.capture(held).status in (ChargeStatus.DECLINED, ChargeStatus.FAILED)
        assert shop.count("captured") == 0

    # --- several captures -----------------------------------------------------------------------------------

    def test_several_captures_add_up_each_with_its_own_amount(self, shop: Shop) -> None:
        shop.needs("several_captures")
        held = shop.hold()
        parts = [shop.capture(held, 500, final=False), shop.capture(held, 700, final=False)]
        last = shop.capture(held, 799)
        assert [part.amount.minor for part in (*parts, last)] == [500, 700, 799]
        assert all(part.status is ChargeStatus.CAPTURED for part in (*parts, last))
        assert all(part.reference == held.reference for part in parts)
        totals = [part.total_captured.minor for part in (*parts, last) if part.total_captured]
        assert totals in ([], [500, 1200, 1999])
        assert (shop.count("captures"), shop.count("captured")) == (3, 1999)

    def test_each_of_several_captures_is_found_by_its_own_operation(self, shop: Shop) -> None:
        shop.needs("several_captures")
        held, ids = shop.hold(), [new_id("op"), new_id("op"), new_id("op")]
        for minor, operation_id in zip((500, 700, 100), ids, strict=True):
            shop.capture(held, minor, operation_id=operation_id, final=minor == 100)
        found = [shop.learn(OperationKind.CAPTURE, each, held.reference) for each in ids]
        assert [(one.status, one.amount.minor) for one in found if one] == [
            (ChargeStatus.CAPTURED, 500),
            (ChargeStatus.CAPTURED, 700),
            (ChargeStatus.CAPTURED, 100),
        ]
        assert shop.learn(OperationKind.CAPTURE, new_id("op"), held.reference) is None

    def test_an_authorization_stands_for_its_whole_amount_between_captures(self, shop: Shop) -> None:
        shop.needs("several_captures", "answers_questions")
        held = shop.hold()
        shop.capture(held, 500, final=False)
        found = shop.fetch(reference=held.reference)
        assert found is not None
        assert (found.status, found.amount) == (ChargeStatus.AUTHORIZED, Money(1999, EUR))

    def test_nothing_is_captured_after_the_final_capture(self, shop: Shop) -> None:
        shop.needs("several_captures")
        held = shop.hold()
        shop.capture(held, 500, final=False)
        shop.capture(held, 600)
        if not shop.gateway.capabilities.final_capture_releases:
            assert shop.void(held, 899, is_rest=True).status is ChargeStatus.VOIDED
            assert shop.count("released") == 899
        shop.assert_refused(lambda: shop.capture(held, 100))
        assert shop.count("captured") == 1100

    def test_no_more_than_is_left_can_be_captured(self, shop: Shop) -> None:
        shop.needs("several_captures")
        held = shop.hold()
        shop.capture(held, 500, final=False)
        shop.assert_refused(lambda: shop.capture(held, 1500, final=False), AmountTooLargeError)
        shop.assert_refused(lambda: shop.capture(held, 1500), AmountTooLargeError)
        assert shop.count("captured") == 500

    def test_the_rest_is_released_after_captures(self, shop: Shop) -> None:
        shop.needs("several_captures")
        held, mine = shop.hold(), new_id("op")
        shop.capture(held, 500, final=False)
        gone = shop.void(held, 1499, operation_id=mine, is_rest=True)
        assert (gone.status, gone.amount) == (ChargeStatus.VOIDED, Money(1499, EUR))
        assert (shop.count("captured"), shop.count("released")) == (500, 1499)
        found = shop.learn(OperationKind.VOID, mine, held.reference)
        assert found is not None
        assert (found.status, found.amount) == (ChargeStatus.VOIDED, Money(1499, EUR))
        shop.assert_refused(lambda: shop.capture(held, 100))
        assert shop.count("captured") == 500

    def test_a_capture_in_parts_is_refused_where_it_is_not_offered(self, shop: Shop) -> None:
        if shop.gateway.capabilities.several_captures:
            pytest.skip("it captures in parts")
        held = shop.authorize()
        with pytest.raises(InvalidRequestError):
            shop.gateway.capture(shop.capture_request(held, 500, final=False))
        assert shop.count("captures") == 0

    # --- void -----------------------------------------------------------------------------------------------

    def test_a_void_releases_the_hold(self, shop: Shop) -> None:
        held = shop.authorize()
        assert shop.void(held).status is ChargeStatus.VOIDED
        assert (shop.count("cancels"), shop.count("released")) == (1, 1999)

    def test_a_void_of_what_is_void_is_voided(self, shop: Shop) -> None:
        shop.needs("answers_questions")
        held = shop.authorize()
        shop.void(held)
        assert shop.void(held).status is ChargeStatus.VOIDED
        assert shop.count("cancels") == 1

    def test_what_is_captured_cannot_be_voided(self, shop: Shop) -> None:
        held = shop.authorize()
        shop.capture(held)
        shop.assert_refused(lambda: shop.void(held))
        assert shop.count("released") == 0

    def test_a_void_without_a_reference_goes_by_our_own_id_or_nowhere(self, shop: Shop) -> None:
        """Nobody knows whether the authorization was made: its answer was lost."""
        shop.world.fail_next("authorize", "timeout_after", operation_id=shop.operation_id)
        shop.lose("timeout_after", shop.authorize)
        lost = ChargeResult(ChargeStatus.AUTHORIZED, "", Money(1999, EUR))
        if not shop.gateway.capabilities.void_without_reference:
            with pytest.raises(InvalidRequestError):
                shop.void(lost)
            assert shop.count("released") == 0
            return
        assert shop.void(lost).status is ChargeStatus.VOIDED
        assert shop.count("released") == 1999


class RefundContract:
    """What was taken is given back."""

    def test_refunds_of_parts_add_up(self, shop: Shop) -> None:
        held = shop.authorize()
        taken = shop.capture(held)
        first, second = shop.refund(held, 500, of=taken), shop.refund(held, 1499, of=taken)
        assert (first.status, first.amount) == (RefundStatus.SUCCEEDED, Money(500, EUR))
        assert (second.status, second.amount) == (RefundStatus.SUCCEEDED, Money(1499, EUR))
        assert first.reference != second.reference
        assert (shop.count("refunds"), shop.count("refunded")) == (2, 1999)

    def test_more_than_what_is_left_cannot_be_refunded(self, shop: Shop) -> None:
        held = shop.authorize()
        taken = shop.capture(held)
        shop.refund(held, 1500, of=taken)
        shop.assert_refused(lambda: shop.refund(held, 500, of=taken), AmountTooLargeError)
        assert shop.count("refunded") == 1500

    def test_several_captures_are_refunded_each_or_together(self, shop: Shop) -> None:
        shop.needs("several_captures")
        held = shop.hold()
        first, second = shop.capture(held, 500, final=False), shop.capture(held, 700, final=False)
        assert shop.refund(held, 700, of=second).status is RefundStatus.SUCCEEDED
        if shop.gateway.capabilities.refunds_per_capture:
            assert first.own_reference
            assert first.own_reference != second.own_reference
            shop.assert_refused(lambda: shop.refund(held, 1, of=second))
        assert shop.refund(held, 500, of=first).status is RefundStatus.SUCCEEDED
        assert shop.count("refunded") == 1200

    def test_a_slow_refund_is_pending_and_its_end_is_told(self, shop: Shop) -> None:
        shop.needs("asynchronous_refunds")
        held, mine = shop.authorize("refund_fails_later"), new_id("op")
        taken = shop.capture(held)
        made = shop.gateway.refund(shop.refund_request(held, 500, operation_id=mine, of=taken))
        assert made.status is RefundStatus.PENDING
        shop.world.settle()
        ended = shop.learn(OperationKind.REFUND, mine, held.reference, own_reference=made.reference)
        assert isinstance(ended, RefundResult)
        assert (ended.status, ended.amount) == (RefundStatus.FAILED, Money(500, EUR))
        assert ended.failure is not None
        assert shop.count("refunded") == 0


class QuestionContract:
    """What became of an operation, asked of the gateway."""

    def test_an_authorization_is_found_by_reference_and_by_operation(self, shop: Shop) -> None:
        shop.needs("answers_questions")
        held = shop.authorize()
        by_reference, by_operation = shop.fetch(reference=held.reference), shop.fetch()
        assert by_reference == by_operation
        assert isinstance(by_operation, ChargeResult)
        assert by_operation.status is ChargeStatus.AUTHORIZED
        assert (by_operation.reference, by_operation.amount) == (held.reference, held.amount)
        assert by_operation.card == held.card

    def test_a_decline_is_found_by_operation(self, shop: Shop) -> None:
        shop.needs("answers_questions")
        shop.authorize("decline:insufficient_funds")
        found = shop.fetch()
        assert isinstance(found, ChargeResult)
        assert found.decline is not None
        assert found.decline.code == "insufficient_funds"

    @pytest.mark.parametrize("kind", list(OperationKind))
    def test_what_never_happened_is_absent(self, shop: Shop, kind: OperationKind) -> None:
        assert shop.fetch(kind, since=datetime.now(UTC)) is None

    def test_a_gateway_that_answers_no_questions_says_that_it_knows_nothing(self, shop: Shop) -> None:
        held = shop.authorize()
        knows = shop.gateway.capabilities.answers_questions
        assert (shop.fetch(reference=held.reference) is not None) is knows

    def test_a_hold_answers_no_to_capture_and_void(self, shop: Shop) -> None:
        held = shop.authorize()
        for kind in (OperationKind.CAPTURE, OperationKind.VOID, OperationKind.REFUND):
            assert shop.fetch(kind, new_id("op"), held.reference) is None

    def test_a_capture_is_found_by_its_own_operation_alone(self, shop: Shop) -> None:
        shop.needs("answers_questions")
        held, mine = shop.authorize(), new_id("op")
        shop.capture(held, 700, operation_id=mine)
        found = shop.fetch(OperationKind.CAPTURE, mine, held.reference)
        assert found is not None
        assert (found.status, found.amount) == (ChargeStatus.CAPTURED, Money(700, EUR))
        assert shop.fetch(OperationKind.CAPTURE, new_id("op"), held.reference) is None
        authorization = shop.fetch(reference=held.reference)
        assert authorization is not None
        assert authorization.status is ChargeStatus.AUTHORIZED

    def test_a_void_is_found(self, shop: Shop) -> None:
        shop.needs("answers_questions")
        held, mine = shop.authorize(), new_id("op")
        shop.void(held, operation_id=mine)
        found = shop.fetch(OperationKind.VOID, mine, held.reference)
        assert found is not None
        assert found.status is ChargeStatus.VOIDED

    def test_a_refund_is_found_three_ways(self, shop: Shop) -> None:
        shop.needs("answers_questions")
        held, mine, start = shop.authorize(), new_id("op"), datetime.now(UTC)
        taken = shop.capture(held)
        shop.refund(held, 300, of=taken)
        made = shop.refund(held, 200, operation_id=mine, of=taken)
        for way in ({"own_reference": made.reference}, {"reference": held.reference}, {"since": start}):
            found = shop.fetch(OperationKind.REFUND, mine, **way)
            assert isinstance(found, RefundResult)
            assert (found.reference, found.amount) == (made.reference, Money(200, EUR))

    def test_an_unanswered_question_is_not_an_absence(self, shop: Shop) -> None:
        shop.needs("answers_questions")
        held = shop.authorize()
        shop.world.fail_next("fetch", "500", operation_id=shop.operation_id)
        with pytest.raises(GatewayTimeoutError):
            shop.fetch(reference=held.reference)


class FailureContract:
    """The wire fails: money moves once, and what is not known is not guessed."""

    @pytest.mark.parametrize("kind", list(OperationKind))
    def test_the_same_key_again_gives_the_same_answer_and_moves_nothing(
        self, shop: Shop, kind: OperationKind
    ) -> None:
        shop.needs("idempotency_key_hours")
        act = shop.prepare(kind)
        first, second = act.send(), act.send()
        assert (first.status, first.amount, first.reference) == (
            second.status,
            second.amount,
            second.reference,
        )
        assert first.status is DONE[kind]
        assert shop.count(COUNTED[kind]) == 1

    def test_the_same_key_with_another_amount_is_not_a_refusal(self, shop: Shop) -> None:
        """Something was done with that key: only asking tells what."""
        shop.needs("idempotency_key_hours")
        shop.authorize()
        with pytest.raises(GatewayTimeoutError):
            shop.authorize(amount=Money(1, EUR))

    @pytest.mark.parametrize("kind", list(OperationKind))
    @pytest.mark.parametrize("fault", LOST_ANSWERS)
    def test_an_answer_lost_after_the_act_is_unknown_and_money_moves_once(
        self, shop: Shop, kind: OperationKind, fault: str
    ) -> None:
        act = shop.prepare(kind)
        shop.world.fail_next(kind.value, fault, operation_id=shop.operation_id)
        shop.lose(fault, act.send)
        ended: Result | None = None
        if shop.gateway.capabilities.answers_questions:
            ended = shop.fetch(kind, act.operation_id, act.reference)
            assert ended is not None
        elif kind in shop.gateway.capabilities.webhook_kinds:
            ended = shop.learn(kind, act.operation_id, act.reference)
            assert ended is not None
            assert ended.status is DONE[kind]
        if shop.gateway.capabilities.idempotency_key_hours:
            ended = act.send()
        assert ended is not None
        assert ended.status in (DONE[kind], RefundStatus.PENDING)
        assert shop.count(COUNTED[kind]) == 1

    @pytest.mark.parametrize("kind", list(OperationKind))
    @pytest.mark.parametrize("fault", LOST_REQUESTS)
    def test_a_request_lost_before_the_act_is_unknown_then_absent_and_may_be_sent_again(
        self, shop: Shop, kind: OperationKind, fault: str
    ) -> None:
        act = shop.prepare(kind)
        shop.world.fail_next(kind.value, fault, operation_id=shop.operation_id)
        shop.lose(fault, act.send)
        assert shop.fetch(kind, act.operation_id, act.reference, since=datetime.now(UTC)) is None
        assert shop.count(COUNTED[kind]) == 0
        assert act.send().status is DONE[kind]
        assert shop.count(COUNTED[kind]) == 1

    @pytest.mark.parametrize("kind", list(OperationKind))
    def test_too_many_requests_may_be_sent_again(self, shop: Shop, kind: OperationKind) -> None:
        act = shop.prepare(kind)
        shop.world.fail_next(kind.value, "429", operation_id=shop.operation_id)
        with pytest.raises(RateLimitedError):
            act.send()
        assert act.send().status is DONE[kind]


class EventContract:
    """What webhooks and reports tell is what the answers told."""

    def test_events_tell_the_same_facts_as_the_answers(self, shop: Shop) -> None:
        held, capture_id, refund_id = shop.authorize(), new_id("op"), new_id("op")
        taken = shop.capture(held, operation_id=capture_id)
        shop.refund(held, 500, operation_id=refund_id, of=taken)
        shop.world.settle()
        told = shop.told(held.reference)
        said = {(fact.kind, fact.operation_id, fact.result.status, fact.result.amount.minor) for fact in told}
        expected = {
            (OperationKind.AUTHORIZE, shop.operation_id, ChargeStatus.AUTHORIZED, 1999),
            (OperationKind.CAPTURE, capture_id, ChargeStatus.CAPTURED, 1999),
            (OperationKind.REFUND, refund_id, RefundStatus.SUCCEEDED, 500),
        }
        assert {each for each in expected if each[0] in shop.gateway.capabilities.webhook_kinds} <= said
        assert all(fact.occurred_at is not None for fact in told)
        kinds = [fact.kind for fact in told]
        assert kinds == sorted(kinds, key=list(OperationKind).index)

    def test_an_event_tells_of_a_void(self, shop: Shop) -> None:
        if OperationKind.VOID not in shop.gateway.capabilities.webhook_kinds:
            pytest.skip("it declares no webhook of a void")
        held, mine = shop.authorize(), new_id("op")
        shop.void(held, operation_id=mine)
        (fact,) = [fact for fact in shop.told(held.reference) if fact.kind is OperationKind.VOID]
        assert fact.operation_id in ("", mine)  # where a void carries no id of ours, the reference names it
        assert fact.reference == held.reference
        assert (fact.result.status, fact.result.amount) == (ChargeStatus.VOIDED, Money(1999, EUR))

    def test_events_tell_each_of_several_captures_apart(self, shop: Shop) -> None:
        shop.needs("several_captures")
        if OperationKind.CAPTURE not in shop.gateway.capabilities.webhook_kinds:
            pytest.skip("it declares no webhook of a capture")
        held, ids = shop.hold(), [new_id("op"), new_id("op")]
        shop.capture(held, 500, operation_id=ids[0], final=False)
        shop.capture(held, 700, operation_id=ids[1])
        captures = [fact for fact in shop.told(held.reference) if fact.kind is OperationKind.CAPTURE]
        assert {(fact.operation_id, fact.result.amount.minor) for fact in captures} == {
            (ids[0], 500),
            (ids[1], 700),
        }

    def test_events_can_be_listed_and_narrowed_to_types(self, shop: Shop) -> None:
        start = datetime.now(UTC) - timedelta(seconds=2)
        yesterday = start - timedelta(days=1)
        before = list(shop.gateway.list_events(since=yesterday, until=start))
        shop.authorize()
        every = list(shop.gateway.list_events(since=start))
        if not shop.gateway.capabilities.lists_events:
            assert every == []
            return
        told = [fact for event in every for fact in shop.gateway.read_event(event)]
        assert any(fact.payment_id == shop.payment_id for fact in told)
        wanted = sorted({event["type"] for event in every})[:2]
        found = list(shop.gateway.list_events(since=start, types=wanted))
        assert {event["type"] for event in found} == set(wanted)
        assert len(found) < len(every)
        assert list(shop.gateway.list_events(since=yesterday, until=start)) == before
        assert len(list(shop.gateway.list_events(since=start, until=start + timedelta(hours=1)))) == len(
            every
        )

    def test_a_day_is_reported_when_it_is_over(self, shop: Shop) -> None:
        held, refund_id = shop.authorize(), new_id("op")
        taken = shop.capture(held)
        shop.refund(held, 500, operation_id=refund_id, of=taken)
        shop.world.settle()
        today = datetime.now(UTC).date()
        with pytest.raises(ReportNotReadyError):
            shop.gateway.settlement_report(day=today)
        shop.world.tomorrow()
        report = b"".join(shop.gateway.settlement_report(day=today))
        assert self.read_report(report, shop) == [("19.99", ""), ("-5.00", refund_id)]

    def read_report(self, report: bytes, shop: Shop) -> list[tuple[str, str]]:
        """Of the rows about this shop's payment: the signed amount, and of a refund its operation."""
        raise NotImplementedError


class GatewayContract(
    AuthorizationContract,
    CaptureContract,
    RefundContract,
    QuestionContract,
    FailureContract,
    EventContract,
    DisputeContract,
):
    """Inherit it, give the fixtures `gateway` and `world`, and `read_report`; over a real wire `hasty` too."""

    @pytest.fixture
    def hasty(self, gateway: PaymentGateway) -> PaymentGateway:
        """The gateway for calls that are never answered, which gives up soon."""
        return gateway

    @pytest.fixture
    def shop(self, gateway: PaymentGateway, hasty: PaymentGateway, world: World) -> Shop:
        return Shop(gateway, world, hasty)
