"""A command that is run beside a demo speaks to its site and its gateway."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from config import demo_site

NAMES = ("SITE_URL", "STRIPE_API_BASE", "STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET", "REVIEW_FOUR_EYES")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (*NAMES, "DJANGO_ENV"):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    state = tmp_path / "demo.json"
    access = {"url": "http://site:1", "sandbox_url": "http://bank:2", "webhook_secret": "whsec_x"}
    state.write_text(json.dumps(access))
    monkeypatch.setattr(demo_site, "STATE", state)
    return state


def read_settings() -> dict[str, str]:
    return {name: os.environ[name] for name in NAMES if name in os.environ}


def test_a_command_beside_a_demo_finds_its_site_its_gateway_and_its_secret(state: Path) -> None:
    demo_site.join_running_demo("simulate_webhook")
    assert read_settings() == demo_site.site_settings(
        url="http://site:1", sandbox_url="http://bank:2", secret="whsec_x"
    )


def test_what_is_set_already_stays(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_mine")
    demo_site.join_running_demo("simulate_webhook")
    assert os.environ["STRIPE_WEBHOOK_SECRET"] == "whsec_mine"
    assert os.environ["SITE_URL"] == "http://site:1"


@pytest.mark.parametrize("command", sorted(demo_site.APART))
def test_tests_and_checks_do_not_depend_on_a_demo(state: Path, command: str) -> None:
    demo_site.join_running_demo(command)
    assert read_settings() == {}


def test_production_knows_no_demo(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_ENV", "production")
    demo_site.join_running_demo("simulate_webhook")
    assert read_settings() == {}


def test_without_a_demo_nothing_is_set(state: Path) -> None:
    state.unlink()
    demo_site.join_running_demo("simulate_webhook")
    assert read_settings() == {}
