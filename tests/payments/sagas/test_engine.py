"""The engine on recipes of its own: leases, signals, crashes, the walk back, and what each costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Barrier, Lock
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from payments.errors import (
    GatewayTimeoutError,
    NetworkError,
    PaymentError,
    StaleLeaseError,
    UnknownDefinitionError,
)
from payments.models import Order, SagaEffect, SagaEvent, SagaRun, SagaSignal, StockItem
from payments.sagas import engine, store
from payments.sagas.recipe import (
    Again,
    Context,
    Done,
    EffectRow,
    Fail,
    Halt,
    Outcome,
    Recipe,
    Result,
    Wait,
    step,
)
from tests.fakes import FakeGateway
from tests.payments.gateway_faults import make_due
from tests.payments.threads import run_in_threads

pytestmark = pytest.mark.django_db

REFUSED = PaymentError("refused")


@dataclass
class World:
    """The outside: what was done to it, what it answers, in order; a callable is called instead."""

    answers: dict[str, list[Any]] = field(default_factory=dict)
    knows: dict[str, Any] = field(default_factory=dict)
    heard: list[str] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def do(self, name: str) -> Any:
        with self.lock:
            self.heard.append(name)
            answer = self.answers.get(name, []).pop(0) if self.answers.get(name) else "done"
        if callable(answer):
            answer = answer()
        if isinstance(answer, Exception):
            raise answer
        self.knows[name] = answer
        return answer


@dataclass
class Act:
    """An effect in the world; undoing it is an effect of its own, named `un<name>`."""

    world: World
    name: str

    def intend(self, context: Context) -> EffectRow | None:
        direction = SagaEffect.Direction.UNDO if context.is_undoing else SagaEffect.Direction.DO
        return EffectRow(context.step, direction, reference=self.name)

    def call(self, context: Context) -> Any:
        return self.world.do(self.name)

    def may_call_again(self, context: Context) -> bool:
        return True

    def ask(self, context: Context) -> Any:
        self.world.heard.append(f"ask {self.name}")
        return self.world.knows.get(self.name)

    def record(self, context: Context, answer: Any) -> Result:
        if answer is None:
            return Fail(REFUSED, Outcome.ABSENT)
        if isinstance(answer, GatewayTimeoutError):
            return Again(timedelta(seconds=5), answer, in_doubt=True)
        if isinstance(answer, NetworkError):
            return Again(timedelta(seconds=5), answer)
        if isinstance(answer, PaymentError):
            return Fail(answer, Outcome.DECLINED)
        return answer if isinstance(answer, Done | Fail | Wait | Halt) else Done()


@dataclass
class Story:
    """Builds a recipe, starts it and drives it, always with the same world."""

    world: World = field(default_factory=World)
    ends: list[str] = field(default_factory=list)
    recipe: Recipe | None = None

    def of(self, *steps: Any) -> Story:
        self.recipe = Recipe(
            kind="toy",
            version=1,
            steps=steps,
            completed=lambda context: self.ends.append("completed"),
            compensated=lambda context, cause: self.ends.append(f"compensated: {cause.get('message')}"),
        )
        return self

    def act(self, name: str, *, undo: bool = True) -> Any:
        return step(name, do=Act(self.world, name), undo=Act(self.world, f"un{name}") if undo else None)

    def find(self, kind: str, version: int) -> Recipe:
        assert self.recipe is not None
        return self.recipe

    def begin(self, subject: str = "one", data: dict[str, Any] | None = None) -> engine.Runner:
        assert self.recipe is not None
        with transaction.atomic():
            return engine.start_run(self.recipe, subject=subject, order=None, payment=None, data=data or {})

    def play(self) -> SagaRun:
        self.begin().drive()
        return SagaRun.objects.get()

    def sweep(self, times: int = 1) -> SagaRun:
        for _ in range(times):
            make_due()
            engine.drive_due(self.find)
        return SagaRun.objects.get()


@pytest.fixture
def story() -> Story:
    return Story()


def let_lease_expire() -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE payments_sagarun SET lease_expires_at = now(), wake_at = now()")


def is_refused(context: Context) -> None:
    raise REFUSED


class Waits:
    """Waits for one signal and keeps what it said."""

    def run(self, context: Context) -> Result:
        if context.signal:
            context.data["heard"] = context.signal
            return Done()
        if context.is_overdue:
            return Fail(PaymentError("too late"))
        return Wait("word", context.deadline_at or timezone.now() + timedelta(hours=1))


class TestForward:
    def test_the_steps_run_in_order_and_the_end_is_told(self, story: Story) -> None:
        run = story.of(story.act("a"), story.act("b")).play()
        assert (run.state, story.world.heard, story.ends) == ("COMPLETED", ["a", "b"], ["completed"])
        assert run.lease_expires_at is None

    def test_a_saga_needs_no_order(self, story: Story) -> None:
        def look(context: Context) -> None:
            assert context.order is None

        assert story.of(step("look", do=look)).play().order is None

    def test_what_a_step_remembers_is_there_for_the_next(self, story: Story) -> None:
        def remember(context: Context) -> None:
            context.data["seen"] = context.data.get("seen", 0) + 1

        run = story.of(step("one", do=remember), story.act("a"), step("two", do=remember)).play()
        assert run.data == {"seen": 2}

    def test_each_effect_is_intended_before_it_is_done(self, story: Story) -> None:
        def look() -> str:
            intended = SagaEffect.objects.get(step="a")
            assert intended.outcome is None
            return "done"

        story.world.answers["a"] = [look]
        story.of(story.act("a")).play()
        assert SagaEffect.objects.get(step="a").outcome == "ok"

    def test_nothing_to_do_is_done(self, story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Act, "intend", lambda self, context: None)
        assert story.of(story.act("a")).play().state == "COMPLETED"
        assert story.world.heard == []

    def test_the_diary_tells_it_and_stays(self, story: Story) -> None:
        story.of(story.act("a")).play()
        assert list(SagaEvent.objects.values_list("kind", flat=True)) == ["intent", "done", "completed"]
        with pytest.raises(Exception, match="append-only"):
            SagaEvent.objects.all().delete()

    def test_one_subject_has_one_living_run(self, story: Story) -> None:
        story.of(step("wait", do=Waits())).begin().drive()
        with pytest.raises(Exception, match="saga_one_live_per_subject"):
            story.begin()


class TestBackward:
    def test_what_was_done_is_undone_in_reverse_order(self, story: Story) -> None:
        run = story.of(story.act("a"), story.act("b"), step("stop", do=is_refused)).play()
        assert story.world.heard == ["a", "b", "unb", "una"]
        assert (run.state, story.ends) == ("COMPENSATED", ["compensated: refused"])

    def test_a_step_that_was_refused_is_not_undone(self, story: Story) -> None:
        story.world.answers["b"] = [REFUSED]
        story.of(story.act("a"), story.act("b")).play()
        assert story.world.heard == ["a", "b", "una"]

    def test_a_step_without_an_undo_is_passed_over(self, story: Story) -> None:
        story.of(story.act("a"), story.act("b", undo=False), step("stop", do=is_refused)).play()
        assert story.world.heard == ["a", "b", "una"]

    def test_local_steps_are_undone_too(self, story: Story) -> None:
        undone: list[str] = []
        story.of(
            step("a", do=lambda context: None, undo=lambda context: undone.append(context.step)),
            step("stop", do=is_refused),
        ).play()
        assert undone == ["a"]

    @pytest.mark.parametrize(("known", "heard"), [("done", ["ask a", "una"]), (None, ["ask a"])])
    def test_what_is_in_doubt_is_asked_for_before_it_is_undone(
        self, story: Story, known: str | None, heard: list[str]
    ) -> None:
        story.world.answers["a"] = [Fail(REFUSED, Outcome.UNKNOWN)]
        assert story.of(story.act("a")).play().state == "COMPENSATING"
        story.world.heard.clear()
        story.world.knows["a"] = known
        assert story.sweep().state == "COMPENSATED"
        assert story.world.heard == heard

    def test_what_is_in_doubt_and_cannot_be_undone_is_for_an_operator(self, story: Story) -> None:
        story.world.answers["a"] = [Fail(REFUSED, Outcome.UNKNOWN)]
        run = story.of(story.act("a", undo=False)).play()
        assert (run.state, story.ends) == ("QUARANTINED", [])
        assert SagaEffect.objects.get().outcome == "unknown"

    def test_an_intent_that_may_not_be_is_a_failure_not_a_crash(
        self, story: Story, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def intend(self: Act, context: Context) -> EffectRow:
            if self.name == "b":
                raise REFUSED
            return EffectRow(context.step, "undo" if context.is_undoing else "do")

        monkeypatch.setattr(Act, "intend", intend)
        assert story.of(story.act("a"), story.act("b")).play().state == "COMPENSATED"
        assert story.world.heard == ["a", "una"]

    def test_another_runs_effects_are_left_alone(self, story: Story) -> None:
        story.of(story.act("a"), step("wait", do=Waits()))
        story.begin("winner").drive()
        story.begin("loser").drive()
        loser = SagaRun.objects.get(subject="loser")
        assert engine.compensate_run(loser.pk, REFUSED, story.find)
        assert story.world.heard == ["a", "a", "una"]
        assert SagaEffect.objects.filter(run__subject="winner", direction="undo").count() == 0

    def test_a_halt_is_for_an_operator(self, story: Story) -> None:
        story.world.answers["a"] = [Halt(REFUSED)]
        run = story.of(story.act("a")).play()
        assert (run.state, story.ends) == ("QUARANTINED", [])
        assert story.sweep(3).state == "QUARANTINED"


class TestComingBack:
    def test_a_gateway_that_was_away_is_asked_then_tried_again(self, story: Story) -> None:
        story.world.answers["a"] = [NetworkError()]
        run = story.of(story.act("a")).play()
        assert (run.state, run.wake_at is not None, run.lease_expires_at) == ("RUNNING", True, None)
        assert run.last_error is not None
        assert run.last_error["code"] == "network_error"

        assert story.sweep().state == "COMPLETED"
        assert story.world.heard == ["a", "ask a", "a"]

    def test_what_was_done_without_an_answer_is_not_done_again(self, story: Story) -> None:
        story.world.answers["a"] = [GatewayTimeoutError()]
        story.of(story.act("a")).play()
        assert SagaEffect.objects.get().outcome == "unknown"
        story.world.knows["a"] = "done"
        assert story.sweep().state == "COMPLETED"
        assert story.world.heard == ["a", "ask a"]

    def test_an_exception_in_the_call_is_doubt_not_failure(self, story: Story) -> None:
        story.world.answers["a"] = [ZeroDivisionError("a bug in the adapter")]
        run = story.of(story.act("a")).play()
        assert (run.state, SagaEffect.objects.get().outcome) == ("RUNNING", "unknown")

    def test_a_compensation_is_tried_again_later_each_time(self, story: Story) -> None:
        story.world.answers["una"] = [NetworkError()] * 3
        story.of(story.act("a"), step("stop", do=is_refused)).play()
        delays = []
        for _ in range(2):
            run = SagaRun.objects.get()
            with connection.cursor() as cursor:
                cursor.execute("SELECT extract(epoch FROM wake_at - now()) FROM payments_sagarun")
                delays.append(float(cursor.fetchone()[0]))
            assert run.state == "COMPENSATING"
            story.sweep()
        assert 8 <= delays[0] <= 12
        assert 16 <= delays[1] <= 24
        assert story.sweep(2).state == "COMPENSATED"

    def test_a_compensation_that_never_succeeds_is_for_an_operator(self, story: Story) -> None:
        story.world.answers["una"] = [NetworkError()] * 50
        story.of(story.act("a"), step("stop", do=is_refused)).play()
        run = story.sweep(engine.COMPENSATION_TRIES)
        assert (run.state, story.ends) == ("FAILED_COMPENSATION", [])
        heard = len(story.world.heard)
        story.sweep(3)
        assert len(story.world.heard) == heard

    def test_a_stuck_run_that_is_reopened_goes_on_with_a_fresh_budget(self, story: Story) -> None:
        story.world.answers["una"] = [NetworkError()] * 20
        story.of(story.act("a"), step("stop", do=is_refused)).play()
        run = story.sweep(engine.COMPENSATION_TRIES)
        story.world.answers.clear()
        assert store.reopen_run(
            run.pk, state="COMPENSATING", diary="operator_retry", detail={"actor": "user:o"}
        )
        assert not store.reopen_run(run.pk, state="COMPENSATING", diary="operator_retry", detail={})
        assert story.sweep().state == "COMPENSATED"
        assert SagaEvent.objects.get(kind="operator_retry").detail == {"actor": "user:o"}


class TestWaiting:
    @pytest.fixture
    def waiting(self, story: Story) -> SagaRun:
        run = story.of(step("wait", do=Waits()), story.act("a")).play()
        assert (run.state, run.waiting_for) == ("WAITING", "word")
        return run

    def signal(self, run: SagaRun, dedupe_id: str = "1", **payload: Any) -> bool:
        return engine.send_signal(run.pk, "word", dedupe_id=dedupe_id, payload=payload or {"n": dedupe_id})

    def test_a_signal_wakes_the_run(self, story: Story, waiting: SagaRun) -> None:
        assert self.signal(waiting)
        assert engine.drive_due(story.find) == 1
        run = SagaRun.objects.get()
        assert (run.state, run.data, run.deadline_at) == ("COMPLETED", {"heard": {"n": "1"}}, None)

    def test_a_signal_before_the_wait_is_kept(self, story: Story) -> None:
        runner = story.of(story.act("a"), step("wait", do=Waits())).begin()
        engine.send_signal(runner.run.id, "word", dedupe_id="1", payload={"n": "early"})
        runner.drive()
        assert SagaRun.objects.get().state == "COMPLETED"
        assert SagaRun.objects.get().data == {"heard": {"n": "early"}}

    def test_the_same_signal_twice_is_one(self, waiting: SagaRun) -> None:
        assert [self.signal(waiting), self.signal(waiting)] == [True, False]
        assert SagaSignal.objects.count() == 1

    def test_of_two_signals_the_first_counts(self, story: Story, waiting: SagaRun) -> None:
        self.signal(waiting, "1")
        self.signal(waiting, "2")
        story.sweep()
        assert SagaRun.objects.get().data == {"heard": {"n": "1"}}
        assert SagaSignal.objects.filter(consumed_at__isnull=True).count() == 1

    def test_another_signal_is_not_the_one(self, story: Story, waiting: SagaRun) -> None:
        engine.send_signal(waiting.pk, "other", dedupe_id="1", payload={})
        assert engine.drive_due(story.find) == 0
        assert SagaRun.objects.get().state == "WAITING"

    def test_waking_for_nothing_waits_on_with_the_same_deadline(self, story: Story, waiting: SagaRun) -> None:
        run = story.sweep(store.MAX_CLAIMS + 5)
        assert (run.state, run.deadline_at, run.attempts) == ("WAITING", waiting.deadline_at, 0)
        self.signal(run)
        assert story.sweep().state == "COMPLETED"

    def test_after_the_deadline_nobody_is_waited_for(self, story: Story, waiting: SagaRun) -> None:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE payments_sagarun SET deadline_at = now()")
        assert story.sweep().state == "COMPENSATED"
        assert story.ends == ["compensated: too late"]

    def test_a_signal_that_came_in_time_beats_the_deadline_that_passed_since(
        self, story: Story, waiting: SagaRun
    ) -> None:
        self.signal(waiting)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE payments_sagarun SET deadline_at = now()")
        assert story.sweep().state == "COMPLETED"

    def test_the_deadline_wakes_the_run_by_itself(self, waiting: SagaRun) -> None:
        assert waiting.wake_at == waiting.deadline_at

    def test_a_crash_after_the_signal_does_not_lose_it(self, story: Story) -> None:
        crashes = [RuntimeError("bug")]

        class CrashesOnce(Waits):
            def run(self, context: Context) -> Result:
                if context.signal and crashes:
                    raise crashes.pop()
                return super().run(context)

        run = story.of(step("wait", do=CrashesOnce())).play()
        self.signal(run)
        assert story.sweep().state != "COMPLETED"
        assert story.sweep().state == "COMPLETED"
        assert SagaRun.objects.get().data == {"heard": {"n": "1"}}


class TestLeases:
    @pytest.fixture
    def held(self, story: Story) -> engine.Runner:
        """A run whose first effect is intended, and whose runner does not go on."""
        return story.of(story.act("a"), story.act("b")).begin()

    def test_a_living_lease_is_not_taken(self, story: Story, held: engine.Runner) -> None:
        assert store.claim_run(held.run.id) is None
        assert not engine.drive_run(held.run.id, story.find)
        make_due()
        assert engine.drive_due(story.find) == 0

    def test_an_expired_lease_is_stolen_with_the_next_epoch(self, held: engine.Runner) -> None:
        let_lease_expire()
        stolen = store.claim_run(held.run.id)
        assert stolen is not None
        assert (held.run.epoch, stolen.epoch, stolen.attempts) == (1, 2, 1)

    def test_a_zombie_writes_nothing(self, story: Story, held: engine.Runner) -> None:
        """It did its call while the lease was stolen; its page is refused whole."""
        let_lease_expire()
        assert store.claim_run(held.run.id) is not None
        before = (
            SagaRun.objects.values().get(),
            list(SagaEffect.objects.values()),
            SagaEvent.objects.count(),
        )

        with pytest.raises(StaleLeaseError), transaction.atomic():
            held.turn("done")

        after = (SagaRun.objects.values().get(), list(SagaEffect.objects.values()), SagaEvent.objects.count())
        assert after == before

    def test_a_zombies_rows_go_with_its_page(self, story: Story) -> None:
        def write(context: Context) -> None:
            StockItem.objects.create(sku="written by a zombie")

        runner = story.of(story.act("a"), step("write", do=write)).begin()
        let_lease_expire()
        store.claim_run(runner.run.id)
        runner.drive()  # stops silently
        assert story.world.heard == ["a"]
        assert not StockItem.objects.exists()
        assert SagaRun.objects.get().state == "RUNNING"

    def test_a_zombie_cannot_release_the_run_from_its_new_owner(self, held: engine.Runner) -> None:
        let_lease_expire()
        store.claim_run(held.run.id)
        with pytest.raises(StaleLeaseError), transaction.atomic():
            held.release()
        assert SagaRun.objects.get().lease_expires_at is not None

    def test_the_successor_asks_before_it_calls(self, story: Story, held: engine.Runner) -> None:
        story.world.do("a")  # the first runner was killed after its call
        let_lease_expire()
        assert story.sweep().state == "COMPLETED"
        assert story.world.heard == ["a", "ask a", "b"]

    def test_a_run_is_driven_by_the_one_who_reopened_it_not_by_the_zombie(
        self, story: Story, held: engine.Runner
    ) -> None:
        let_lease_expire()
        for _ in range(store.MAX_CLAIMS + 1):
            store.claim_run(held.run.id)
            let_lease_expire()
        assert story.sweep().state == "QUARANTINED"
        with pytest.raises(StaleLeaseError), transaction.atomic():
            held.turn("done")

    def test_a_run_without_progress_is_put_aside(self, story: Story, held: engine.Runner) -> None:
        """Workers that are killed in the middle, for example because the memory is full."""
        for _ in range(store.MAX_CLAIMS):
            let_lease_expire()
            assert store.claim_run(held.run.id) is not None
        let_lease_expire()
        run = story.sweep()
        assert (run.state, story.world.heard) == ("QUARANTINED", [])
        assert story.sweep(2).state == "QUARANTINED"

    def test_a_run_whose_definition_is_gone_is_put_aside(self, story: Story, held: engine.Runner) -> None:
        let_lease_expire()
        engine.drive_due(find_nothing)
        run = SagaRun.objects.get()
        assert run.state == "QUARANTINED"
        assert run.last_error is not None
        assert run.last_error["code"] == "unknown_definition"


def find_nothing(kind: str, version: int) -> Recipe:
    raise UnknownDefinitionError(f"saga {kind} version {version} is not deployed")


class TestCrashes:
    def test_a_crash_keeps_nothing_of_its_turn_and_comes_back(self, story: Story) -> None:
        crashes = [RuntimeError("bug")]

        def write_then_crash(context: Context) -> None:
            StockItem.objects.create(sku="half")
            context.data["half"] = True
            if crashes:
                raise crashes.pop()

        run = story.of(story.act("a"), step("write", do=write_then_crash)).play()

        assert (run.state, run.step, run.data) == ("RUNNING", "a", {})
        assert not StockItem.objects.exists()
        assert run.last_error is not None
        assert (run.last_error["code"], run.lease_expires_at) == ("internal_error", None)
        assert SagaEvent.objects.filter(kind="crashed").count() == 1

        assert story.sweep().state == "COMPLETED"
        assert story.world.heard == ["a", "ask a"]
        assert StockItem.objects.count() == 1

    def test_a_bug_that_stays_is_put_aside_after_its_claims(self, story: Story) -> None:
        def crash(context: Context) -> None:
            raise RuntimeError("bug")

        story.of(story.act("a"), step("crash", do=crash)).play()
        run = story.sweep(store.MAX_CLAIMS + 1)
        assert (run.state, story.world.heard.count("a")) == ("QUARANTINED", 1)

    def test_a_deadlock_is_tried_again_at_once(self, story: Story) -> None:
        deadlocks = [OperationalError("deadlock detected"), OperationalError("deadlock detected")]

        def collide(context: Context) -> None:
            context.data["tries"] = context.data.get("tries", 0) + 1
            if deadlocks:
                raise deadlocks.pop()

        run = story.of(story.act("a"), step("collide", do=collide)).play()
        assert (run.state, run.data, story.world.heard) == ("COMPLETED", {"tries": 1}, ["a"])

    def test_a_recipe_that_goes_in_circles_is_put_aside(
        self, story: Story, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(engine, "MAX_TURNS", 1)
        run = story.of(story.act("a"), story.act("b")).play()
        assert run.last_error is not None
        assert "no end after 1 turns" in run.last_error["message"]


@pytest.mark.django_db(transaction=True)
class TestCommits:
    def test_n_calls_make_n_plus_one_commits(self, story: Story) -> None:
        story.of(*(story.act(name) for name in "abc"))
        with CaptureQueriesContext(connection) as queries:
            story.begin().drive()
        assert [query["sql"] for query in queries].count("COMMIT") == 4
        assert SagaRun.objects.get().state == "COMPLETED"

    def test_so_does_the_walk_back(self, story: Story) -> None:
        story.of(story.act("a"), story.act("b"), step("stop", do=is_refused))
        with CaptureQueriesContext(connection) as queries:
            story.begin().drive()
        assert story.world.heard == ["a", "b", "unb", "una"]
        assert [query["sql"] for query in queries].count("COMMIT") == 5

    def test_a_checkout_that_screens_authorizes_and_captures_makes_four(
        self, place: Callable[..., Order], gateway: FakeGateway
    ) -> None:
        with CaptureQueriesContext(connection) as queries:
            order = place()
        assert (order.state, len(gateway.calls)) == ("paid", 2)
        assert [query["sql"] for query in queries].count("COMMIT") == 4

    def test_no_transaction_is_open_during_a_call(self, story: Story) -> None:
        def look() -> str:
            assert not connection.in_atomic_block
            return "done"

        story.world.answers = {"a": [look], "una": [look]}
        story.of(story.act("a"), step("stop", do=is_refused)).begin().drive()
        assert SagaRun.objects.get().state == "COMPENSATED"


@pytest.mark.django_db(transaction=True)
@pytest.mark.concurrency
class TestManyWorkers:
    @pytest.fixture(autouse=True)
    def due(self, story: Story) -> Iterator[None]:
        story.of(story.act("a"), story.act("b")).begin().release()
        yield
        run = SagaRun.objects.get()
        assert (run.state, sorted(story.world.heard), story.ends) == (
            "COMPLETED",
            ["a", "ask a", "b"],
            ["completed"],
        )

    def test_twenty_workers_drive_one_run_once(self, story: Story) -> None:
        barrier = Barrier(20)
        run_id = SagaRun.objects.get().pk

        def work(_: int) -> bool:
            barrier.wait()
            return engine.drive_run(run_id, story.find)

        assert sum(run_in_threads(work, 20)) == 1

    def test_two_sweepers_drive_one_run_once(self, story: Story) -> None:
        barrier = Barrier(2)

        def work(_: int) -> int:
            barrier.wait()
            return engine.drive_due(story.find)

        run_in_threads(work, 2)
