"""Every tool of the operators from every state: allowed or refused, once, with the money conserved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from payments import services
from payments.errors import BusyError, ConflictError, InvalidRequestError, PaymentError
from payments.gateways.base import ChargeResult, ChargeStatus
from payments.models import ForceRequest, Operation, Order, Payment, SagaEffect, SagaRun, SagaState
from payments.money import Money
from payments.proof import prove_ledger
from payments.sagas import store
from payments.screening import Decision, Stage
from tests.fakes import FakeGateway, ScriptedScreener
from tests.payments.gateway_faults import is_unreachable, refuses, sweep, times_out
from tests.payments.threads import run_in_threads

pytestmark = pytest.mark.django_db

Place = Callable[..., Order]
ANN, BOB = "user:ann", "user:bob"
WHY: dict[str, Any] = {"actor": ANN, "reason": "the carrier is back"}
EVIDENCE: dict[str, Any] = {"evidence": "The dashboard shows it", "references": ["pi_1"], "actor": ANN}


@pytest.fixture(autouse=True)
def proved() -> Iterator[None]:
    """Whatever a tool did, the books hold."""
    yield
    assert prove_ledger() == []


def run_of(order: Order) -> SagaRun:
    return order.sagas.get()


def find_payment(order: Order) -> Payment:
    return Payment.objects.select_related("order").get(order=order)


def state_of(order: Order) -> tuple[str, str, str]:
    payment = find_payment(order)
    return run_of(order).state, payment.order.state, payment.state


@pytest.fixture
def unrefunded(place: Place, gateway: FakeGateway) -> Order:
    """Captured, cannot be shipped, and the gateway refuses the refund."""
    gateway.faults["refund"] = [refuses]
    order = place(shipping={"country": "AQ"})
    assert run_of(order).state == "FAILED_COMPENSATION"
    return order


@pytest.fixture
def doubtful_refund(place: Place, gateway: FakeGateway) -> Order:
    """Captured, cannot be shipped, and nobody knows what became of the refund."""
    gateway.faults["refund"] = [times_out] * 30
    gateway.faults["fetch"] = []
    order = place(shipping={"country": "AQ"})
    sweep(1)
    SagaRun.objects.update(
        state="FAILED_COMPENSATION",
        wake_at=None,
        lease_expires_at=None,
        last_error={"code": "gateway_timeout"},
    )
    assert Operation.objects.get(kind="refund").state in ("unknown", "sent")
    return order


@pytest.fixture
def waiting(place: Place, screener: ScriptedScreener) -> Order:
    """Authorized, and held for an analyst."""
    screener.decisions[Stage.AFTER_AUTHORIZATION] = Decision.REVIEW
    return place()


@pytest.fixture
def refused_capture(place: Place, gateway: FakeGateway) -> Order:
    """Authorized and quarantined at the capture, which surely did not happen."""
    order = place(capture="manual")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("payments.sagas.effects.FORWARD_TRIES", 0)
        gateway.faults["capture"] = [is_unreachable] * 3
        services.capture_order(order, amount=None, actor="api:shop")
    gateway.faults.clear()
    run = order.sagas.get(kind="capture")
    assert run.state == "QUARANTINED", run.state
    return order


# --- state x tool -------------------------------------------------------------------------------------------

STUCK, WAITING, MOVING, ENDED, DRIVEN = "stuck", "waiting", "moving", "ended", "driven"
GROUPS = {
    **dict.fromkeys(SagaState.values, MOVING),
    "WAITING": WAITING,
    "FAILED_COMPENSATION": STUCK,
    "QUARANTINED": STUCK,
    "COMPLETED": ENDED,
    "COMPENSATED": ENDED,
    "FORCED": ENDED,
}
REFUSALS: dict[str, dict[str, str]] = {
    "retry": {WAITING: "not stuck", MOVING: "not stuck", ENDED: "not stuck", DRIVEN: "driven at this moment"},
    "compensate": {
        MOVING: "cannot be walked back",
        ENDED: "cannot be walked back",
        DRIVEN: "driven at this moment",
    },
    "skip": {
        WAITING: "only a stuck",
        MOVING: "only a stuck",
        ENDED: "only a stuck",
        DRIVEN: "driven at this moment",
    },
    "force": {
        WAITING: "only a stuck",
        MOVING: "only a stuck",
        ENDED: "only a stuck",
        DRIVEN: "driven at this moment",
    },
    "extend": {
        STUCK: "not waiting",
        MOVING: "not waiting",
        ENDED: "not waiting",
        DRIVEN: "driven at this moment",
    },
    "note": {},
}


def use(tool: str, run: SagaRun) -> object:
    match tool:
        case "retry":
            return services.retry_saga(run.pk, epoch=run.epoch, **WHY)
        case "compensate":
            return services.compensate_saga(run.pk, epoch=run.epoch, **WHY)
        case "skip":
            return services.skip_step(run.pk, epoch=run.epoch, evidence="seen", **WHY)
        case "force":
            return services.propose_force(run.pk, epoch=run.epoch, target="paid", **EVIDENCE)
        case "extend":
            until = timezone.now() + timedelta(days=2)
            return services.extend_deadline(run.pk, epoch=run.epoch, until=until, **WHY)
        case _:
            return services.add_saga_note(run.pk, actor=ANN, text="looked at it")


@pytest.mark.parametrize("tool", REFUSALS)
@pytest.mark.parametrize("state", [*SagaState.values, DRIVEN])
def test_each_tool_from_each_state(state: str, tool: str, place: Place) -> None:
    order = place()
    soon = timezone.now() + timedelta(hours=1)
    values: dict[str, Any] = {"state": state, "deadline_at": soon, "step": "ship"}
    if state == DRIVEN:
        values |= {"state": "WAITING", "lease_expires_at": soon}
    SagaRun.objects.filter(order=order).update(**values)
    run = run_of(order)
    refusal = REFUSALS[tool].get(GROUPS.get(state, DRIVEN), "")
    assert (refusal in services.explain_tool(run, tool)) if refusal else not services.explain_tool(run, tool)
    if not refusal:
        use(tool, run)
        [line] = run.diary.filter(detail__actor=ANN).order_by("id")[:1]
        assert {"reason", "evidence", "note", "error"} & line.detail.keys()
        return
    before = SagaRun.objects.filter(pk=run.pk).values().get()
    with pytest.raises(ConflictError, match=refusal) as caught:
        use(tool, run)
    assert isinstance(caught.value, BusyError) == (state == DRIVEN)
    assert run.pk in caught.value.message
    assert SagaRun.objects.filter(pk=run.pk).values().get() == before
    assert not run.diary.filter(detail__actor=ANN).exists()


@pytest.mark.parametrize("tool", ["retry", "compensate", "skip", "force", "extend"])
def test_what_changed_since_it_was_looked_at_is_left_alone(tool: str, place: Place) -> None:
    order = place()
    state = "WAITING" if tool == "extend" else "QUARANTINED"
    SagaRun.objects.update(state=state, step="ship", deadline_at=timezone.now())
    seen = run_of(order)
    SagaRun.objects.update(epoch=seen.epoch + 1)
    with pytest.raises(ConflictError, match="has changed since"):
        use(tool, seen)
    assert run_of(order).state == state


# --- skip ---------------------------------------------------------------------------------------------------


class TestSkip:
    def skip(self, order: Order, **more: str) -> SagaRun:
        run = order.sagas.stuck().get()
        return services.skip_step(run.pk, epoch=run.epoch, **WHY, **more)

    def test_goes_forward_past_the_step_and_keeps_the_effect_with_the_reason(self, place: Place) -> None:
        order = place()
        SagaRun.objects.update(state="QUARANTINED", step="ship", last_error={"code": "internal_error"})
        SagaEffect.objects.filter(step="ship").delete()
        assert self.skip(order).state == "COMPLETED"
        effect = SagaEffect.objects.get(step="ship")
        assert (effect.direction, effect.outcome, effect.note) == ("do", "skipped", "the carrier is back")
        line = run_of(order).diary.get(kind="operator_skip")
        assert (line.detail["actor"], line.detail["before"]) == (ANN, "QUARANTINED")

    def test_goes_back_past_an_undo_that_is_refused_for_good(
        self, unrefunded: Order, gateway: FakeGateway
    ) -> None:
        with pytest.raises(ConflictError, match="would stay held or taken"):
            self.skip(unrefunded)
        assert self.skip(unrefunded, evidence="paid back by bank, SEPA 4711").state == "COMPENSATED"
        assert gateway.money_kept() == 12950
        assert find_payment(unrefunded).order.state == "canceled"
        effect = SagaEffect.objects.get(direction="undo", outcome="skipped")
        assert "SEPA 4711" in effect.note

    def test_past_what_nobody_knows_only_with_evidence(self, doubtful_refund: Order) -> None:
        before = run_of(doubtful_refund)
        with pytest.raises(ConflictError, match="money may have moved"):
            self.skip(doubtful_refund)
        after = run_of(doubtful_refund)
        assert (after.state, after.epoch) == (before.state, before.epoch)
        assert self.skip(doubtful_refund, evidence="refunded by hand").state == "COMPENSATED"
        assert Operation.objects.get(kind="refund").state in ("unknown", "sent"), "it is still asked for"

    def test_what_the_gateway_has_done_is_not_skipped(
        self, doubtful_refund: Order, gateway: FakeGateway
    ) -> None:
        operation = Operation.objects.get(kind="refund")
        gateway.faults.clear()
        gateway.operations[operation.pk] = gateway.refunds and None
        Operation.objects.filter(pk=operation.pk).update(state="succeeded")
        with pytest.raises(ConflictError, match="press Retry"):
            self.skip(doubtful_refund, evidence="seen")
        Operation.objects.filter(pk=operation.pk).update(state=operation.state)

    def test_no_decision_is_skipped(self, place: Place) -> None:
        order = place()
        for name in ("screen", "screen_again", "review"):
            SagaRun.objects.update(state="QUARANTINED", step=name)
            with pytest.raises(ConflictError, match="no decision is skipped"):
                self.skip(order)

    def test_a_recipe_that_is_gone_is_said(self, place: Place) -> None:
        order = place()
        SagaRun.objects.update(state="QUARANTINED", step="ship", definition_version=99)
        with pytest.raises(ConflictError, match="not deployed"):
            self.skip(order)

    def test_a_skipped_capture_is_not_undone_when_the_saga_walks_back_later(
        self, refused_capture: Order, gateway: FakeGateway
    ) -> None:
        run = self.skip(refused_capture, evidence="the dashboard shows no capture")
        assert run.state == "COMPLETED"
        assert (gateway.captured, gateway.refunds) == ({}, {})

    def test_pressed_twice_it_skips_one_step(self, unrefunded: Order) -> None:
        run = run_of(unrefunded)
        wish: dict[str, Any] = {"epoch": run.epoch, "evidence": "by bank", **WHY}
        services.skip_step(run.pk, **wish)
        with pytest.raises(ConflictError):
            services.skip_step(run.pk, **wish)
        assert SagaEffect.objects.filter(outcome="skipped").count() == 1

    def test_keeps_no_card_number(self, unrefunded: Order) -> None:
        self.skip(unrefunded, evidence="card 4242 4242 4242 4242")
        assert "4242 4242" not in SagaEffect.objects.get(outcome="skipped").note
        assert "4242 4242" not in str(run_of(unrefunded).diary.get(kind="operator_skip").detail)


# --- the deadline -------------------------------------------------------------------------------------------


class TestDeadline:
    def extend(self, order: Order, until: datetime) -> SagaRun:
        run = run_of(order)
        return services.extend_deadline(run.pk, epoch=run.epoch, until=until, **WHY)

    def test_a_review_waits_longer_and_its_queue_knows(
        self, waiting: Order, screener: ScriptedScreener
    ) -> None:
        until = find_payment(waiting).authorization_expires_at - timedelta(hours=13)  # type: ignore[operator]
        run = self.extend(waiting, until)
        assert (run.deadline_at, run.wake_at, run.state) == (until, until, "WAITING")
        assert screener.opened == [waiting.pk] * 2
        services.release_review(waiting.pk, actor=BOB)
        sweep()
        assert state_of(waiting)[1] == "paid"

    def test_not_beyond_the_hold_on_the_card(self, waiting: Order) -> None:
        expires = find_payment(waiting).authorization_expires_at
        assert expires
        before = run_of(waiting).deadline_at
        with pytest.raises(InvalidRequestError, match="too late"):
            self.extend(waiting, expires - timedelta(hours=11))
        assert run_of(waiting).deadline_at == before

    def test_only_later(self, waiting: Order) -> None:
        with pytest.raises(InvalidRequestError, match="not later"):
            self.extend(waiting, run_of(waiting).deadline_at - timedelta(minutes=1))  # type: ignore[operator]


def test_an_empty_note_is_refused_and_a_card_number_masked(waiting: Order) -> None:
    run = run_of(waiting)
    with pytest.raises(InvalidRequestError, match="empty"):
        services.add_saga_note(run.pk, actor=ANN, text=" ")
    services.add_saga_note(run.pk, actor=ANN, text="card 4242 4242 4242 4242")
    assert "4242 4242" not in run.diary.get(kind="operator_note").detail["note"]
    assert run_of(waiting).epoch == run.epoch


# --- many at once -------------------------------------------------------------------------------------------


def test_a_group_is_taken_up_with_one_outcome_each(place: Place) -> None:
    orders = [place() for _ in range(3)]
    SagaRun.objects.update(state="QUARANTINED", step="ship", last_error={"code": "internal_error"})
    runs = [(run.pk, run.epoch) for run in SagaRun.objects.order_by("id")]
    SagaRun.objects.filter(pk=runs[1][0]).update(state="COMPLETED")
    [group] = SagaRun.objects.stuck_groups()
    assert (group.kind, group.step, group.code, group.count) == ("checkout", "ship", "internal_error", 2)
    assert group.amounts == {"EUR": (0, 25900)}
    outcomes = services.retry_sagas([*runs, ("sag_none", 1)], **WHY)
    assert [bool(outcome.refusal) for outcome in outcomes] == [False, True, False, True]
    assert "not stuck" in outcomes[1].refusal
    assert services.sweep_sagas() == 2
    assert {state_of(order)[0] for order in orders} == {"COMPLETED"}
    assert SagaRun.objects.stuck_groups() == []


# --- the forced end -----------------------------------------------------------------------------------------


class TestForce:
    def propose(self, order: Order, target: str = "paid", **changes: Any) -> ForceRequest:
        run = order.sagas.stuck().get()
        return services.propose_force(run.pk, **{"epoch": run.epoch, "target": target, **EVIDENCE, **changes})

    def approve(self, request: ForceRequest, actor: str = BOB, payload_hash: str = "") -> SagaRun:
        return services.approve_force(
            request.pk, payload_hash=payload_hash or request.payload_hash, actor=actor
        )

    def test_a_second_person_ends_it_as_paid(self, unrefunded: Order) -> None:
        assert self.approve(self.propose(unrefunded)).state == "FORCED"
        assert state_of(unrefunded) == ("FORCED", "paid", "succeeded")
        [line] = run_of(unrefunded).diary.filter(kind="forced")
        told = line.detail
        assert (told["actor"], told["proposed_by"], told["references"]) == (BOB, ANN, ["pi_1"])
        assert (told["before"]["saga"], told["after"]["order"]) == ("FAILED_COMPENSATION", "paid")
        event = unrefunded.events.get(type="saga.forced")
        assert (event.is_public, event.actor) == (False, BOB)

    def test_paid_only_with_money_kept_and_canceled_only_with_none(
        self, unrefunded: Order, refused_capture: Order
    ) -> None:
        with pytest.raises(ConflictError, match="captured and not refunded"):
            self.propose(unrefunded, "canceled")
        with pytest.raises(ConflictError, match="not paid"):
            self.propose(refused_capture, "paid")
        with pytest.raises(ConflictError, match="held on the card"):
            self.propose(refused_capture, "canceled")
        assert not ForceRequest.objects.exists()

    def test_canceled_closes_what_the_gateway_never_had_and_frees_the_order(
        self, place: Place, gateway: FakeGateway
    ) -> None:
        def answers_another_amount(act: Callable[[], Any]) -> Any:
            result = act()
            return ChargeResult(ChargeStatus.AUTHORIZED, result.reference, Money(1, "EUR"))

        gateway.faults["authorize"] = [answers_another_amount]
        order = place()
        assert run_of(order).state == "QUARANTINED"
        self.approve(self.propose(order, "canceled"))
        assert state_of(order) == ("FORCED", "canceled", "canceled")
        assert Operation.objects.get(kind="authorize").state == "failed"
        assert not order.payment.attempts.filter(state="live").exists()

    def test_nobody_decides_on_his_own(self, unrefunded: Order) -> None:
        request = self.propose(unrefunded)
        for actor in (ANN, ANN.upper()):
            with pytest.raises(ConflictError, match="second person"):
                self.approve(request, actor=actor)
            with pytest.raises(ConflictError, match="second person"):
                services.reject_force(request.pk, actor=actor, reason="")
        assert run_of(unrefunded).state == "FAILED_COMPENSATION"

    @pytest.mark.parametrize(
        "attack",
        [
            {"state": "done", "decided_by": ANN, "decided_at": timezone.now()},
            {"state": "done", "decided_by": "USER:ANN", "decided_at": timezone.now()},
            {"state": "done", "decided_by": "", "decided_at": timezone.now()},
            {"state": "done", "decided_by": BOB},
            {"decided_by": BOB},
            {"proposed_by": ""},
            {"evidence": ""},
            {"target": "refunded"},
        ],
    )
    def test_the_database_refuses_what_no_code_would_write(
        self, unrefunded: Order, attack: dict[str, Any]
    ) -> None:
        request = self.propose(unrefunded)
        with pytest.raises(IntegrityError), transaction.atomic():
            ForceRequest.objects.filter(pk=request.pk).update(**attack)

    @pytest.mark.parametrize("field", ["target", "evidence", "references", "money", "epoch", "proposed_by"])
    def test_what_was_altered_since_is_not_executed(self, unrefunded: Order, field: str) -> None:
        request = self.propose(unrefunded)
        others = {"target": "canceled", "references": ["pi_2"], "money": {}, "epoch": request.epoch + 1}
        ForceRequest.objects.filter(pk=request.pk).update(**{field: others.get(field, "user:eve")})
        with pytest.raises(ConflictError, match="not what was proposed"):
            self.approve(request)
        assert run_of(unrefunded).state == "FAILED_COMPENSATION"

    def test_what_was_not_seen_is_not_approved(self, unrefunded: Order) -> None:
        with pytest.raises(ConflictError, match="not what was proposed"):
            self.approve(self.propose(unrefunded), payload_hash="0" * 32)

    def test_a_saga_that_moved_since_is_not_forced(self, unrefunded: Order, gateway: FakeGateway) -> None:
        gateway.faults["refund"] = [refuses]
        request = self.propose(unrefunded)
        services.retry_saga(run_of(unrefunded).pk, **WHY)
        assert run_of(unrefunded).state == "FAILED_COMPENSATION", "stuck again, at another epoch"
        with pytest.raises(ConflictError, match="changed since"):
            self.approve(request)
        ForceRequest.objects.get(pk=request.pk, state="open")

    def test_money_that_moved_since_is_not_overlooked(self, unrefunded: Order) -> None:
        request = self.propose(unrefunded)
        services.refund_order(unrefunded, amount=100, reason="duplicate", actor="api:shop")
        with pytest.raises(ConflictError, match="money has moved"):
            self.approve(request)

    def test_an_old_request_is_proposed_again(self, unrefunded: Order) -> None:
        request = self.propose(unrefunded)
        ForceRequest.objects.update(expires_at=timezone.now())
        with pytest.raises(ConflictError, match="in time"):
            self.approve(request)
        self.approve(self.propose(unrefunded))
        assert run_of(unrefunded).state == "FORCED"

    def test_one_request_at_a_time_and_a_rejected_one_makes_room(self, unrefunded: Order) -> None:
        request = self.propose(unrefunded)
        with pytest.raises(ConflictError, match="proposed already"):
            self.propose(unrefunded, actor=BOB)
        services.reject_force(request.pk, actor=BOB, reason="no such payment there")
        with pytest.raises(ConflictError, match="decided already"):
            self.approve(request)
        self.propose(unrefunded)

    @pytest.mark.parametrize("missing", [{"evidence": " "}, {"references": [" "]}, {"target": "shipped"}])
    def test_without_evidence_none_is_proposed(self, unrefunded: Order, missing: dict[str, Any]) -> None:
        with pytest.raises(InvalidRequestError, match="needs"):
            self.propose(unrefunded, **missing)


# --- at the same time ---------------------------------------------------------------------------------------


@pytest.mark.concurrency
@pytest.mark.django_db(transaction=True)
class TestRaces:
    def race(self, number: int, act: Callable[[int], object]) -> list[str]:
        barrier = Barrier(number)

        def work(index: int) -> str:
            barrier.wait()
            try:
                act(index)
            except PaymentError as error:
                return error.code
            return ""

        return run_in_threads(work, number)

    def test_two_operators_skip_one_step_once(self, unrefunded: Order) -> None:
        run = run_of(unrefunded)
        wish: dict[str, Any] = {"epoch": run.epoch, "reason": "closed card", "evidence": "by bank"}
        outcomes = self.race(6, lambda index: services.skip_step(run.pk, actor=f"user:{index}", **wish))
        assert sorted(outcomes) == [""] + ["conflict"] * 5
        assert SagaEffect.objects.filter(outcome="skipped").count() == 1
        assert run.diary.filter(kind="operator_skip").count() == 1

    def test_of_different_tools_one_is_used(self, unrefunded: Order, gateway: FakeGateway) -> None:
        run = run_of(unrefunded)
        common: dict[str, Any] = {"epoch": run.epoch, "reason": "now"}

        def act(index: int) -> object:
            actor = f"user:{index}"
            if index % 2:
                return services.retry_saga(run.pk, actor=actor, **common)
            return services.skip_step(run.pk, actor=actor, evidence="by bank", **common)

        assert self.race(6, act).count("") == 1
        assert run_of(unrefunded).state == "COMPENSATED"
        assert run.diary.filter(kind__startswith="operator_").count() == 1

    def test_two_people_approve_once(self, unrefunded: Order) -> None:
        run = run_of(unrefunded)
        request = services.propose_force(run.pk, epoch=run.epoch, target="paid", **EVIDENCE)
        wish = {"payload_hash": request.payload_hash}
        outcomes = self.race(4, lambda i: services.approve_force(request.pk, actor=f"user:{i}", **wish))
        assert outcomes.count("") == 1
        assert run.diary.filter(kind="forced").count() == 1
        assert unrefunded.events.filter(type="saga.forced").count() == 1

    def test_two_proposals_are_one(self, unrefunded: Order) -> None:
        run = run_of(unrefunded)
        wish: dict[str, Any] = {**EVIDENCE, "epoch": run.epoch, "target": "paid"}
        outcomes = self.race(4, lambda i: services.propose_force(run.pk, **{**wish, "actor": f"user:{i}"}))
        assert outcomes.count("") == 1
        assert ForceRequest.objects.count() == 1

    def test_a_sweeper_never_ends_what_was_given_more_time(self, waiting: Order) -> None:
        SagaRun.objects.update(wake_at=timezone.now(), deadline_at=timezone.now())
        run = run_of(waiting)
        until = timezone.now() + timedelta(days=3)

        def act(index: int) -> object:
            if index:
                return services.sweep_sagas() or _lose()
            return services.extend_deadline(run.pk, epoch=run.epoch, until=until, **WHY)

        answers = self.race(2, act)
        after = run_of(waiting)
        # A sweeper that comes after the extension finds a deadline to wait for, and waits again.
        is_extended = after.diary.filter(kind="operator_extend").exists()
        assert (answers[0] == "") == is_extended
        assert after.state == ("WAITING" if is_extended else "COMPENSATED")
        assert not is_extended or after.deadline_at == until


def _lose() -> None:
    raise ConflictError("the sweeper found nothing")


def test_a_tool_that_lost_its_lease_writes_nothing(unrefunded: Order) -> None:
    run = run_of(unrefunded)
    assert store.claim_stuck(run.pk, epoch=run.epoch + 1) is None
    assert not store.force_run(run.pk, epoch=run.epoch + 1, detail={})
    assert not store.extend_wait(run.pk, epoch=run.epoch, until=timezone.now(), detail={})
    with connection.cursor() as cursor:
        cursor.execute("SELECT state, epoch FROM payments_sagarun WHERE id = %s", [run.pk])
        assert cursor.fetchone() == ("FAILED_COMPENSATION", run.epoch)
