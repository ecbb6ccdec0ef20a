"""Run as a process: migrates the database of a shop, and prints its API key and its logins as JSON."""

from __future__ import annotations

import json
import os
import secrets
import sys
from contextlib import redirect_stdout

import django
from django.core.management import call_command

LOGINS = {"analyst": "Fraud analyst", "finance": "Finance", "oncall": "On-call"}


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    call_command("migrate", interactive=False, verbosity=0)
    with redirect_stdout(sys.stderr):
        call_command("sync_roles")
        call_command("sync_schedule")
    hurry_beat()
    print(json.dumps({"api_key": make_key(), "passwords": make_logins()}))


def hurry_beat() -> None:
    """What beat does each minute in a real shop, it does every two seconds here; nothing by the hour of the day."""
    from django_celery_beat.models import IntervalSchedule, PeriodicTask  # noqa: PLC0415 - after the setup

    PeriodicTask.objects.filter(crontab__isnull=False).update(enabled=False)
    IntervalSchedule.objects.filter(every__gt=2).update(every=2)


def make_key() -> str:
    from payments.management.commands.create_api_client import create_key  # noqa: PLC0415 - after the setup
    from payments.models.client import Scope  # noqa: PLC0415

    return create_key("Journey shop", scopes=list(Scope.values))[1]


def make_logins() -> dict[str, str]:
    from django.contrib.auth.models import Group, User  # noqa: PLC0415 - after the setup

    passwords = {}
    for name, group in LOGINS.items():
        passwords[name] = secrets.token_urlsafe(16)
        user = User.objects.create_user(name, password=passwords[name], is_staff=True)
        user.groups.add(Group.objects.get(name=group))
    return passwords


if __name__ == "__main__":
    main()
