"""The floor's door: every bound on money, every race between two hands, every refund that does not happen."""

from __future__ import annotations

from collections.abc import Callable
from threading import Barrier
from typing import Any

import pytest

from payments import services
from payments.errors import (
    AmountTooLargeError,
    ConflictError,
    InvalidRequestError,
    NetworkError,
    PaymentError,
)
from payments.gateways.base import Capabilities, ChargeResult, ChargeStatus, Decline
from payments.models import ApiClient, GatewayAccount, Operation, Order, Payment, SagaRun, StockItem
from payments.money import Money
from payments.proof import prove_ledger
from payments.sagas import effects, engine
from payments.screening import Decision, Stage
from tests.factories.payments import ApiClientFactory
from tests.fakes import FakeGateway, ScriptedScreener
from tests.payments.gateway_faults import acts_then_times_out, is_unreachable, refuses, sweep, times_out
from tests.payments.threads import run_in_threads

pytestmark = pytest.mark.django_db

Place = Callable[..., Order]


def refund(order: Order, amount: int | None = None) -> Operation:
    return services.refund_order(order, amount=amount, reason="requested", actor="api:shop")


def find_payment(order: Order) -> Payment:
    return Payment.objects.get(order=order)


class TestPlacing:
    def test_without_an_active_account_nothing_is_made(self, shop: ApiClient) -> None:
        GatewayAccount.objects.update(is_active=False)
        draft = services.OrderDraft(reference="r", amount=Money(1, "EUR"), payment_method="pm_card_visa")
        with pytest.raises(NetworkError, match="nothing was charged"):
            services.place_order(shop, draft)
        assert not Order.objects.exists()

    def test_the_account_of_the_lowest_priority_is_charged(
        self, place: Place, account: GatewayAccount
    ) -> None:
        GatewayAccount.objects.exclude(pk=account.pk).update(is_active=True, priority=200)
        assert place().payment.account == account

    def test_two_shops_may_use_the_same_reference(self, place: Place, gateway: FakeGateway) -> None:
        order = place(reference="same")
        draft = services.OrderDraft(
            reference="same", amount=order.total, payment_method="pm_card_visa", shipping={"country": "DE"}
        )
        assert services.place_order(ApiClientFactory(), draft).state == "paid"
        assert len(gateway.captured) == 2

    def test_a_dead_orders_reference_is_free(self, place: Place) -> None:
        place(reference="same", shipping={"country": "AQ"})
        assert place(reference="same").state == "paid"

    def test_not_driven_it_is_left_to_the_sweeper(
        self, shop: ApiClient, place: Place, gateway: FakeGateway
    ) -> None:
        draft = services.OrderDraft(
            reference="r",
            amount=Money(100, "EUR"),
            payment_method="pm_card_visa",
            shipping={"country": "DE"},
        )
        order = services.place_order(shop, draft, drive=False)
        assert gateway.calls == []
        services.sweep_sagas()
        order.refresh_from_db()
        assert order.state == "paid"

    def test_resuming_goes_on_where_the_first_request_died(self, place: Place, gateway: FakeGateway) -> None:
        gateway.faults["capture"] = [acts_then_times_out]
        order = services.resume_order(place())
        assert (order.state, gateway.money_kept()) == ("paid", 12950)

    def test_goods_that_are_sold_out_charge_nothing(self, place: Place, gateway: FakeGateway) -> None:
        StockItem.objects.create(sku="MUG-1", on_hand=1)
        order = place(lines=[{"sku": "MUG-1", "quantity": 2}])
        assert (order.state, gateway.calls) == ("canceled", [])


class TestConfirming:
    def test_a_paid_order_has_nothing_to_confirm(self, place: Place, gateway: FakeGateway) -> None:
        order = place()
        with pytest.raises(ConflictError, match="nothing to confirm"):
            services.confirm_order(order, payment_method="pm_card_visa")
        assert gateway.money_kept() == 12950

    def test_a_declined_order_needs_another_method(self, place: Place) -> None:
        order = place(payment_method="pm_card_chargeDeclined")
        with pytest.raises(InvalidRequestError, match="payment_method"):
            services.confirm_order(order)

    def test_a_declined_order_whose_reference_lives_again_is_not_revived(
        self, place: Place, gateway: FakeGateway
    ) -> None:
        declined = place(reference="same", payment_method="pm_card_chargeDeclined")
        place(reference="same")
        with pytest.raises(ConflictError, match="is alive"):
            services.confirm_order(declined, payment_method="pm_card_visa")
        assert len(gateway.captured) == 1

    def test_a_second_decline_is_a_second_attempt(self, place: Place) -> None:
        order = place(payment_method="pm_card_chargeDeclined")
        order = services.confirm_order(order, payment_method="pm_card_chargeDeclined")
        assert (order.state, order.payment.attempts.filter(state="declined").count()) == ("declined", 2)


class RedirectingGateway(FakeGateway):
    """Wants what the customer brought back, and knows nothing of the authorization before."""

    brought: str = ""
    answer = ChargeStatus.AUTHORIZED

    def complete_authentication(
        self, *, operation_id: str, amount: Money, redirect_result: str
    ) -> ChargeResult:
        self.brought = redirect_result
        if redirect_result == "no answer":
            raise NetworkError("The gateway does not answer.")
        found = self.operations[operation_id]
        decline = Decline("authentication_failed", "3ds") if self.answer == ChargeStatus.DECLINED else None
        if decline is None:
            self.authenticate(found.reference, amount.minor)
        self.operations[operation_id] = ChargeResult(self.answer, found.reference, amount, decline=decline)
        return self.operations[operation_id]  # type: ignore[no-any-return]


class TestReturningFromTheGateway:
    @pytest.fixture
    def gateway(self, monkeypatch: pytest.MonkeyPatch) -> RedirectingGateway:
        fake = RedirectingGateway(capabilities=Capabilities(completes_authentication=True))
        monkeypatch.setattr(effects, "get_gateway", lambda account: fake)
        return fake

    def test_what_the_customer_brought_back_is_handed_in_first(
        self, place: Place, gateway: RedirectingGateway
    ) -> None:
        order = place(payment_method="pm_3ds")
        assert order.state == "awaiting_customer"
        assert services.confirm_order(order).state == "awaiting_customer", "nothing was brought"
        assert services.confirm_order(order, redirect_result="X6Xt!").state == "paid"
        assert (gateway.brought, gateway.money_kept()) == ("X6Xt!", 12950)

    def test_a_failed_authentication_declines_the_order(
        self, place: Place, gateway: RedirectingGateway
    ) -> None:
        gateway.answer = ChargeStatus.DECLINED
        order = services.confirm_order(place(payment_method="pm_3ds"), redirect_result="X6Xt!")
        assert (order.state, gateway.money_kept()) == ("declined", 0)

    def test_a_gateway_without_an_answer_leaves_the_order_waiting(
        self, place: Place, gateway: RedirectingGateway
    ) -> None:
        order = services.confirm_order(place(payment_method="pm_3ds"), redirect_result="no answer")
        assert order.state == "awaiting_customer"
        assert services.confirm_order(order, redirect_result="X6Xt!").state == "paid"


class TestCapturing:
    @pytest.fixture
    def held(self, place: Place) -> Order:
        return place(capture="manual")

    @pytest.mark.parametrize("amount", [12951, 10**15])
    def test_never_more_than_is_authorized(self, held: Order, gateway: FakeGateway, amount: int) -> None:
        with pytest.raises(AmountTooLargeError) as refusal:
            services.capture_order(held, amount=amount, actor="api:shop")
        assert (refusal.value.details["left"], gateway.captured) == (12950, {})

    @pytest.mark.parametrize("amount", [0, -1])
    def test_never_nothing_or_less(self, held: Order, gateway: FakeGateway, amount: int) -> None:
        with pytest.raises(InvalidRequestError, match="positive"):
            services.capture_order(held, amount=amount, actor="api:shop")
        assert gateway.captured == {}

    def test_once(self, held: Order) -> None:
        services.capture_order(held, amount=5000, actor="api:shop")
        with pytest.raises(ConflictError, match="captured already"):
            services.capture_order(held, amount=1, actor="api:shop")

    def test_not_while_a_capture_is_in_doubt(self, held: Order, gateway: FakeGateway) -> None:
        gateway.faults["capture"] = [acts_then_times_out]
        services.capture_order(held, amount=None, actor="api:shop")
        for action in (services.capture_order, services.cancel_order):
            with pytest.raises(ConflictError):
                action(
                    held,
                    actor="api:shop",
                    **({"amount": 1} if action is services.capture_order else {"reason": ""}),
                )
        sweep(2)
        assert (find_payment(held).captured, gateway.money_kept()) == (12950, 12950)

    def test_a_doubt_that_cannot_be_resolved_reaches_an_operator(
        self, held: Order, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Timed out, then unreachable for good: nobody may capture again before it is known."""
        gateway.faults["capture"] = [acts_then_times_out]
        with monkeypatch.context() as away:
            away.setattr(gateway, "fetch", is_unreachable)
            services.capture_order(held, amount=None, actor="api:shop")
            sweep(10)
            run = held.sagas.get(kind="capture")
            assert run.state == "QUARANTINED"
            with pytest.raises(ConflictError):
                services.capture_order(held, amount=None, actor="api:shop")
        services.retry_saga(run.pk, actor="user:oncall", reason="the gateway is back")
        held.refresh_from_db()
        assert (held.state, gateway.money_kept(), len(gateway.captured)) == ("paid", 12950, 1)

    def test_a_refused_question_says_nothing_of_the_capture(
        self, held: Order, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gateway.faults["capture"] = [acts_then_times_out]
        with monkeypatch.context() as muddled:
            muddled.setattr(gateway, "fetch", refuses)
            services.capture_order(held, amount=None, actor="api:shop")
            sweep(3)
            assert Operation.objects.get(kind="capture").state == "unknown"
        sweep()
        assert (find_payment(held).captured, gateway.money_kept()) == (12950, 12950)

    def test_a_canceled_hold_is_released(self, held: Order, gateway: FakeGateway) -> None:
        order = services.cancel_order(held, reason="customer", actor="api:shop")
        assert (order.state, order.payment.state, gateway.orphans()) == ("canceled", "canceled", set())
        assert prove_ledger() == []

    def test_what_is_captured_is_not_canceled(self, place: Place, gateway: FakeGateway) -> None:
        with pytest.raises(ConflictError, match="refund it instead"):
            services.cancel_order(place(), reason="", actor="api:shop")
        assert gateway.voided == set()


class TestRefunding:
    def test_in_parts_until_nothing_is_left(self, place: Place, gateway: FakeGateway) -> None:
        order = place()
        for amount in (5000, 5000, None):
            refund(order, amount)
        assert (find_payment(order).refunded, gateway.money_kept()) == (12950, 0)
        with pytest.raises(ConflictError, match="Nothing is left"):
            refund(order, 1)
        assert prove_ledger() == []

    @pytest.mark.parametrize(
        ("amount", "error"),
        [(12951, AmountTooLargeError), (0, InvalidRequestError), (-5, InvalidRequestError)],
    )
    def test_never_more_than_is_left_and_never_nothing(
        self, place: Place, gateway: FakeGateway, amount: int, error: type[PaymentError]
    ) -> None:
        order = place()
        with pytest.raises(error):
            refund(order, amount)
        assert (gateway.refunds, Operation.objects.refunds().count()) == ({}, 0)

    def test_what_is_on_its_way_is_not_refunded_again(self, place: Place, gateway: FakeGateway) -> None:
        gateway.faults["refund"] = [times_out]
        order = place()
        refund(order, 12000)
        with pytest.raises(AmountTooLargeError) as refusal:
            refund(order, 951)
        assert refusal.value.details["left"] == 950

    def test_nothing_captured_nothing_refunded(self, place: Place) -> None:
        with pytest.raises(ConflictError, match="Nothing is captured"):
            refund(place(capture="manual"))

    def test_one_that_the_gateway_refuses_is_not_owed_any_more(
        self, place: Place, gateway: FakeGateway
    ) -> None:
        order = place()
        gateway.faults["refund"] = [refuses]
        assert refund(order, 2000).state == "failed"
        payment = find_payment(order)
        assert (payment.refund_pending, payment.refundable) == (0, 12950)
        assert order.events.filter(type="refund.failed").exists()
        assert prove_ledger() == []

    def test_one_that_the_gateway_never_took_stays_reserved_until_an_operator_sends_it(
        self, place: Place, gateway: FakeGateway
    ) -> None:
        order = place()
        gateway.faults["refund"] = [is_unreachable] * 20
        operation = refund(order, 2000)
        sweep(8)
        run = SagaRun.objects.stuck().get()
        assert (find_payment(order).refund_pending, gateway.refunds) == (2000, {})
        gateway.faults.clear()
        services.retry_saga(run.pk, actor="user:oncall", reason="the gateway is back")
        operation.refresh_from_db()
        assert (operation.state, sum(gateway.refunds.values())) == ("succeeded", 2000)
        assert prove_ledger() == []

    def test_one_in_doubt_stays_reserved_and_reaches_an_operator(
        self, place: Place, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        order = place()
        gateway.faults["refund"] = [acts_then_times_out]
        with monkeypatch.context() as away:
            away.setattr(gateway, "fetch", is_unreachable)
            operation = refund(order, 2000)
            sweep(10)
        run = SagaRun.objects.stuck().get()
        assert (run.kind, find_payment(order).refund_pending) == ("refund", 2000)
        services.retry_saga(run.pk, actor="user:oncall", reason="the gateway is back")
        operation.refresh_from_db()
        assert (operation.state, gateway.refunds) == ("succeeded", {f"re_{operation.id}": 2000})
        assert prove_ledger() == []

    def test_a_refused_compensation_is_an_operators_and_the_books_still_hold(
        self, place: Place, gateway: FakeGateway
    ) -> None:
        gateway.faults["refund"] = [refuses]
        order = place(shipping={"country": "AQ"})
        run = SagaRun.objects.stuck().get()
        assert prove_ledger() == []
        services.retry_saga(run.pk, actor="user:oncall", reason="limit raised")
        assert (Order.objects.get(pk=order.pk).state, gateway.money_kept()) == ("canceled", 0)
        assert prove_ledger() == []


class TestLegalActions:
    @pytest.mark.parametrize(
        ("draft", "allowed"),
        [
            ({}, {"refund"}),
            ({"capture": "manual"}, {"capture", "cancel"}),
            ({"payment_method": "pm_3ds"}, {"cancel"}),
            ({"payment_method": "pm_card_chargeDeclined"}, set()),
            ({"shipping": {"country": "AQ"}}, set()),
        ],
    )
    def test_are_what_the_state_allows(self, place: Place, draft: dict[str, Any], allowed: set[str]) -> None:
        actions = services.legal_actions(place(**draft))
        assert {action.name for action in actions if action.is_allowed} == allowed
        assert all(action.why_not for action in actions if not action.is_allowed)

    def test_in_review_only_canceling(self, place: Place, screener: ScriptedScreener) -> None:
        screener.decisions[Stage.AFTER_AUTHORIZATION] = Decision.REVIEW
        actions = services.legal_actions(place())
        assert {action.name for action in actions if action.is_allowed} == {"cancel"}


class TestOperators:
    def test_asking_settles_what_is_unknown(self, place: Place, gateway: FakeGateway) -> None:
        gateway.faults["capture"] = [acts_then_times_out]
        order = place()
        operation = Operation.objects.get(kind="capture")
        operation = services.resolve_unknown(operation, actor="user:oncall")
        assert (operation.state, find_payment(order).captured) == ("succeeded", 12950)
        sweep()
        order.refresh_from_db()
        assert (order.state, gateway.money_kept()) == ("paid", 12950)

    def test_asking_about_what_the_gateway_does_not_know_changes_nothing(
        self, place: Place, gateway: FakeGateway
    ) -> None:
        gateway.faults["capture"] = [times_out]
        order = place()
        operation = services.resolve_unknown(Operation.objects.get(kind="capture"), actor="user:oncall")
        assert operation.state == "unknown"
        told = order.events.get(type="operation.asked")
        assert (told.actor, told.is_public, told.data["found"]) == (
            "user:oncall",
            False,
            "unknown to the gateway",
        )

    def test_a_saga_that_is_not_stuck_is_not_retried(self, place: Place) -> None:
        run = place().sagas.get()
        with pytest.raises(ConflictError, match="not stuck"):
            services.retry_saga(run.pk, actor="user:oncall", reason="")
        with pytest.raises(ConflictError, match="cannot be walked back"):
            services.compensate_saga(run.pk, actor="user:oncall", reason="")

    def test_no_sweeper_goes_forward_between_the_wish_to_walk_back_and_the_walk(
        self, place: Place, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        order = place(payment_method="pm_3ds")
        SagaRun.objects.update(state="QUARANTINED", waiting_for="")
        [reference] = gateway.needs_action
        gateway.authenticate(reference, 12950)
        walk_back = engine.compensate_run

        def sweeper_comes_first(*args: Any) -> bool:
            assert services.sweep_sagas() == 0
            return walk_back(*args)

        monkeypatch.setattr(engine, "compensate_run", sweeper_comes_first)
        services.compensate_saga(order.sagas.get().pk, actor="user:oncall", reason="customer called")
        assert (gateway.captured, gateway.orphans()) == ({}, set())

    def test_a_waiting_saga_is_walked_back(self, place: Place, gateway: FakeGateway) -> None:
        order = place(payment_method="pm_3ds")
        services.compensate_saga(order.sagas.get().pk, actor="user:oncall", reason="customer called")
        order.refresh_from_db()
        assert (order.state, len(gateway.voided)) == ("canceled", 1)

    def test_a_wrong_amount_at_the_gateway_waits_for_an_operator_who_walks_back(
        self, place: Place, gateway: FakeGateway
    ) -> None:
        def answers_another_amount(act: Callable[[], Any]) -> Any:
            result = act()
            gateway.operations = {
                key: type(result)(ChargeStatus.AUTHORIZED, result.reference, Money(1, "EUR"))
                for key in gateway.operations
            }
            return next(iter(gateway.operations.values()))

        gateway.faults["authorize"] = [answers_another_amount]
        order = place()
        run = order.sagas.get()
        assert (run.state, order.payment.state) == ("QUARANTINED", "requires_review")

        services.compensate_saga(run.pk, actor="user:oncall", reason="wrong amount")
        order.refresh_from_db()
        assert (order.state, gateway.orphans(), order.sagas.get().state) == ("canceled", set(), "COMPENSATED")
        assert prove_ledger() == []

    def test_a_note_keeps_no_card_number(self, place: Place) -> None:
        note = services.add_note(place(), text="paid with 4242 4242 4242 4242", actor="user:oncall")
        assert "4242 4242 4242" not in note.data["note"]
        assert not note.is_public


@pytest.mark.concurrency
@pytest.mark.django_db(transaction=True)
class TestRaces:
    def race(self, number: int, act: Callable[[int], object]) -> list[str]:
        """What came of each thread: "" or the code of its refusal."""
        barrier = Barrier(number)

        def work(index: int) -> str:
            barrier.wait()
            try:
                act(index)
            except PaymentError as error:
                return error.code
            return ""

        return run_in_threads(work, number)

    def test_twenty_refunds_never_give_back_more_than_was_captured(
        self, place: Place, gateway: FakeGateway
    ) -> None:
        order = place()
        outcomes = self.race(20, lambda _: refund(order, 1000))
        assert outcomes.count("") == 12
        payment = find_payment(order)
        assert (payment.refunded, payment.refund_pending, gateway.money_kept()) == (12000, 0, 950)
        assert prove_ledger() == []

    def test_ten_captures_capture_once(self, place: Place, gateway: FakeGateway) -> None:
        order = place(capture="manual")
        outcomes = self.race(10, lambda _: services.capture_order(order, amount=None, actor="api:shop"))
        assert outcomes.count("") == 1
        assert gateway.money_kept() == 12950

    def test_a_capture_and_a_cancellation_are_never_both_done(
        self, place: Place, gateway: FakeGateway
    ) -> None:
        order = place(capture="manual")

        def act(index: int) -> object:
            if index % 2:
                return services.capture_order(order, amount=None, actor="api:shop")
            return services.cancel_order(order, reason="", actor="api:shop")

        outcomes = self.race(10, act)
        assert outcomes.count("") == 1
        assert bool(gateway.voided) != bool(gateway.captured)
        assert prove_ledger() == []

    def test_ten_orders_with_one_reference_charge_once(self, place: Place, gateway: FakeGateway) -> None:
        outcomes = self.race(10, lambda _: place(reference="same"))
        assert sorted(outcomes) == [""] + ["conflict"] * 9
        assert gateway.money_kept() == 12950

    def test_an_approval_and_a_rejection_are_never_both_done(
        self, place: Place, gateway: FakeGateway, screener: ScriptedScreener
    ) -> None:
        screener.decisions[Stage.AFTER_AUTHORIZATION] = Decision.REVIEW
        order = place()

        def act(index: int) -> object:
            if index % 2:
                return services.release_review(order.id, actor=f"user:{index}")
            return services.reject_review(order.id, actor=f"user:{index}", reason="fraudulent")

        assert self.race(6, act).count("") == 1
        assert bool(gateway.voided) != bool(gateway.captured)
