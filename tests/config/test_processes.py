"""Child processes: they end when told, come back when they die, and never outlive their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config.processes import Process, ProcessError, Supervisor

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('up', flush=True); time.sleep(600)",
]
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""
SUPERVISOR = """
import sys, time
from pathlib import Path
from config.processes import Process
child = Process("child", [sys.executable, "-c", "import time; time.sleep(600)"], Path(sys.argv[1]))
child.start()
print(child.child.pid, flush=True)
time.sleep(600)
"""


def eventually(condition: Callable[[], bool], seconds: float = 120.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def alive(pid: int) -> bool:
    """A zombie is dead; only its parent has not looked yet."""
    status = Path(f"/proc/{pid}/stat")
    try:
        os.kill(pid, 0)
        return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
    except (ProcessLookupError, FileNotFoundError):
        return False


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    made: list[Process] = []

    def build(command: list[str], *, essential: bool = False) -> Process:
        process = Process("child", command, tmp_path / "child.log", essential=essential)
        made.append(process)
        return process

    yield build
    for process in made:
        process.stop(0)


def up(process: Process) -> bool:
    return process.log.exists() and "up" in process.log.read_text()


def test_a_process_ends_when_it_is_stopped_and_says_so(make: Callable[..., Process]) -> None:
    process = make(SLEEP)
    process.start()
    process.wait_until(lambda: up(process), 120)
    assert process.running()
    process.stop()
    assert not process.running()


def test_a_process_that_ignores_the_signal_is_killed(make: Callable[..., Process]) -> None:
    process = make(STUBBORN)
    process.start()
    process.wait_until(lambda: up(process), 120)
    process.stop(seconds=0.1)
    assert not process.running()


def test_stopping_takes_the_children_of_the_child_along(make: Callable[..., Process]) -> None:
    process = make([sys.executable, "-c", PARENT])
    process.start()
    process.wait_until(lambda: process.log.read_text().endswith("\n"), 120)
    grandchild = int(process.log.read_text())
    assert alive(grandchild)
    process.stop()
    assert eventually(lambda: not alive(grandchild))


def test_waiting_for_a_process_that_ends_raises_with_its_last_words(make: Callable[..., Process]) -> None:
    process = make([sys.executable, "-c", "import sys; sys.exit('no licence today')"])
    process.start()
    with pytest.raises(ProcessError, match="no licence today"):
        process.wait_until(lambda: False, 120)


def test_waiting_for_a_process_that_never_gets_ready_raises(make: Callable[..., Process]) -> None:
    process = make(SLEEP)
    process.start()
    with pytest.raises(ProcessError, match="not ready within 0 s"):
        process.wait_until(lambda: False, 0)


def test_a_dead_process_comes_back_after_a_pause_that_grows(make: Callable[..., Process]) -> None:
    clock, said = Clock(), list[str]()
    supervisor = Supervisor(said.append, clock)
    process = supervisor.start(make([sys.executable, "-c", "raise SystemExit(3)"]))
    pauses = []
    for _ in range(3):
        assert eventually(lambda: not process.running())
        supervisor.check()
        pause = 0.0
        while process.child is None:
            clock.now += 0.25
            pause += 0.25
            supervisor.check()
        pauses.append(pause)
    assert pauses == [0.5, 1.0, 2.0]
    assert "exit code 3" in said[0]


def test_who_ran_long_enough_comes_back_with_the_shortest_pause(
    make: Callable[..., Process],
) -> None:
    clock, said = Clock(), list[str]()
    supervisor = Supervisor(said.append, clock)
    process = supervisor.start(make([sys.executable, "-c", "raise SystemExit(3)"]))
    for _ in range(2):
        assert eventually(lambda: not process.running())
        clock.now += 61
        supervisor.check()
        clock.now += 0.5
        supervisor.check()
        assert process.child is not None


def test_the_death_of_an_essential_process_is_the_end(make: Callable[..., Process]) -> None:
    supervisor = Supervisor(lambda _: None)
    process = supervisor.start(make(SLEEP, essential=True))
    supervisor.check()
    assert process.child is not None
    process.child.kill()
    assert eventually(lambda: not process.running())
    with pytest.raises(ProcessError, match="child died"):
        supervisor.check()


def test_processes_are_stopped_the_youngest_first(tmp_path: Path) -> None:
    order = tmp_path / "order"
    code = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        "    open(sys.argv[1], 'a').write(sys.argv[2])\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('up', flush=True)\n"
        "time.sleep(600)\n"
    )
    supervisor = Supervisor(lambda _: None)
    started = []
    for name in "abc":
        process = Process(name, [sys.executable, "-c", code, str(order), name], tmp_path / f"{name}.log")
        started.append(supervisor.start(process))
        process.wait_until(lambda process=process: up(process), 120)  # type: ignore[misc]
    supervisor.stop(started)
    assert order.read_text() == "cba"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do this")
def test_kill_9_of_the_supervisor_ends_its_children(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path / "child.log")]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert eventually(lambda: not alive(child))
