"""A process that froze in a call to the gateway and wakes up after its saga was taken over does no harm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.journeys.shop import ROOT, Shop

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("operation", ["authorize", "capture"])
@pytest.mark.parametrize("moment", ["frozen_before_gateway", "frozen_after_gateway"])
def test_a_process_that_wakes_too_late_changes_nothing(shop: Shop, operation: str, moment: str) -> None:
    name = f"zombie-{operation}-{moment.replace('_', '-')}"
    plan = {"reference": name, "point": f"{operation}.{moment}", "lease": 2}
    command = [sys.executable, "-m", "tests.faults.victim"]
    with subprocess.Popen(
        command, env=shop.env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as victim:
        assert victim.stdin is not None
        assert victim.stdout is not None
        victim.stdin.write(json.dumps([plan]))
        victim.stdin.close()
        frozen = json.loads(victim.stdout.readline())
        assert frozen["ended"] is None
        [(order_id,)] = shop.sql("SELECT id FROM payments_order WHERE reference = %s", name)
        shop.await_state(order_id, "paid")  # another worker took over
        before = shop.get(f"orders/{order_id}")
        os.kill(frozen["pid"], signal.SIGCONT)
        assert json.loads(victim.stdout.readline())["ended"] == 0
    intent = shop.intent(order_id)
    assert (intent["charges"], intent["captures"], intent["captured"]) == (1, 1, 12950)
    assert shop.get(f"orders/{order_id}") == before
