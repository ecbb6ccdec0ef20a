"""The import contracts of pyproject.toml hold, and are all there."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.architecture.sources import PACKAGES, ROOT

LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def test_every_contract_is_kept() -> None:
    answer = subprocess.run(
        [LINT_IMPORTS, "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert " 0 broken" in answer.stdout


def test_every_package_is_under_contract() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        linter = tomllib.load(file)["tool"]["importlinter"]
    assert set(linter["root_packages"]) == set(PACKAGES)
    floor = next(contract for contract in linter["contracts"] if contract["type"] == "layers")
    assert floor["layers"] == ["config", "fraud | reconciliation | webhooks", "payments"]
