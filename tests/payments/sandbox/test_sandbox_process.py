"""The gateway as a process: it needs no Django, stops cleanly, and forgets nothing when it is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from payments.sandbox import start

ROOT = Path(__file__).parents[3]
HEADERS = {"Authorization": "Bearer sk_test_x"}
Launch = Callable[[], tuple[subprocess.Popen[str], str]]
PAYMENT = {"amount": "1000", "currency": "eur", "confirm": "true", "payment_method": "pm_card_visa"}


def spawn(data: Path, ready: Path) -> tuple[subprocess.Popen[str], str]:
    ready.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "payments.sandbox",
        "--port",
        "0",
        "--data",
        str(data),
        "--ready-file",
        str(ready),
    ]
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not ready.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process, json.loads(ready.read_text())["url"]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    started = []

    def launch_gateway() -> tuple[subprocess.Popen[str], str]:
        process, url = spawn(tmp_path / "data", tmp_path / "ready.json")
        started.append(process)
        return process, url

    yield launch_gateway
    for process in started:
        process.kill()
        process.communicate()


def pay(url: str, key: str) -> requests.Response:
    headers = {**HEADERS, "Idempotency-Key": key}
    return requests.post(f"{url}/v1/payment_intents", data=PAYMENT, headers=headers, timeout=60)


@pytest.mark.faults
def test_what_was_answered_outlives_kill_9(launch: Launch) -> None:
    process, url = launch()
    answers = {f"k-{number}": pay(url, f"k-{number}").content for number in range(20)}
    process.kill()
    process.wait()
    _, url = launch()
    assert {key: pay(url, key).content for key in answers} == answers
    assert requests.get(url + "/_books", timeout=60).json()["totals"]["eur"]["charges"] == 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly(launch: Launch, number: int) -> None:
    process, url = launch()
    assert pay(url, "k-1").status_code == 200
    process.send_signal(number)
    assert process.wait(120) == 0


def test_two_gateways_never_share_their_books(launch: Launch, tmp_path: Path) -> None:
    launch()
    command = [sys.executable, "-m", "payments.sandbox", "--port", "0", "--data", str(tmp_path / "data")]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert "cannot start" in second.stdout


def test_the_gateway_imports_nothing_of_the_project(tmp_path: Path) -> None:
    code = (
        "import sys, payments.sandbox.__main__; "
        "ours = [m for m in sys.modules if m.split('.')[0] in ('payments', 'config', 'django')]; "
        "assert all(m == 'payments' or m.startswith('payments.sandbox') for m in ours), ours"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_a_stopped_gateway_takes_no_more_requests_on_an_open_connection() -> None:
    with start() as running, requests.Session() as session:
        session.headers.update(HEADERS)
        assert session.get(running.url + "/v1/balance", timeout=60).status_code == 200
        running.stop()
        with pytest.raises(requests.ConnectionError):
            session.get(running.url + "/v1/balance", timeout=60)
