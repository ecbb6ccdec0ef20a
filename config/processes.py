"""Child processes that are watched, restarted, stopped in reverse order and never left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

STOP_SECONDS = 15.0  # a worker may finish its task before it is killed
LONGEST_DELAY_SECONDS = 30.0
QUIET_SECONDS = 60.0  # who ran this long starts again with the shortest delay
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class ProcessError(RuntimeError):
    """A process did not start or ended although nothing runs without it; the text holds its last words."""


@dataclass
class Process:
    """One child in a process group of its own, so that Ctrl-C in the terminal reaches only its supervisor."""

    name: str
    command: list[str]
    log: Path
    env: Mapping[str, str] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    essential: bool = False  # nothing can go on without it: its end is the end of all
    keep_open: tuple[int, ...] = ()  # file descriptors that the child inherits
    child: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self.child = subprocess.Popen(
                self.command,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
                pass_fds=self.keep_open,
                preexec_fn=self._die_with_parent,
            )

    def running(self) -> bool:
        return self.child is not None and self.child.poll() is None

    def ended(self) -> int | None:
        """The exit code; None while it runs or when it was never started."""
        return None if self.child is None else self.child.poll()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Ask, wait at most so many seconds, then kill what is left of its process group."""
        if self.child is None:
            return
        if self.child.poll() is None:
            self.child.send_signal(self.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self.child.wait(seconds)
        with suppress(ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()
        self.child = None

    def wait_until(self, ready: Callable[[], bool], seconds: float, *, every: float = 0.05) -> None:
        """Wait for its readiness, which is looked at every so many seconds.

        Raises ProcessError when it ends or stays unready for so many seconds.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running():
                raise ProcessError(
                    f"{self.name} did not start (exit code {self.ended()}).\n{self.last_words()}"
                )
            if time.monotonic() > deadline:
                raise ProcessError(f"{self.name} was not ready within {seconds:.0f} s.\n{self.last_words()}")
            time.sleep(every)

    def last_words(self, lines: int = 12) -> str:
        text = self.log.read_text(errors="replace").splitlines()[-lines:] if self.log.exists() else []
        return "\n".join([f"The end of {self.shown_log()}:", *(f"  {line}" for line in text)])

    def shown_log(self) -> Path:
        """The log as the reader would type it."""
        return self.log.relative_to(Path.cwd()) if self.log.is_relative_to(Path.cwd()) else self.log

    def _die_with_parent(self) -> None:
        """On Linux the kernel stops the child even when its parent was killed with -9."""
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, self.stop_signal)


@dataclass
class _Watched:
    process: Process
    started: float
    restart_at: float | None = None
    delay: float = 0.5


class Supervisor:
    """Watches processes from one thread: the kernel ties a child's life to the thread that started it."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._watched: list[_Watched] = []

    def watch(self, processes: Iterable[Process]) -> None:
        """Watch what somebody else started and will stop."""
        self._watched += [_Watched(process, self._clock()) for process in processes]

    def start(self, process: Process) -> Process:
        process.start()
        self.watch([process])
        return process

    def check(self) -> None:
        """Restart what died, each time after a longer pause.

        Raises ProcessError when an essential process died.
        """
        for watched in self._watched:
            self._check_one(watched, self._clock())

    def run(self, between: Callable[[], None] = lambda: None) -> NoReturn:
        """Watch for ever; ends by an exception, such as the one that `end_on_signals` raises."""
        while True:
            self.check()
            between()
            time.sleep(0.2)

    def stop(self, processes: Iterable[Process]) -> None:
        """Stop these, the youngest first; each gets its own time."""
        ours = list(processes)
        self._watched = [watched for watched in self._watched if watched.process not in ours]
        for process in reversed(ours):
            process.stop()

    def _check_one(self, watched: _Watched, now: float) -> None:
        process = watched.process
        if watched.restart_at is not None:
            if now >= watched.restart_at:
                watched.restart_at, watched.started = None, now
                process.start()
        elif not process.running():
            if process.essential:
                raise ProcessError(
                    f"{process.name} died (exit code {process.ended()}).\n{process.last_words()}"
                )
            self._plan_restart(watched, now)

    def _plan_restart(self, watched: _Watched, now: float) -> None:
        if now - watched.started > QUIET_SECONDS:
            watched.delay = 0.5
        code = watched.process.ended()
        watched.process.stop(0)  # takes the rest of its group along
        watched.restart_at = now + watched.delay
        self._say(
            f"{watched.process.name} died (exit code {code}); starting it again in {watched.delay:g} s. "
            f"See {watched.process.shown_log()}"
        )
        watched.delay = min(watched.delay * 2, LONGEST_DELAY_SECONDS)


def end_on_signals() -> None:
    """Let Ctrl-C, SIGTERM and SIGHUP end this process through every `finally`, by one KeyboardInterrupt.

    Only one: a second Ctrl-C must not cut the stopping short.
    """
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(number: int, frame: FrameType | None) -> None:
        for end in ends:
            signal.signal(end, signal.SIG_IGN)
        raise KeyboardInterrupt

    for end in ends:
        signal.signal(end, interrupt)
