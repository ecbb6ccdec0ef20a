"""`manage.py sync_schedule`: puts the beat defaults into the database, where the admin owns them from then on."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask

from config.celery import BEAT_SCHEDULE, app


class Command(BaseCommand):
    help = (
        "Create the periodic tasks that are missing. Those that exist keep what the admin made of them; "
        "those whose task there is no more are disabled."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        existing = set(PeriodicTask.objects.values_list("name", flat=True))
        missing = {name: entry for name, entry in BEAT_SCHEDULE.items() if name not in existing}
        for name, (task, schedule) in missing.items():
            PeriodicTask.objects.create(name=name, task=task, **_make_schedule(schedule))
        app.loader.import_default_modules()  # or only what somebody has imported would be known
        orphans = PeriodicTask.objects.filter(enabled=True).exclude(task__in=app.tasks)
        dropped = [orphan.name for orphan in orphans]
        orphans.update(enabled=False)
        self.stdout.write(f"{len(missing)} periodic tasks created, {len(existing)} kept")
        for name in dropped:
            self.stdout.write(f"disabled: {name}, whose task there is no more")


def _make_schedule(schedule: float | dict[str, str]) -> dict[str, Any]:
    if isinstance(schedule, dict):
        return {"crontab": CrontabSchedule.objects.get_or_create(timezone="UTC", **schedule)[0]}
    period = IntervalSchedule.SECONDS
    return {"interval": IntervalSchedule.objects.get_or_create(every=int(schedule), period=period)[0]}
