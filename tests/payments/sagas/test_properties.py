"""Any story of a shop, told by Hypothesis and judged by the gateway's own books."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from payments import services
from payments.errors import ConflictError, InvalidRequestError
from payments.gateways.base import (
    CaptureRequest,
    ChargeResult,
    FetchRequest,
    GatewayFact,
    RefundRequest,
    RefundResult,
    RefundStatus,
    VoidRequest,
)
from payments.kinds import OperationKind
from payments.models import GatewayAccount, Operation, Order, Payment, SagaRun
from payments.models.order import DEAD_STATES
from payments.models.saga import STUCK_STATES, TERMINAL_STATES
from payments.money import Money
from payments.proof import prove_ledger
from payments.sagas import checkout, effects
from payments.screening import Decision, Stage
from tests.factories.payments import ApiClientFactory, GatewayAccountFactory
from tests.fakes import FakeGateway, ScriptedScreener, fact
from tests.payments.gateway_faults import acts_then_times_out, is_unreachable, sweep, times_out

REFUSALS = (ConflictError, InvalidRequestError)  # what a shop may be told; anything else is a bug
FAULTS = [acts_then_times_out, times_out, is_unreachable]

MOST_ORDERS = 3  # few, so that much happens to each

picks = st.integers(0, MOST_ORDERS - 1)
amounts = st.integers(1, 20_000)


def mostly(usual: object, *others: object) -> st.SearchStrategy[Any]:
    return st.sampled_from([usual] * 2 * len(others) + [*others])


@dataclass
class Judge(FakeGateway):
    """A gateway that notes every breach of its rules, since the engine takes an exception for a lost answer."""

    crimes: list[str] = field(default_factory=list)
    facts: list[GatewayFact] = field(default_factory=list)
    charge_of: dict[str, str] = field(default_factory=dict)  # by refund

    def _do(self, kind: str, request: Any, act: Callable[[], Any]) -> Any:
        def watched() -> Any:
            try:
                result = act()
            except AssertionError as crime:
                self.crimes.append(f"{kind} {request.operation_id}: {crime}")
                raise
            self.note(OperationKind(kind), result, request.operation_id)
            return result

        return super()._do(kind, request, watched)

    def note(self, kind: OperationKind, result: ChargeResult | RefundResult, operation_id: str) -> None:
        payment = Operation.objects.select_related("payment").get(pk=operation_id).payment
        told = fact(kind, result, payment, operation_id)
        reference = result.reference if isinstance(result, ChargeResult) else told.reference
        self.facts.append(GatewayFact(kind, result, operation_id, payment.id, reference))

    def capture(self, request: CaptureRequest) -> ChargeResult:
        if request.amount.minor > self.authorized.get(request.reference, 0):
            self.crimes.append(f"captured too much of {request.reference}")
        return super().capture(request)

    def void(self, request: VoidRequest) -> ChargeResult:
        self.needs_action.discard(request.reference)
        return super().void(request)

    def refund(self, request: RefundRequest) -> RefundResult:
        if request.key not in self.by_key and request.amount.minor > self.left(request.reference):
            raise InvalidRequestError("more than is left of the charge")
        self.charge_of[f"re_{request.operation_id}"] = request.reference
        return super().refund(request)

    def fetch(self, request: FetchRequest) -> ChargeResult | RefundResult | None:
        scripted = self.faults.get("fetch")
        if scripted:
            return scripted.pop(0)(lambda: None)  # type: ignore[no-any-return]
        return super().fetch(request)

    def left(self, reference: str) -> int:
        return self.captured.get(reference, 0) - self.refunded(reference)

    def refunded(self, reference: str) -> int:
        return sum(minor for refund, minor in self.refunds.items() if self.charge_of[refund] == reference)


class Shop(RuleBasedStateMachine):
    """Customers, a storefront, operators, a gateway with a bad network, and webhooks in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.atomic = transaction.atomic()
        self.atomic.__enter__()  # one transaction for the example; teardown rolls it back
        self.gateway, self.screener = Judge(), ScriptedScreener()
        self.patch.setattr(effects, "get_gateway", lambda account: self.gateway)
        self.patch.setattr(checkout, "get_screener", lambda: self.screener)
        self.orders: list[str] = []

    @initialize()
    def open(self) -> None:
        GatewayAccount.objects.update(is_active=False)
        self.account = GatewayAccountFactory()
        self.client = ApiClientFactory()

    def pick(self, number: int) -> Order:
        return services.find_order(self.orders[number % len(self.orders)])

    def try_to(self, act: Callable[[], object]) -> None:
        with suppress(*REFUSALS):
            act()

    # --- the customer and the storefront --------------------------------------------------------------------

    @precondition(lambda self: len(self.orders) < MOST_ORDERS)
    @rule(
        method=mostly("pm_card_visa", "pm_card_chargeDeclined", "pm_3ds"),
        amount=amounts,
        capture=mostly("automatic", "manual"),
        country=mostly("DE", "AQ"),
        decision=mostly(Decision.APPROVE, Decision.REVIEW, Decision.BLOCK),
        stage=st.sampled_from(list(Stage)),
    )
    def place(
        self, method: str, amount: int, capture: str, country: str, decision: Decision, stage: Stage
    ) -> None:
        self.screener.decisions = {stage: decision}
        draft = services.OrderDraft(
            reference=f"web-{len(self.orders)}",
            amount=Money(amount, "EUR"),
            payment_method=method,
            capture=capture,
            shipping={"country": country},
        )
        self.orders.append(services.place_order(self.client, draft).id)

    @precondition(lambda self: self.orders)
    @rule(number=picks, method=st.sampled_from(["", "pm_card_visa", "pm_card_chargeDeclined", "pm_3ds"]))
    def confirm(self, number: int, method: str) -> None:
        self.try_to(lambda: services.confirm_order(self.pick(number), payment_method=method))

    @precondition(lambda self: self.gateway.needs_action)
    @rule(number=picks)
    def authenticate(self, number: int) -> None:
        waiting = sorted(self.gateway.needs_action)
        reference = waiting[number % len(waiting)]
        operation = Operation.objects.get(pk=reference.removeprefix("pi_"))
        self.gateway.authenticate(reference, operation.amount)
        self.gateway.note(
            OperationKind.AUTHORIZE,
            self.gateway._authorization(reference, operation.money),
            operation.id,
        )

    @precondition(lambda self: self.orders)
    @rule(number=picks, amount=st.none() | amounts)
    def capture(self, number: int, amount: int | None) -> None:
        self.try_to(lambda: services.capture_order(self.pick(number), amount=amount, actor="api:shop"))

    @precondition(lambda self: self.orders)
    @rule(number=picks, amount=st.none() | amounts)
    def refund(self, number: int, amount: int | None) -> None:
        order = self.pick(number)
        self.try_to(lambda: services.refund_order(order, amount=amount, reason="requested", actor="api:shop"))

    @precondition(lambda self: self.orders)
    @rule(number=picks)
    def cancel(self, number: int) -> None:
        self.try_to(lambda: services.cancel_order(self.pick(number), reason="customer", actor="api:shop"))

    # --- operators ------------------------------------------------------------------------------------------

    @precondition(lambda self: self.orders)
    @rule(number=picks, approve=st.booleans())
    def decide(self, number: int, approve: bool) -> None:
        order_id = self.pick(number).id
        if approve:
            self.try_to(lambda: services.release_review(order_id, actor="user:analyst"))
        else:
            self.try_to(lambda: services.reject_review(order_id, actor="user:analyst", reason="fraudulent"))

    @precondition(lambda self: self.orders)
    @rule(number=picks, walk_back=st.booleans())
    def operate(self, number: int, walk_back: bool) -> None:
        act = services.compensate_saga if walk_back else services.retry_saga
        for run in self.pick(number).sagas.filter(state__in=STUCK_STATES):
            self.try_to(lambda run=run: act(run.pk, actor="user:oncall", reason="test"))  # type: ignore[misc]

    # --- the gateway and its network ------------------------------------------------------------------------

    @rule(
        kind=st.sampled_from(["authorize", "capture", "void", "refund", "fetch"]),
        fault=st.sampled_from(FAULTS),
        times=mostly(1, 3, 9),
    )
    def break_network(self, kind: str, fault: Callable[..., Any], times: int) -> None:
        self.gateway.faults[kind] = [fault] * times

    @precondition(lambda self: self.gateway.captured)
    @rule(number=picks, amount=amounts)
    def refund_at_the_gateway(self, number: int, amount: int) -> None:
        charges = sorted(self.gateway.captured)
        reference = charges[number % len(charges)]
        amount = min(amount, self.gateway.left(reference))
        if not amount:
            return
        refund = f"re_dashboard_{len(self.gateway.refunds)}"
        self.gateway.refunds[refund], self.gateway.charge_of[refund] = amount, reference
        result = RefundResult(RefundStatus.SUCCEEDED, refund, Money(amount, "EUR"))
        payment = Operation.objects.get(pk=reference.removeprefix("pi_")).payment
        self.gateway.facts.append(
            GatewayFact(OperationKind.REFUND, result, payment_id=payment.id, reference=reference)
        )

    @precondition(lambda self: self.gateway.facts)
    @rule(number=st.integers(0, 30))
    def deliver(self, number: int) -> None:
        """Any fact, late, early or again."""
        services.apply_gateway_fact(self.account, self.gateway.facts[number % len(self.gateway.facts)])

    # --- time -----------------------------------------------------------------------------------------------

    @rule(overdue=st.booleans(), times=mostly(1, 3, 7))
    def pass_time(self, overdue: bool, times: int) -> None:
        sweep(times, overdue=overdue)

    # --- what holds at every moment -------------------------------------------------------------------------

    @invariant()
    def money_is_safe(self) -> None:
        assert self.gateway.crimes == []
        assert prove_ledger() == []
        connection.check_constraints()  # what the commit would check
        for reference, authorized in self.gateway.authorized.items():
            captured = self.gateway.captured.get(reference, 0)
            assert 0 <= self.gateway.refunded(reference) <= captured <= authorized
        for payment in Payment.objects.filter(order__in=self.orders):
            assert 0 <= payment.captured <= payment.authorized
            assert 0 <= payment.refunded + payment.refund_pending <= payment.captured

    # --- the end --------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if self.orders:
                self.come_to_rest()
                self.judge()
        finally:
            transaction.set_rollback(True)
            self.atomic.__exit__(None, None, None)
            self.patch.undo()

    def come_to_rest(self) -> None:
        """The network is back: sweeps, webhooks and, where the machine gave up, an operator."""
        self.gateway.faults.clear()
        for _ in range(3):
            sweep(4, overdue=True)
            for told in [*self.gateway.facts, *reversed(self.gateway.facts)]:
                services.apply_gateway_fact(self.account, told)
            for run in SagaRun.objects.stuck():
                services.retry_saga(run.pk, actor="user:oncall", reason="the network is back")
        self.money_is_safe()

    def judge(self) -> None:
        assert set(SagaRun.objects.values_list("state", flat=True)) <= set(TERMINAL_STATES)
        held = set()
        for payment in Payment.objects.select_related("order").filter(order__in=self.orders):
            references = payment.attempts.exclude(gateway_reference="").values_list(
                "gateway_reference", flat=True
            )
            ours = (payment.captured, payment.refunded, payment.refund_pending)
            theirs = sum(self.gateway.captured.get(reference, 0) for reference in references)
            given_back = sum(self.gateway.refunded(reference) for reference in references)
            assert ours == (theirs, given_back, 0)
            if payment.order.state in DEAD_STATES:
                assert payment.captured == payment.refunded, "a dead order keeps money"
                assert not payment.authorized or payment.captured, "a dead order holds money"
            elif payment.authorized and not payment.captured:
                held.add(payment.gateway_reference)
        assert self.gateway.orphans() == held, "an authorization that we do not know of"


@pytest.mark.django_db
def test_any_story_of_a_shop_keeps_the_money_right() -> None:
    run_state_machine_as_test(
        Shop,
        settings=settings(
            max_examples=30,
            stateful_step_count=20,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
