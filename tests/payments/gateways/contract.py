"""The contract suite: what every gateway adapter must do, in a world in which its gateway can misbehave."""

from __future__ import annotations

import csv
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pytest

from payments.errors import (
    AmountTooLargeError,
    GatewayTimeoutError,
    InvalidRequestError,
    RateLimitedError,
    ReportNotReadyError,
)
from payments.gateways.base import (
    CaptureRequest,
    ChargeRequest,
    ChargeResult,
    ChargeStatus,
    FetchRequest,
    PaymentGateway,
    RefundRequest,
    RefundResult,
    RefundStatus,
    VoidRequest,
)
from payments.ids import new_id
from payments.kinds import OperationKind
from payments.money import Money

EUR = "EUR"


class World(Protocol):
    """The other side of the wire, as a test needs it."""

    def card(self, behaviour: str) -> str:
        """The token of a card: ok, challenge, avs_fail, wrong_amount, decline:<gateway code> ..."""

    def fail_next(self, operation: str, fault: str, *, operation_id: str, times: int = 1) -> None:
        """It fails so for this operation alone: timeout_before, timeout_after, reset_after, 500, 429 ..."""

    def authenticate(self, reference: str, *, success: bool) -> None: ...

    def count_movements(self, operation_id: str) -> Counter[str]:
        """From the gateway's own books: charges, captures, cancels, refunds under this authorization."""

    def tomorrow(self) -> None:
        """Move the gateway's clock on by a day."""


class Shop:
    """Makes the requests of one payment."""

    def __init__(self, gateway: PaymentGateway, world: World) -> None:
        self.gateway = gateway
        self.world = world
        self.operation_id = new_id("op")
        self.payment_id = new_id("pay")
        self.order_id = new_id("ord")

    def charge(self, behaviour: str = "ok", amount: Money | None = None, **extra: Any) -> ChargeRequest:
        return ChargeRequest(
            key=f"key-{self.operation_id}",
            operation_id=self.operation_id,
            payment_id=self.payment_id,
            order_id=self.order_id,
            amount=amount or Money(1999, EUR),
            payment_method=self.world.card(behaviour),
            return_url="https://shop.example/return",
            **extra,
        )

    def authorize(self, behaviour: str = "ok", amount: Money | None = None) -> ChargeResult:
        return self.gateway.authorize(self.charge(behaviour, amount))

    def capture(
        self, held: ChargeResult, minor: int | None = None, *, operation_id: str = ""
    ) -> ChargeResult:
        operation_id = operation_id or new_id("op")
        amount = Money(minor or held.amount.minor, held.amount.currency)
        return self.gateway.capture(
            CaptureRequest(f"key-{operation_id}", operation_id, held.reference, amount)
        )

    def void(self, held: ChargeResult) -> ChargeResult:
        operation_id = new_id("op")
        return self.gateway.void(
            VoidRequest(f"key-{operation_id}", operation_id, held.reference, held.amount)
        )

    def refund(self, held: ChargeResult, minor: int, *, operation_id: str = "") -> RefundResult:
        operation_id = operation_id or new_id("op")
        amount = Money(minor, held.amount.currency)
        return self.gateway.refund(
            RefundRequest(
                f"key-{operation_id}", operation_id, held.reference, amount, "requested_by_customer"
            )
        )

    def fetch(
        self,
        kind: OperationKind = OperationKind.AUTHORIZE,
        operation_id: str = "",
        reference: str = "",
        **extra: Any,
    ) -> ChargeResult | RefundResult | None:
        request = FetchRequest(kind, operation_id or self.operation_id, reference, **extra)
        return self.gateway.fetch(request)


class GatewayContract:
    """Inherit it, and give the fixtures `gateway` and `world`."""

    @pytest.fixture
    def shop(self, gateway: PaymentGateway, world: World) -> Shop:
        return Shop(gateway, world)

    # --- authorize ------------------------------------------------------------------------------------------

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
        assert result.card.risk_score is not None
        assert result.expires_at is not None
        assert result.expires_at > datetime.now(UTC) + timedelta(days=1)
        assert result.raw

    @pytest.mark.parametrize(
        ("gateway_code", "code", "advice"),
        [
            ("generic_decline", "card_declined", "try_another_method"),
            ("insufficient_funds", "insufficient_funds", "try_another_method"),
            ("expired_card", "expired_card", "try_another_method"),
            ("incorrect_cvc", "incorrect_cvc", "correct_details"),
            ("processing_error", "processing_error", "try_again_later"),
            ("lost_card", "lost_or_stolen", "try_another_method"),
            ("fraudulent", "suspected_fraud", "try_another_method"),
        ],
    )
    def test_a_decline_is_a_result_with_our_code_and_theirs(
        self, shop: Shop, gateway_code: str, code: str, advice: str
    ) -> None:
        result = shop.authorize(f"decline:{gateway_code}")
        assert result.status is ChargeStatus.DECLINED
        assert result.decline is not None
        assert (result.decline.code, result.decline.advice) == (code, advice)
        assert result.decline.gateway_code == gateway_code
        assert result.decline.message
        assert result.amount == Money(1999, EUR)
        assert shop.world.count_movements(shop.operation_id)["charges"] == 0

    def test_a_challenge_asks_for_a_redirect_and_ends_authorized(self, shop: Shop) -> None:
        result = shop.authorize("challenge")
        assert result.status is ChargeStatus.REQUIRES_ACTION
        assert result.next_action is not None
        assert result.next_action["type"] == "redirect_to_url"
        assert result.next_action["redirect_to_url"]["url"].startswith("http")
        assert result.next_action["redirect_to_url"]["return_url"] == "https://shop.example/return"
        shop.world.authenticate(result.reference, success=True)
        found = shop.fetch(reference=result.reference)
        assert isinstance(found, ChargeResult)
        assert found.status is ChargeStatus.AUTHORIZED
        assert found.card is not None
        assert found.card.three_d_secure == "authenticated"

    def test_a_failed_challenge_is_a_decline(self, shop: Shop) -> None:
        result = shop.authorize("challenge")
        shop.world.authenticate(result.reference, success=False)
        found = shop.fetch(reference=result.reference)
        assert isinstance(found, ChargeResult)
        assert found.status is ChargeStatus.DECLINED
        assert found.decline is not None
        assert found.decline.code == "authentication_failed"

    def test_an_abandoned_challenge_can_be_voided(self, shop: Shop) -> None:
        result = shop.authorize("challenge")
        assert shop.void(result).status is ChargeStatus.VOIDED
        found = shop.fetch(reference=result.reference)
        assert found is not None
        assert found.status is ChargeStatus.VOIDED

    def test_three_d_secure_is_asked_for_when_we_want_it(self, shop: Shop) -> None:
        without = Shop(shop.gateway, shop.world).authorize("challenge_if_asked")
        assert without.status is ChargeStatus.AUTHORIZED
        asked = shop.gateway.authorize(shop.charge("challenge_if_asked", request_three_d_secure=True))
        assert asked.status is ChargeStatus.REQUIRES_ACTION

    def test_failed_checks_are_told_beside_the_authorization(self, shop: Shop) -> None:
        avs = Shop(shop.gateway, shop.world).authorize("avs_fail").card
        cvc = shop.authorize("cvc_fail").card
        assert avs is not None
        assert cvc is not None
        assert (avs.avs, avs.cvc) == ("fail", "pass")
        assert (cvc.avs, cvc.cvc) == ("pass", "fail")

    def test_a_wrong_amount_is_reported_as_answered(self, shop: Shop) -> None:
        result = shop.authorize("wrong_amount")
        assert result.status is ChargeStatus.AUTHORIZED
        assert result.amount == Money(2000, EUR)

    @pytest.mark.parametrize("currency", ["JPY", "KWD", "ISK", "UGX"])
    def test_amounts_survive_the_wire_in_every_exponent(self, shop: Shop, currency: str) -> None:
        assert shop.authorize(amount=Money(12340, currency)).amount == Money(12340, currency)

    def test_an_unknown_token_is_our_mistake(self, shop: Shop) -> None:
        with pytest.raises(InvalidRequestError):
            shop.authorize("unknown_token")

    # --- capture and void -----------------------------------------------------------------------------------

    def test_a_capture_takes_the_whole_hold(self, shop: Shop) -> None:
        held = shop.authorize()
        taken = shop.capture(held)
        assert (taken.status, taken.amount) == (ChargeStatus.CAPTURED, Money(1999, EUR))
        assert taken.reference == held.reference
        assert shop.world.count_movements(shop.operation_id)["captures"] == 1

    def test_a_part_can_be_captured(self, shop: Shop) -> None:
        held = shop.authorize()
        assert shop.capture(held, 500).amount == Money(500, EUR)
        assert shop.world.count_movements(shop.operation_id)["captured"] == 500

    def test_more_than_the_hold_cannot_be_captured(self, shop: Shop) -> None:
        held = shop.authorize()
        with pytest.raises(AmountTooLargeError):
            shop.capture(held, 2000)
        assert shop.world.count_movements(shop.operation_id)["captures"] == 0

    def test_a_capture_that_was_done_already_is_captured(self, shop: Shop) -> None:
        held, operation_id = shop.authorize(), new_id("op")
        request = CaptureRequest("key-one" + operation_id, operation_id, held.reference, held.amount)
        assert shop.gateway.capture(request).status is ChargeStatus.CAPTURED
        # The key was forgotten by the gateway in the meantime.
        again = CaptureRequest("key-two" + operation_id, operation_id, held.reference, held.amount)
        assert shop.gateway.capture(again).status is ChargeStatus.CAPTURED
        assert shop.world.count_movements(shop.operation_id)["captures"] == 1

    def test_another_operation_cannot_capture_it_again(self, shop: Shop) -> None:
        held = shop.authorize()
        shop.capture(held)
        with pytest.raises(InvalidRequestError):
            shop.capture(held)

    def test_a_capture_that_the_issuer_refuses_is_a_decline(self, shop: Shop) -> None:
        held = shop.authorize("capture_fails")
        assert held.status is ChargeStatus.AUTHORIZED
        assert shop.capture(held).status is ChargeStatus.DECLINED

    def test_a_void_releases_the_hold(self, shop: Shop) -> None:
        held = shop.authorize()
        assert shop.void(held).status is ChargeStatus.VOIDED
        assert shop.world.count_movements(shop.operation_id)["released"] == 1999

    def test_a_void_of_what_is_void_is_voided(self, shop: Shop) -> None:
        held = shop.authorize()
        shop.void(held)
        assert shop.void(held).status is ChargeStatus.VOIDED
        assert shop.world.count_movements(shop.operation_id)["cancels"] == 1

    def test_what_is_captured_cannot_be_voided(self, shop: Shop) -> None:
        held = shop.authorize()
        shop.capture(held)
        with pytest.raises(InvalidRequestError):
            shop.void(held)

    # --- refund ---------------------------------------------------------------------------------------------

    def test_refunds_of_parts_add_up(self, shop: Shop) -> None:
        held = shop.authorize()
        shop.capture(held)
        first, second = shop.refund(held, 500), shop.refund(held, 1499)
        assert (first.status, first.amount) == (RefundStatus.SUCCEEDED, Money(500, EUR))
        assert second.amount == Money(1499, EUR)
        assert first.reference != second.reference
        assert shop.world.count_movements(shop.operation_id)["refunded"] == 1999

    def test_more_than_what_is_left_cannot_be_refunded(self, shop: Shop) -> None:
        held = shop.authorize()
        shop.capture(held)
        shop.refund(held, 1500)
        with pytest.raises(AmountTooLargeError):
            shop.refund(held, 500)
        assert shop.world.count_movements(shop.operation_id)["refunded"] == 1500

    def test_a_slow_refund_is_pending(self, shop: Shop) -> None:
        held = shop.authorize("refund_fails_later")
        shop.capture(held)
        assert shop.refund(held, 500).status is RefundStatus.PENDING

    # --- fetch ----------------------------------------------------------------------------------------------

    def test_an_authorization_is_found_by_reference_and_by_operation(self, shop: Shop) -> None:
        held = shop.authorize()
        by_reference, by_operation = shop.fetch(reference=held.reference), shop.fetch()
        assert by_reference == by_operation
        assert isinstance(by_operation, ChargeResult)
        assert by_operation.status is ChargeStatus.AUTHORIZED
        assert (by_operation.reference, by_operation.amount) == (held.reference, held.amount)
        assert by_operation.card == held.card

    def test_a_decline_is_found_by_operation(self, shop: Shop) -> None:
        shop.authorize("decline:insufficient_funds")
        found = shop.fetch()
        assert isinstance(found, ChargeResult)
        assert found.decline is not None
        assert found.decline.code == "insufficient_funds"

    @pytest.mark.parametrize("kind", list(OperationKind))
    def test_what_never_happened_is_absent(self, shop: Shop, kind: OperationKind) -> None:
        assert shop.fetch(kind, since=datetime.now(UTC)) is None

    def test_a_hold_answers_no_to_capture_and_void(self, shop: Shop) -> None:
        held = shop.authorize()
        for kind in (OperationKind.CAPTURE, OperationKind.VOID, OperationKind.REFUND):
            assert shop.fetch(kind, new_id("op"), held.reference) is None

    def test_a_capture_is_found_by_its_own_operation_alone(self, shop: Shop) -> None:
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
        held = shop.authorize()
        shop.void(held)
        found = shop.fetch(OperationKind.VOID, new_id("op"), held.reference)
        assert found is not None
        assert found.status is ChargeStatus.VOIDED

    def test_a_refund_is_found_three_ways(self, shop: Shop) -> None:
        held, mine, start = shop.authorize(), new_id("op"), datetime.now(UTC)
        shop.capture(held)
        shop.refund(held, 300)
        made = shop.refund(held, 200, operation_id=mine)
        ways: list[dict[str, Any]] = [
            {"refund_reference": made.reference},
            {"reference": held.reference},
            {"since": start},
        ]
        for way in ways:
            found = shop.fetch(OperationKind.REFUND, mine, **way)
            assert isinstance(found, RefundResult)
            assert (found.reference, found.amount) == (made.reference, Money(200, EUR))

    # --- when the wire fails --------------------------------------------------------------------------------

    def test_the_same_key_again_does_nothing_again(self, shop: Shop) -> None:
        request = shop.charge()
        first, second = shop.gateway.authorize(request), shop.gateway.authorize(request)
        assert first == second
        assert shop.world.count_movements(shop.operation_id)["charges"] == 1

    def test_the_same_key_with_another_amount_is_not_a_refusal(self, shop: Shop) -> None:
        """Something was done with that key: only asking tells what."""
        shop.authorize()
        with pytest.raises(GatewayTimeoutError):
            shop.authorize(amount=Money(1, EUR))

    @pytest.mark.parametrize("fault", ["timeout_after", "reset_after", "500_after"])
    def test_an_answer_lost_after_the_act_is_unknown_and_then_found(self, shop: Shop, fault: str) -> None:
        shop.world.fail_next("authorize", fault, operation_id=shop.operation_id)
        with pytest.raises(GatewayTimeoutError):
            shop.authorize()
        found = shop.fetch()
        assert found is not None
        assert (found.status, found.amount) == (ChargeStatus.AUTHORIZED, Money(1999, EUR))
        assert shop.authorize().reference == found.reference
        assert shop.world.count_movements(shop.operation_id)["charges"] == 1

    @pytest.mark.parametrize("fault", ["timeout_before", "reset_before", "500"])
    def test_a_request_lost_before_the_act_is_unknown_and_then_absent(self, shop: Shop, fault: str) -> None:
        shop.world.fail_next("authorize", fault, operation_id=shop.operation_id)
        with pytest.raises(GatewayTimeoutError):
            shop.authorize()
        assert shop.fetch(since=datetime.now(UTC)) is None

    def test_too_many_requests_may_be_sent_again(self, shop: Shop) -> None:
        shop.world.fail_next("authorize", "429", operation_id=shop.operation_id)
        with pytest.raises(RateLimitedError):
            shop.authorize()
        assert shop.authorize().status is ChargeStatus.AUTHORIZED

    def test_an_unanswered_question_is_not_an_absence(self, shop: Shop) -> None:
        held = shop.authorize()
        shop.world.fail_next("retrieve", "500", operation_id=shop.operation_id)
        with pytest.raises(GatewayTimeoutError):
            shop.fetch(reference=held.reference)

    # --- events and reports ---------------------------------------------------------------------------------

    def test_events_tell_the_same_facts_as_the_answers(self, shop: Shop) -> None:
        start = datetime.now(UTC) - timedelta(seconds=2)
        held, capture_id, refund_id = shop.authorize(), new_id("op"), new_id("op")
        shop.capture(held, operation_id=capture_id)
        shop.refund(held, 500, operation_id=refund_id)
        events = shop.gateway.list_events(since=start)
        facts = [
            fact
            for event in events
            for fact in shop.gateway.read_event(event)
            if fact.reference == held.reference
        ]
        told = {
            (fact.kind, fact.operation_id, fact.result.status, fact.result.amount.minor) for fact in facts
        }
        assert (OperationKind.AUTHORIZE, shop.operation_id, ChargeStatus.AUTHORIZED, 1999) in told
        assert (OperationKind.CAPTURE, capture_id, ChargeStatus.CAPTURED, 1999) in told
        assert (OperationKind.REFUND, refund_id, RefundStatus.SUCCEEDED, 500) in told
        assert all(fact.occurred_at is not None for fact in facts)
        order = [fact.kind for fact in facts]
        assert order.index(OperationKind.AUTHORIZE) < order.index(OperationKind.CAPTURE)

    def test_events_can_be_narrowed_to_types(self, shop: Shop) -> None:
        start = datetime.now(UTC) - timedelta(seconds=2)
        shop.authorize()
        every = list(shop.gateway.list_events(since=start))
        wanted = sorted({event["type"] for event in every})[:2]
        found = list(shop.gateway.list_events(since=start, types=wanted))
        assert {event["type"] for event in found} == set(wanted)
        assert len(found) < len(every)

    def test_a_day_is_reported_when_it_is_over(self, shop: Shop) -> None:
        held, refund_id = shop.authorize(), new_id("op")
        shop.capture(held)
        shop.refund(held, 500, operation_id=refund_id)
        today = datetime.now(UTC).date()
        with pytest.raises(ReportNotReadyError):
            shop.gateway.settlement_report(day=today)
        shop.world.tomorrow()
        text = b"".join(shop.gateway.settlement_report(day=today)).decode()
        rows = [row for row in csv.DictReader(text.splitlines()) if self.is_row_of(row, shop)]
        assert [(self.gross(row), self.refund_operation(row)) for row in rows] == [
            ("19.99", ""),
            ("-5.00", refund_id),
        ]

    def is_row_of(self, row: dict[str, str], shop: Shop) -> bool:
        raise NotImplementedError

    def gross(self, row: dict[str, str]) -> str:
        raise NotImplementedError

    def refund_operation(self, row: dict[str, str]) -> str:
        raise NotImplementedError
