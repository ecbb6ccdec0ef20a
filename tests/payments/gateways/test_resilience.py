"""The stack around a gateway: what is sent again, what never, what is refused, and what is written down."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY
from pytest_django import Settings

from payments.errors import (
    GatewayTimeoutError,
    GatewayUnavailableError,
    InvalidRequestError,
    NetworkError,
    PaymentError,
    RateLimitedError,
)
from payments.gateways import resilience
from payments.gateways.base import ChargeRequest, ChargeResult, ChargeStatus, FetchRequest
from payments.gateways.breaker import MIN_CALLS
from payments.gateways.resilience import ATTEMPTS, wrap_gateway
from payments.gateways.stripe import StripeGateway
from payments.kinds import OperationKind
from payments.sandbox import Sandbox
from tests.payments.gateways.contract import Shop
from tests.payments.gateways.fakes import AUTHORIZED, CAPTURE, CHARGE, DECLINED, ScriptedGateway
from tests.payments.gateways.test_stripe_contract import SandboxWorld

pytestmark = pytest.mark.usefixtures("_no_backoff")
ROOT = Path(__file__).resolve().parents[3]
SHARED = (
    resilience.breaker_store,
    resilience.redis_health,
    resilience.redis_pool,
    resilience.local_limiter,
    resilience.shared_limiter,
)


@pytest.fixture
def dead_redis(name: str, settings: Settings) -> Iterator[None]:
    """A Redis address where nobody listens."""
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        settings.REDIS_URL = f"redis://127.0.0.1:{unused.getsockname()[1]}/0"
        for shared in SHARED:
            shared.cache_clear()
        yield
    for shared in SHARED:
        shared.cache_clear()


# --- retry --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [NetworkError(), RateLimitedError()])
def test_what_surely_did_not_happen_is_sent_again_with_the_same_key(name: str, error: PaymentError) -> None:
    gateway = ScriptedGateway(error, error, AUTHORIZED)
    assert wrap_gateway(gateway, name=name).authorize(CHARGE) is AUTHORIZED
    assert gateway.requests == [CHARGE, CHARGE, CHARGE]


def test_it_gives_up_after_three_attempts(name: str) -> None:
    gateway = ScriptedGateway(NetworkError("nobody there"))
    with pytest.raises(NetworkError, match="nobody there"):
        wrap_gateway(gateway, name=name).authorize(CHARGE)
    assert len(gateway.requests) == ATTEMPTS


@pytest.mark.parametrize("error", [GatewayTimeoutError(), InvalidRequestError(), ValueError("a bug")])
def test_nothing_else_is_sent_again(name: str, error: Exception) -> None:
    gateway = ScriptedGateway(error)
    with pytest.raises(type(error)):
        wrap_gateway(gateway, name=name).authorize(CHARGE)
    assert len(gateway.requests) == 1


def test_a_decline_is_never_sent_again(name: str) -> None:
    gateway = ScriptedGateway(DECLINED, AUTHORIZED)
    assert wrap_gateway(gateway, name=name).authorize(CHARGE) is DECLINED
    assert len(gateway.requests) == 1


def test_a_question_may_be_asked_again_after_a_timeout(name: str) -> None:
    gateway = ScriptedGateway(GatewayTimeoutError(), AUTHORIZED)
    request = FetchRequest(OperationKind.AUTHORIZE, "op_1")
    assert wrap_gateway(gateway, name=name).fetch(request) is AUTHORIZED


# --- over real sockets --------------------------------------------------------------------------------------


class Unreachable:
    """A Stripe account whose address is dead for the first calls."""

    def __init__(self, gateway: StripeGateway, times: int) -> None:
        self.capabilities = gateway.capabilities
        self._gateway = gateway
        self._times = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gateway, name)

    def authorize(self, request: ChargeRequest) -> ChargeResult:
        self._times -= 1
        if self._times < 0:
            return self._gateway.authorize(request)
        with closing(socket.socket()) as unused:
            unused.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{unused.getsockname()[1]}"
            return StripeGateway("sk_test_x", api_base=address).authorize(request)


def test_two_network_errors_are_overcome_with_one_charge(name: str, sandbox: Sandbox) -> None:
    stripe = StripeGateway("sk_test_x", api_base=sandbox.url)
    world = SandboxWorld(sandbox)
    shop = Shop(wrap_gateway(Unreachable(stripe, times=2), name=name), world)
    assert shop.authorize().status is ChargeStatus.AUTHORIZED
    assert world.count_movements(shop.operation_id)["charges"] == 1


def test_two_refusals_for_haste_are_overcome_with_one_charge(name: str, sandbox: Sandbox) -> None:
    stripe = StripeGateway("sk_test_x", api_base=sandbox.url)
    world = SandboxWorld(sandbox)
    shop = Shop(wrap_gateway(stripe, name=name), world)
    world.fail_next("authorize", "429", operation_id=shop.operation_id, times=2)
    assert shop.authorize().status is ChargeStatus.AUTHORIZED
    assert world.count_movements(shop.operation_id)["charges"] == 1


# --- breaker ------------------------------------------------------------------------------------------------


def test_a_failing_gateway_is_left_alone(name: str) -> None:
    gateway = ScriptedGateway(GatewayTimeoutError())
    wrapped = wrap_gateway(gateway, name=name)
    for _ in range(MIN_CALLS):
        with pytest.raises(GatewayTimeoutError):
            wrapped.authorize(CHARGE)
    with pytest.raises(GatewayUnavailableError):
        wrapped.capture(CAPTURE)
    assert len(gateway.requests) == MIN_CALLS


def test_retries_count_as_one_call(name: str) -> None:
    wrapped = wrap_gateway(ScriptedGateway(NetworkError()), name=name)
    with pytest.raises(NetworkError):
        wrapped.authorize(CHARGE)
    tally = resilience.breaker_store().tally(name, time.time())
    assert (tally.calls, tally.failures) == (1, 1)


@pytest.mark.usefixtures("dead_redis")
def test_without_redis_calls_go_on(name: str) -> None:
    assert wrap_gateway(ScriptedGateway(AUTHORIZED), name=name).authorize(CHARGE) is AUTHORIZED


# --- rate limit ---------------------------------------------------------------------------------------------


def exhaust(name: str) -> None:
    gateway = ScriptedGateway(AUTHORIZED)
    wrapped = wrap_gateway(gateway, name=name)
    wrapped.authorize(CHARGE)
    wrapped.authorize(CHARGE)
    with pytest.raises(RateLimitedError, match="was not sent"):
        wrapped.authorize(CHARGE)
    assert len(gateway.requests) == 2


def test_an_account_is_not_asked_more_often_than_it_allows(name: str, settings: Settings) -> None:
    settings.GATEWAY_RATE_LIMIT = "2/hour"
    exhaust(name)
    with pytest.raises(RateLimitedError):  # another instance, as in another process: the count is in Redis
        wrap_gateway(ScriptedGateway(AUTHORIZED), name=name).authorize(CHARGE)
    wrap_gateway(ScriptedGateway(AUTHORIZED), name=f"{name}-other").authorize(CHARGE)


@pytest.mark.usefixtures("dead_redis")
def test_the_limit_holds_in_each_process_without_redis(name: str, settings: Settings) -> None:
    settings.GATEWAY_RATE_LIMIT = "2/hour"
    exhaust(name)


def test_an_account_may_have_a_limit_of_its_own(name: str, settings: Settings) -> None:
    settings.GATEWAY_RATE_LIMIT = "1/hour"
    wrapped = wrap_gateway(ScriptedGateway(AUTHORIZED), name=name, limit="2/hour")
    wrapped.authorize(CHARGE)
    wrapped.authorize(CHARGE)
    with pytest.raises(RateLimitedError, match="2 per 1 hour"):
        wrapped.authorize(CHARGE)


def test_a_limit_that_cannot_be_read_stops_nothing_and_is_logged(name: str, settings: Settings) -> None:
    settings.GATEWAY_RATE_LIMIT = "1/hour"
    wrapped = wrap_gateway(ScriptedGateway(AUTHORIZED), name=name, limit="plenty")
    with structlog.testing.capture_logs() as logs:
        assert wrapped.authorize(CHARGE) is AUTHORIZED
    assert "gateway_rate_limit_unreadable" in [line["event"] for line in logs]
    with pytest.raises(RateLimitedError):
        wrapped.authorize(CHARGE)


CHARGE_ELSEWHERE = """
import sys

import django

django.setup()
from payments.errors import RateLimitedError
from payments.gateways import resilience
from payments.gateways.resilience import wrap_gateway
from tests.payments.gateways.fakes import AUTHORIZED, CHARGE, ScriptedGateway

resilience.REDIS_PATIENCE = {"socket_connect_timeout": 30, "socket_timeout": 30}
gateway = ScriptedGateway(AUTHORIZED)
wrapped = wrap_gateway(gateway, name=sys.argv[1], limit="3/hour")
for _ in range(3):
    try:
        wrapped.authorize(CHARGE)
    except RateLimitedError:
        pass
print(len(gateway.requests))
"""


def test_processes_share_one_limit(name: str, settings: Settings) -> None:
    if not settings.REDIS_URL:
        pytest.skip("there is no Redis on this platform")
    here = wrap_gateway(ScriptedGateway(AUTHORIZED), name=name, limit="3/hour")
    here.authorize(CHARGE)
    there = subprocess.run(
        [sys.executable, "-c", CHARGE_ELSEWHERE, name],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert there.stdout.split()[-1] == "2"
    with pytest.raises(RateLimitedError):
        here.authorize(CHARGE)


# --- what is written down -----------------------------------------------------------------------------------


def test_every_attempt_leaves_a_line(name: str) -> None:
    wrapped = wrap_gateway(ScriptedGateway(NetworkError(), DECLINED), name=name)
    with structlog.testing.capture_logs() as logs:
        wrapped.authorize(CHARGE)
    lines = [line for line in logs if line["event"] == "gateway_call"]
    assert [line["outcome"] for line in lines] == ["network_error", "declined"]
    assert all(
        (line["gateway"], line["operation"], line["operation_id"]) == (name, "authorize", "op_1")
        for line in lines
    )
    assert all(isinstance(line["ms"], int) for line in lines)
    assert not any(CHARGE.payment_method in str(line) or CHARGE.key in str(line) for line in lines)


@pytest.mark.parametrize(
    ("outcome", "label"),
    [
        (AUTHORIZED, "authorized"),
        (DECLINED, "declined"),
        (GatewayTimeoutError(), "gateway_timeout"),
        (ValueError(), "bug"),
    ],
)
def test_every_call_is_measured_by_its_outcome(name: str, outcome: Any, label: str) -> None:
    wrapped = wrap_gateway(ScriptedGateway(outcome), name=name)
    if isinstance(outcome, Exception):
        with pytest.raises(type(outcome)):
            wrapped.authorize(CHARGE)
    else:
        wrapped.authorize(CHARGE)
    labels = {"gateway": name, "op": "authorize", "outcome": label}
    assert REGISTRY.get_sample_value("payments_gateway_seconds_count", labels) == 1


def test_a_refusal_of_the_breaker_is_measured_too(name: str) -> None:
    resilience.breaker_store().trip(name, time.time())
    with pytest.raises(GatewayUnavailableError):
        wrap_gateway(ScriptedGateway(AUTHORIZED), name=name).authorize(CHARGE)
    labels = {"gateway": name, "op": "authorize", "outcome": "gateway_unavailable"}
    assert REGISTRY.get_sample_value("payments_gateway_seconds_count", labels) == 1
    refused = {"gateway": name, "op": "authorize", "reason": "failing"}
    assert REGISTRY.get_sample_value("payments_gateway_refusals_total", refused) == 1


def test_each_wait_for_the_limit_is_counted(name: str) -> None:
    wrapped = wrap_gateway(ScriptedGateway(AUTHORIZED), name=name, limit="1/hour")
    wrapped.authorize(CHARGE)
    with pytest.raises(RateLimitedError):
        wrapped.authorize(CHARGE)
    labels = {"gateway": name, "op": "authorize"}
    assert REGISTRY.get_sample_value("payments_gateway_rate_limit_waits_total", labels) == ATTEMPTS


def test_an_absent_operation_has_an_outcome_of_its_own(name: str) -> None:
    wrapped = wrap_gateway(ScriptedGateway(None), name=name)
    assert wrapped.fetch(FetchRequest(OperationKind.VOID, "op_1")) is None
    labels = {"gateway": name, "op": "fetch", "outcome": "absent"}
    assert REGISTRY.get_sample_value("payments_gateway_seconds_count", labels) == 1


def test_reading_an_event_needs_no_network_and_no_breaker(name: str) -> None:
    resilience.breaker_store().trip(name, time.time())
    assert wrap_gateway(ScriptedGateway(AUTHORIZED), name=name).read_event({}) == []
