"""The periodic tasks: each names a task that there is, and the admin's changes stay."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from config.celery import BEAT_SCHEDULE, app

pytestmark = pytest.mark.django_db


def test_every_default_names_a_registered_task() -> None:
    app.loader.import_default_modules()
    assert {task for task, _ in BEAT_SCHEDULE.values()} <= set(app.tasks)


def test_what_the_admin_changed_stays() -> None:
    call_command("sync_schedule")
    PeriodicTask.objects.filter(name="watch holds").update(enabled=False)
    call_command("sync_schedule")
    assert not PeriodicTask.objects.get(name="watch holds").enabled
    assert PeriodicTask.objects.filter(name__in=BEAT_SCHEDULE).count() == len(BEAT_SCHEDULE)


def test_a_task_that_is_no_more_is_disabled(capsys: pytest.CaptureFixture[str]) -> None:
    minute, _ = IntervalSchedule.objects.get_or_create(every=60, period=IntervalSchedule.SECONDS)
    PeriodicTask.objects.create(name="of last year", task="payments.tasks.gone", interval=minute)
    call_command("sync_schedule")
    assert not PeriodicTask.objects.get(name="of last year").enabled
    assert "disabled: of last year" in capsys.readouterr().out
