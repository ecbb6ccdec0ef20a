"""The kill switch: rows that every process obeys, that Redis cannot lose, and that let money under way finish."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest
from django.db import DatabaseError, connection
from prometheus_client import REGISTRY

from payments.errors import ConflictError, GatewayTimeoutError, GatewayUnavailableError
from payments.gateways import kill_switch, resilience
from payments.gateways.base import FetchRequest, PaymentGateway, RefundRequest, VoidRequest
from payments.gateways.breaker import MIN_CALLS
from payments.gateways.kill_switch import FRESH_SECONDS, SwitchBoard, switch_board
from payments.gateways.resilience import account_state, breaker_states, switch_off, switch_on, wrap_gateway
from payments.kinds import OperationKind
from payments.models import GatewayAccount
from tests.factories.payments import GatewayAccountFactory
from tests.payments.gateways.conftest import forget
from tests.payments.gateways.fakes import AUTHORIZED, CAPTURE, CHARGE, EUROS, FakeClock, ScriptedGateway

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("_no_backoff")]


@pytest.fixture
def account() -> Iterator[GatewayAccount]:
    account = GatewayAccountFactory(name="kill-switch")
    yield account
    forget(f"gateway-breaker:{account}*", f"LIMITS*{account}*")
    switch_board().forget()


def wrap(account: GatewayAccount, *outcomes: object, board: SwitchBoard | None = None) -> PaymentGateway:
    find = (board or switch_board()).find
    return wrap_gateway(
        ScriptedGateway(*(outcomes or [AUTHORIZED])), name=str(account), find_switch=lambda: find(account.pk)
    )


def test_it_stops_new_payments_and_lets_the_rest_finish(account: GatewayAccount) -> None:
    wrapped = wrap(account)
    switch_off(account, by="user:ann", reason="Doubled charges")
    with pytest.raises(GatewayUnavailableError, match="switched off by user:ann: the authorize was not sent"):
        wrapped.authorize(CHARGE)
    wrapped.capture(CAPTURE)
    wrapped.void(VoidRequest("key-3", "op_3", "pi_1", EUROS))
    wrapped.refund(RefundRequest("key-4", "op_4", "pi_1", EUROS))
    wrapped.fetch(FetchRequest(OperationKind.AUTHORIZE, "op_1"))
    switch_on(account, by="user:bob", reason="Repaired")
    assert wrapped.authorize(CHARGE) is AUTHORIZED


def test_the_row_says_who_when_and_why(account: GatewayAccount) -> None:
    switch_off(account, by="user:ann", reason="Doubled charges")
    account.refresh_from_db()
    assert (account.switched_off_by, account.switched_off_reason) == ("user:ann", "Doubled charges")
    state = account_state(account)
    assert (state.state, state.by, state.reason) == ("open", "user:ann", "Doubled charges")
    assert state.opened_at == account.switched_off_at.timestamp()  # type: ignore[union-attr]
    assert state in breaker_states()


def test_emptying_redis_opens_nothing(account: GatewayAccount) -> None:
    switch_off(account, by="user:ann", reason="x")
    forget(f"gateway-breaker:{account}*")
    with pytest.raises(GatewayUnavailableError):
        wrap(account, board=SwitchBoard()).authorize(CHARGE)


def test_another_process_obeys_within_seconds(account: GatewayAccount) -> None:
    clock = FakeClock(0.0)
    elsewhere = SwitchBoard(clock)
    wrapped = wrap(account, board=elsewhere)
    assert wrapped.authorize(CHARGE) is AUTHORIZED
    switch_off(account, by="user:ann", reason="x")
    clock.advance(FRESH_SECONDS)
    with pytest.raises(GatewayUnavailableError):
        wrapped.authorize(CHARGE)
    assert FRESH_SECONDS < 5


def test_a_process_asks_the_database_once_in_a_while(
    account: GatewayAccount, django_assert_num_queries: Callable[..., object]
) -> None:
    board = SwitchBoard(FakeClock(0.0))
    with django_assert_num_queries(1):  # type: ignore[attr-defined]
        for _ in range(10):
            board.find(account.pk)


def test_without_the_database_the_last_knowledge_counts(
    account: GatewayAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(0.0)
    board = SwitchBoard(clock)
    switch_off(account, by="user:ann", reason="x")
    assert board.find(account.pk)

    def fail() -> None:
        raise DatabaseError

    monkeypatch.setattr(kill_switch, "read_switches", fail)
    clock.advance(FRESH_SECONDS)
    assert board.find(account.pk)


def test_it_outlasts_trips_and_recoveries(account: GatewayAccount) -> None:
    wrapped = wrap(account, *[GatewayTimeoutError()] * MIN_CALLS, AUTHORIZED)
    switch_off(account, by="user:ann", reason="x")
    for _ in range(MIN_CALLS):
        with pytest.raises(GatewayTimeoutError):
            wrapped.capture(CAPTURE)
    resilience.breaker_store().recover(str(account), 0.0)
    with pytest.raises(GatewayUnavailableError, match="switched off"):
        wrapped.authorize(CHARGE)


def test_allowing_closes_a_tripped_breaker_too(account: GatewayAccount) -> None:
    resilience.breaker_store().trip(str(account), FakeClock()())
    switch_on(account, by="user:ann", reason="It answers again")
    assert account_state(account).state == "closed"


def test_what_is_done_is_not_done_again(account: GatewayAccount) -> None:
    with pytest.raises(ConflictError, match="takes new payments already"):
        switch_on(account, by="user:ann", reason="x")
    switch_off(account, by="user:ann", reason="first")
    with pytest.raises(ConflictError, match="was switched off before"):
        switch_off(GatewayAccount.objects.get(pk=account.pk), by="user:bob", reason="second")
    account.refresh_from_db()
    assert account.switched_off_reason == "first"


@pytest.mark.concurrency
@pytest.mark.django_db(transaction=True)
def test_of_two_hands_one_switches(account: GatewayAccount) -> None:
    ends: list[str] = []

    def press(by: str) -> None:
        try:
            switch_off(GatewayAccount.objects.get(pk=account.pk), by=by, reason="x")
            ends.append(by)
        except ConflictError:
            ends.append("refused")
        finally:
            connection.close()

    threads = [Thread(target=press, args=[by]) for by in ("user:ann", "user:bob")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    account.refresh_from_db()
    assert sorted(ends) == sorted(["refused", account.switched_off_by])


OBEY_ELSEWHERE = """
import sys, time

import django

django.setup()
from django.conf import settings

settings.DATABASES["default"]["NAME"] = sys.argv[1]
from payments.errors import GatewayUnavailableError
from payments.gateways.kill_switch import switch_board
from payments.gateways.resilience import wrap_gateway
from tests.payments.gateways.fakes import AUTHORIZED, CHARGE, ScriptedGateway

wrapped = wrap_gateway(
    ScriptedGateway(AUTHORIZED), name=sys.argv[3], find_switch=lambda: switch_board().find(sys.argv[2])
)
wrapped.authorize(CHARGE)
print("sent", flush=True)
sys.stdin.readline()
until = time.monotonic() + 50
while time.monotonic() < until:
    try:
        wrapped.authorize(CHARGE)
    except GatewayUnavailableError:
        print("refused", flush=True)
        break
    time.sleep(0.05)
"""


@pytest.mark.concurrency
@pytest.mark.django_db(transaction=True)
def test_a_process_that_runs_already_obeys(account: GatewayAccount) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OBEY_ELSEWHERE, connection.settings_dict["NAME"], account.pk, str(account)],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "sent\n"
        switch_off(account, by="user:ann", reason="x")
        said, _ = process.communicate("go\n", timeout=60)
    assert said == "refused\n"


def test_a_refusal_is_counted(account: GatewayAccount) -> None:
    labels = {"gateway": str(account), "op": "authorize", "reason": "switched_off"}
    before = REGISTRY.get_sample_value("payments_gateway_refusals_total", labels) or 0
    switch_off(account, by="user:ann", reason="x")
    with pytest.raises(GatewayUnavailableError):
        wrap(account).authorize(CHARGE)
    assert REGISTRY.get_sample_value("payments_gateway_refusals_total", labels) == before + 1
