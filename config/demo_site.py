"""The settings of the demo's site, for its processes and for a command that is run beside it."""

from __future__ import annotations

import json
import os

from config import embedded

STATE = embedded.LOCAL / "demo.json"  # there while a demo runs
# The demo makes its own; what the others start must not depend on whether a demo runs.
FOUR_EYES = {"default": "5000", "JPY": "750000"}  # so that there is something to confirm
APART = {"demo", "servers", "test", "check_all", "bench"}


def site_settings(*, url: str, sandbox_url: str, secret: str) -> dict[str, str]:
    """What makes a process of the site charge the sandbox."""
    return {
        "SITE_URL": url,
        "STRIPE_API_BASE": sandbox_url,
        "STRIPE_API_KEY": "sk_test_sandbox",
        "STRIPE_WEBHOOK_SECRET": secret,
        "REVIEW_FOUR_EYES": ",".join(f"{name}={limit}" for name, limit in FOUR_EYES.items()),
    }


def join_running_demo(command: str) -> None:
    """Let this command work with the site and the gateway of the demo, if one runs; what is set stays."""
    if command in APART or os.environ.get("DJANGO_ENV") == "production":
        return
    try:
        access = json.loads(STATE.read_text())
    except (FileNotFoundError, PermissionError):  # of another user's checkout the settings tell
        return
    found = site_settings(
        url=access["url"], sandbox_url=access["sandbox_url"], secret=access["webhook_secret"]
    )
    for name, value in found.items():
        os.environ.setdefault(name, value)
