"""kill -9 at every step boundary of the checkout: the sweeper makes each order whole, and nothing happens twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.journeys.shop import ROOT, Shop
from tests.journeys.waiting import wait_until

pytestmark = pytest.mark.faults

PART = 4000  # of what the victims capture in part
MOMENTS = ("before_intent", "after_intent", "after_gateway", "after_outcome")
FORWARD = [f"{operation}.{moment}" for operation in ("authorize", "capture") for moment in MOMENTS]
BACK = [f"refund.{moment}" for moment in MOMENTS]
PARTS = [f"part.{moment}" for moment in MOMENTS]
RESTS = [f"rest.{moment}" for moment in MOMENTS]
SHORT_LEASE, DEFAULT_LEASE = 2, 30
GOES_ON_WITHIN_SECONDS = 40  # of its end, with the default lease
# How many seconds after a moment a run was written again: in its diary, or at its end.
IDLE = """SELECT extract(epoch FROM coalesce(min(event.at), max(run.updated_at))) - %s FROM payments_sagarun run
    LEFT JOIN payments_sagaevent event ON event.run_id = run.id AND event.at > to_timestamp(%s)
    WHERE run.order_id = %s"""
UNFINISHED = "SELECT kind, state, step FROM payments_sagarun WHERE order_id = %s AND state <> ALL(%s)"


def plan(point: str, lease: int, country: str = "DE") -> dict[str, Any]:
    return {"reference": reference(point, lease), "point": point, "lease": lease, "country": country}


def reference(point: str, lease: int) -> str:
    return f"killed-{point.replace('.', '-').replace('_', '-')}-{lease}"


PLANS = [
    *(plan(point, DEFAULT_LEASE) for point in FORWARD),
    plan("order.before_intent", SHORT_LEASE),
    plan("screen.before_screening", SHORT_LEASE),
    *(plan(point, SHORT_LEASE) for point in FORWARD),
    *(plan(point, SHORT_LEASE, country="AQ") for point in BACK),  # where no shipment goes
    *(plan(point, SHORT_LEASE) for point in (*PARTS, *RESTS)),
]


@pytest.fixture(scope="module")
def killed_at(shop: Shop) -> dict[str, float]:
    """When the process of each order was killed (Unix seconds), by reference; each ends at its point."""
    command = [sys.executable, "-m", "tests.faults.victim"]
    done = subprocess.run(
        command, input=json.dumps(PLANS), env=shop.env, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    ended = {line["reference"]: line["ended"] for line in lines}
    assert ended == {item["reference"]: -signal.SIGKILL for item in PLANS}, done.stderr
    return {line["reference"]: line["at"] for line in lines}


def find_order(shop: Shop, name: str) -> str:
    [(order_id,)] = shop.sql("SELECT id FROM payments_order WHERE reference = %s", name)
    return str(order_id)


def await_whole(shop: Shop, name: str, state: str) -> dict[str, Any]:
    order_id = find_order(shop, name)

    def unfinished() -> list[tuple[Any, ...]]:
        return shop.sql(UNFINISHED, order_id, ["COMPLETED", "COMPENSATED"])

    wait_until(lambda: not unfinished(), what=unfinished)  # its state alone may be that from before
    assert shop.get(f"orders/{order_id}")["state"] == state
    return shop.intent(order_id)


def test_a_checkout_killed_before_its_first_commit_leaves_nothing(
    shop: Shop, killed_at: dict[str, float]
) -> None:
    name = reference("order.before_intent", SHORT_LEASE)
    assert shop.sql("SELECT count(*) FROM payments_order WHERE reference = %s", name) == [(0,)]


@pytest.mark.parametrize("point", ["screen.before_screening", *FORWARD])
def test_a_killed_checkout_is_paid_exactly_once(shop: Shop, killed_at: dict[str, float], point: str) -> None:
    intent = await_whole(shop, reference(point, SHORT_LEASE), "paid")
    assert (intent["charges"], intent["captures"], intent["captured"]) == (1, 1, 12950)
    assert (intent["released"], intent["refunds"]) == (0, 0)


@pytest.mark.parametrize("point", BACK)
def test_a_killed_compensation_refunds_exactly_once(
    shop: Shop, killed_at: dict[str, float], point: str
) -> None:
    intent = await_whole(shop, reference(point, SHORT_LEASE), "canceled")
    assert (intent["charges"], intent["captured"], intent["refunds"], intent["refunded"]) == (
        1,
        12950,
        1,
        12950,
    )


@pytest.mark.parametrize("point", PARTS)
def test_a_killed_capture_in_part_is_done_once_or_not_begun(
    shop: Shop, killed_at: dict[str, float], point: str
) -> None:
    intent = await_whole(shop, reference(point, SHORT_LEASE), "processing")
    captures = 0 if point == "part.before_intent" else 1  # without its intent nothing had been promised
    assert (intent["charges"], intent["captures"], intent["captured"]) == (1, captures, PART * captures)
    assert intent["released"] == 0


@pytest.mark.parametrize("point", RESTS)
def test_a_killed_release_of_the_rest_is_done_once_or_not_begun(
    shop: Shop, killed_at: dict[str, float], point: str
) -> None:
    is_begun = point != "rest.before_intent"
    state = "paid" if is_begun else "processing"
    intent = await_whole(shop, reference(point, SHORT_LEASE), state)
    assert (intent["captures"], intent["captured"]) == (1, PART)
    assert (intent["cancels"], intent["released"]) == ((1, 12950 - PART) if is_begun else (0, 0))


@pytest.mark.parametrize("point", FORWARD)
def test_a_killed_checkout_goes_on_within_40_seconds_with_the_default_lease(
    shop: Shop, killed_at: dict[str, float], point: str
) -> None:
    name = reference(point, DEFAULT_LEASE)
    intent = await_whole(shop, name, "paid")
    [(idle,)] = shop.sql(IDLE, killed_at[name], killed_at[name], find_order(shop, name))
    assert idle <= GOES_ON_WITHIN_SECONDS
    assert (intent["charges"], intent["captures"], intent["captured"]) == (1, 1, 12950)


def test_the_ledger_holds_after_all_of_it(shop: Shop, killed_at: dict[str, float]) -> None:
    shop.assert_books_hold()
