"""Idempotency keys: one insert decides, everybody else is replayed, refused or told to wait."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from payments import idempotency, services
from payments.api.replay import Answer
from payments.api.replay import _run as run_call
from payments.errors import (
    IdempotencyConflictError,
    IdempotencyExpiredError,
    IdempotencyInFlightError,
    IdempotencyKeyMissingError,
)
from payments.idempotency import (
    Claim,
    abandon,
    attach,
    complete,
    defer,
    fingerprint,
    idempotent,
)
from payments.models import IdempotencyKey, Operation, Order
from payments.purge import purge
from tests.fakes import FakeGateway
from tests.payments.threads import run_in_threads

KEY = "3f6c2a90-0000-4000-8000-000000000001"


def claim(payload: Any = None, *, scope: str = "cli_1", route: str = "POST orders", key: str = KEY) -> Claim:
    return idempotency.claim(scope=scope, route=route, key=key, payload=payload or {"amount": 100})


def finish(held: Claim, body: bytes = b'{"id": "ord_1"}', status: int = 201) -> None:
    complete(held, status=status, content_type="application/json", body=body)


def kill_first_request() -> None:
    """Its lease runs out by the database's clock."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE payments_idempotencykey SET lease_expires_at = statement_timestamp()")


def grow_old(days: int) -> None:
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(days=days))


@pytest.mark.django_db
class TestClaim:
    def test_a_new_key_is_ours(self) -> None:
        held = claim()
        assert (held.is_new, held.replay, held.resource) == (True, None, "")

    def test_a_call_without_a_key_is_refused(self) -> None:
        with pytest.raises(IdempotencyKeyMissingError):
            claim(key="")
        assert not IdempotencyKey.objects.exists()

    def test_an_answered_key_replays_the_very_bytes(self) -> None:
        body = '{"b":1,  "a":"é€\\u0000"}\n'.encode()
        finish(claim(), body, 402)
        again = claim()
        assert again.replay is not None
        assert (again.is_new, again.replay.status, again.replay.body) == (False, 402, body)
        assert again.replay.content_type == "application/json"

    def test_a_living_request_is_waited_for(self, settings: Any) -> None:
        claim()
        with pytest.raises(IdempotencyInFlightError) as refusal:
            claim()
        assert 1 <= refusal.value.details["retry_after"] <= settings.SAGA_LEASE_SECONDS

    @pytest.mark.parametrize("is_answered", [True, False])
    def test_another_payload_is_refused(self, is_answered: bool) -> None:
        held = claim({"amount": 100})
        if is_answered:
            finish(held)
        with pytest.raises(IdempotencyConflictError):
            claim({"amount": 101})

    @pytest.mark.parametrize("other", [{"scope": "cli_2"}, {"route": "POST refunds"}, {"key": KEY[::-1]}])
    def test_the_key_is_the_clients_and_the_routes(self, other: dict[str, str]) -> None:
        finish(claim())
        assert claim({"amount": 101}, **other).is_new

    def test_a_dead_request_is_taken_over_with_what_it_made(self) -> None:
        attach(claim(), "ord_1")
        kill_first_request()
        again = claim()
        assert (again.is_new, again.replay, again.resource) == (False, None, "ord_1")
        with pytest.raises(IdempotencyInFlightError):
            claim()

    def test_a_server_whose_clock_is_ahead_does_not_take_over_the_living(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        claim()
        monkeypatch.setattr(timezone, "now", lambda real=timezone.now: real() + timedelta(hours=1))
        with pytest.raises(IdempotencyInFlightError):
            claim()

    def test_a_key_whose_outcome_was_not_final_is_free_to_ask_again_at_once(self) -> None:
        held = claim()
        attach(held, "ord_1")
        defer(held)
        assert claim().resource == "ord_1"

    def test_the_first_answer_that_was_kept_wins(self) -> None:
        held = claim()
        finish(held, b"first")
        kept = complete(held, status=500, content_type="text/plain", body=b"second")
        assert (kept.status, kept.body) == (201, b"first")

    def test_an_answer_is_not_deferred(self) -> None:
        held = claim()
        finish(held)
        defer(held)
        assert claim().replay is not None


@pytest.mark.django_db
class TestAbandon:
    def test_a_key_that_began_nothing_is_free_again(self) -> None:
        abandon(claim({"amount": -1}))
        assert claim({"amount": 100}).is_new

    def test_a_key_that_made_something_is_never_freed(self) -> None:
        held = claim()
        attach(held, "ord_1")
        abandon(held)
        assert IdempotencyKey.objects.get().resource == "ord_1"

    def test_an_answered_key_is_never_freed(self) -> None:
        held = claim()
        finish(held)
        abandon(held)
        assert claim().replay is not None


@pytest.mark.django_db
class TestAttach:
    def test_a_slow_first_request_makes_nothing_beside_its_successor(self) -> None:
        slow = claim()
        kill_first_request()
        attach(claim(), "ord_of_the_successor")
        with pytest.raises(IdempotencyInFlightError):
            attach(slow, "ord_of_the_slow_one")
        assert IdempotencyKey.objects.get().resource == "ord_of_the_successor"

    def test_a_request_whose_key_is_gone_makes_nothing(self) -> None:
        held = claim()
        abandon(held)
        with pytest.raises(IdempotencyInFlightError):
            attach(held, "ord_1")

    def test_the_same_thing_may_be_attached_again(self) -> None:
        held = claim()
        attach(held, "ord_1")
        attach(held, "ord_1")

    def test_being_overtaken_is_not_kept_as_the_answer(self) -> None:
        slow = claim()
        kill_first_request()
        attach(claim(), "ord_of_the_successor")

        def work() -> Answer:
            attach(slow, "ord_of_the_slow_one")
            raise AssertionError("it was overtaken")

        with pytest.raises(IdempotencyInFlightError):
            run_call(slow, work)
        assert IdempotencyKey.objects.get().completed_at is None

    def test_a_slow_refund_beside_its_successor_refunds_once(
        self, place: Callable[..., Order], gateway: FakeGateway
    ) -> None:
        order = place()
        slow = claim()
        kill_first_request()
        services.refund_order(order, amount=500, reason="requested", actor="api:shop", key=claim())
        with pytest.raises(IdempotencyInFlightError):
            services.refund_order(order, amount=500, reason="requested", actor="api:shop", key=slow)
        assert sum(gateway.refunds.values()) == 500
        assert Operation.objects.refunds().count() == 1


def bury_old_keys() -> int:
    """How many answers became tombstones."""
    redacted, _deleted = purge(table="payments_idempotencykey")
    return redacted.count


@pytest.mark.django_db
class TestTombstones:
    def test_an_answer_is_kept_for_thirty_days(self) -> None:
        finish(claim())
        grow_old(29)
        assert bury_old_keys() == 0
        assert claim().replay is not None

    @pytest.mark.parametrize("is_answered", [True, False])
    @pytest.mark.parametrize("payload", [{"amount": 100}, {"amount": 101}])
    def test_an_old_key_never_charges_again(self, is_answered: bool, payload: dict[str, int]) -> None:
        held = claim()
        if is_answered:
            finish(held)
        grow_old(31)
        assert bury_old_keys() == 1
        assert IdempotencyKey.objects.get().answer is None
        kill_first_request()
        with pytest.raises(IdempotencyExpiredError):
            claim(payload)

    def test_a_key_is_forgotten_after_thirteen_months(self) -> None:
        finish(claim())
        grow_old(397)
        bury_old_keys()
        assert not IdempotencyKey.objects.exists()


class TestFingerprint:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"a": 1, "b": [1, {"x": 1, "y": 2}]}, {"b": [1, {"y": 2, "x": 1}], "a": 1}),
            ({"name": "Zo\u00eb"}, {"name": "Zoë"}),
            ({"emoji": "\U0001f3e6"}, {"emoji": "🏦"}),
        ],
    )
    def test_the_order_of_members_and_the_way_of_writing_do_not_count(self, one: Any, other: Any) -> None:
        assert fingerprint(one) == fingerprint(other)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"a": 1}, {"a": "1"}),
            ({"a": 1}, {"a": True}),
            ({"a": None}, {}),
            ({"a": [1, 2]}, {"a": [2, 1]}),
            ({"a": "é"}, {"a": "e\u0301"}),
            ({"a": {"b": 1}}, {"a.b": 1}),
        ],
    )
    def test_a_difference_that_may_matter_counts(self, one: Any, other: Any) -> None:
        assert fingerprint(one) != fingerprint(other)

    @pytest.mark.parametrize("payload", [{"amount": float("nan")}, {"amount": float("inf")}])
    def test_what_is_no_number_is_refused(self, payload: Any) -> None:
        with pytest.raises(ValueError, match="not JSON compliant"):
            fingerprint(payload)

    def test_what_json_cannot_say_is_refused(self) -> None:
        with pytest.raises(TypeError):
            fingerprint({"amount": object()})


@pytest.mark.django_db(transaction=True)
@pytest.mark.concurrency
class TestThreads:
    def race(self, number: int) -> list[Claim | IdempotencyInFlightError]:
        barrier = Barrier(number)

        def work(_: int) -> Claim | IdempotencyInFlightError:
            barrier.wait()
            try:
                return claim()
            except IdempotencyInFlightError as refusal:
                return refusal

        return run_in_threads(work, number)

    def test_of_fifty_threads_one_wins_and_the_others_wait(self) -> None:
        winners = [result for result in self.race(50) if isinstance(result, Claim)]
        assert [winner.is_new for winner in winners] == [True]

    def test_of_twenty_threads_one_takes_over_from_the_dead(self) -> None:
        attach(claim(), "ord_1")
        kill_first_request()
        winners = [result for result in self.race(20) if isinstance(result, Claim)]
        assert [(winner.is_new, winner.resource) for winner in winners] == [(False, "ord_1")]

    def test_two_that_think_they_hold_the_key_make_one_thing(self) -> None:
        held = claim()
        barrier = Barrier(20)

        def work(index: int) -> bool:
            barrier.wait()
            try:
                with transaction.atomic():
                    attach(held, f"ord_{index}")
            except IdempotencyInFlightError:
                return False
            return True

        assert sum(run_in_threads(work, 20)) == 1


@pytest.mark.django_db
class TestDecorator:
    @pytest.fixture
    def ran(self) -> list[int]:
        return []

    @pytest.fixture
    def payout(self, ran: list[int]) -> Callable[..., dict[str, int]]:
        @idempotent(scope="payouts", key=lambda batch, amount: batch)
        def payout(batch: str, amount: int) -> dict[str, int]:
            if amount < 0:
                raise ValueError("negative")
            ran.append(amount)
            return {"paid": amount}

        return payout

    def test_runs_once_and_returns_the_same_again(
        self, payout: Callable[..., dict[str, int]], ran: list[int]
    ) -> None:
        assert payout("b1", 5) == payout("b1", 5) == {"paid": 5}
        assert ran == [5]

    def test_another_key_runs_again(self, payout: Callable[..., dict[str, int]], ran: list[int]) -> None:
        payout("b1", 5)
        payout("b2", 5)
        assert ran == [5, 5]

    def test_the_same_key_with_other_arguments_is_refused(
        self, payout: Callable[..., dict[str, int]], ran: list[int]
    ) -> None:
        payout("b1", 5)
        with pytest.raises(IdempotencyConflictError):
            payout("b1", 6)
        assert ran == [5]

    def test_an_exception_frees_the_key(self, payout: Callable[..., dict[str, int]], ran: list[int]) -> None:
        with pytest.raises(ValueError, match="negative"):
            payout("b1", -1)
        assert payout("b1", 5) == {"paid": 5}

    def test_keeps_its_name(self, payout: Callable[..., dict[str, int]]) -> None:
        assert payout.__name__ == "payout"
