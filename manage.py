#!/usr/bin/env python3
"""Run a command of the site; on a fresh checkout, first make `.venv` and install what the lock names."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "lock.sha256"  # of the lock that was installed
LOCK = ROOT / "requirements" / "local.txt"
NO_VENV = "This Python cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv"


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 - the reader may have an older one
        sys.exit(f"Countinghouse needs Python 3.11 or newer; this is {sys.version.split()[0]}.")
    if wants_own_venv():
        try:
            prepare_venv()
        except KeyboardInterrupt:
            sys.exit("\nInterrupted; nothing was started. The same command goes on with the installation.")
        if Path(sys.prefix).resolve() != VENV.resolve():
            os.execv(PYTHON, [str(PYTHON), *sys.argv])  # noqa: S606 - the same command, inside .venv
    run_command()


def wants_own_venv() -> bool:
    """Not in production, and not when another environment is active and has Django."""
    if os.environ.get("DJANGO_ENV") == "production":
        return False
    elsewhere = sys.prefix != sys.base_prefix and Path(sys.prefix).resolve() != VENV.resolve()
    return not (elsewhere and importlib.util.find_spec("django"))


def prepare_venv() -> None:
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    if not PYTHON.exists():
        make_venv()
    print("Installing requirements/local.txt into .venv (about a minute) ...", file=sys.stderr, flush=True)
    uv = shutil.which("uv")
    pip = [uv, "pip", "install", "--python", str(PYTHON)] if uv else [str(PYTHON), "-m", "pip", "install"]
    if subprocess.run([*pip, "--quiet", "--require-hashes", "-r", str(LOCK)], check=False).returncode:
        sys.exit("The installation failed, see above; nothing was started. If it fails again, remove .venv.")
    STAMP.write_text(wanted)


def make_venv() -> None:
    # Debian and Ubuntu split ensurepip off python3; without it a venv has no pip.
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit(NO_VENV)
    try:
        done = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=False)
    except KeyboardInterrupt:
        shutil.rmtree(VENV, ignore_errors=True)  # half of one has a python, but no pip
        raise
    if done.returncode:
        sys.exit(NO_VENV)


def run_command() -> None:
    # Importable only now that the right Python runs.
    from django.core.management import execute_from_command_line  # noqa: PLC0415
    from django.db.utils import OperationalError  # noqa: PLC0415

    from config import demo_site, embedded  # noqa: PLC0415

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    demo_site.join_running_demo(next(iter(sys.argv[1:]), ""))
    try:
        execute_from_command_line(sys.argv)
    except embedded.EmbeddedError as error:
        sys.exit(f"Error: {error}")
    except OperationalError:
        if os.environ.get("DATABASE_URL") or embedded.answers():
            raise
        sys.exit(
            "Error: the PostgreSQL of this checkout is not running. Start `python3 manage.py servers` or "
            "`make demo` in another terminal, or set DATABASE_URL."
        )


if __name__ == "__main__":
    main()
